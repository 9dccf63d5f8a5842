//! The system calls of a disk at work.

use crate::virtio::syscalls::{LIMITS, Syscall};

/// Those that [`EVENT_LOOP`](crate::virtio::syscalls::EVENT_LOOP) has not. A back end that a
/// program brought along may make others.
pub(super) const SYSCALLS: &[Syscall] = &[
    LIMITS[0],
    LIMITS[1],
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_fdatasync,
    // Discard and write zeroes; what a file system cannot make zero is written.
    libc::SYS_fallocate,
    libc::SYS_pwrite64,
    libc::SYS_io_uring_enter,
];
