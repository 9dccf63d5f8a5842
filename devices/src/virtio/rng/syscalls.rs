//! The system calls of the entropy device at work.

use crate::virtio::syscalls::{LIMITS, Syscall};

/// Those that [`EVENT_LOOP`](crate::virtio::syscalls::EVENT_LOOP) has not.
pub(super) const SYSCALLS: &[Syscall] = &[LIMITS[0], LIMITS[1], libc::SYS_getrandom];
