//! The system calls of a network card at work.

use crate::virtio::syscalls::{LIMITS, Syscall};

/// Those that [`EVENT_LOOP`](crate::virtio::syscalls::EVENT_LOOP) has not.
pub(super) const SYSCALLS: &[Syscall] = &[
    LIMITS[0],
    LIMITS[1],
    // Frames, in and out.
    libc::SYS_readv,
    libc::SYS_writev,
    // What a back end in another process is told while it works: the queues in use.
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
];
