//! The system calls of the vsock device at work.

use crate::virtio::syscalls::{LIMITS, Syscall};

/// Those that [`EVENT_LOOP`](crate::virtio::syscalls::EVENT_LOOP) has not.
pub(super) const SYSCALLS: &[Syscall] = &[
    LIMITS[0],
    LIMITS[1],
    // Connections of the guest, and of the host.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_fcntl,
    libc::SYS_shutdown,
    // What goes over them.
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
];
