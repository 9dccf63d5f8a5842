//! The system calls that devices make while they work, for who filters those of their
//! threads (seccomp). Each kind has its own list, beside what all workers need; what opens a
//! device makes more, and is done before.

use libc::c_long;

/// A system call, by its number on this architecture (`SYS_*`).
pub type Syscall = c_long;

/// What a thread needs on which devices work: to wait, to hear doorbells, to raise
/// interrupts, to log, to have memory, and to end.
pub const EVENT_LOOP: &[Syscall] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    // Doorbells, timers, and other threads that are told.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    // Interrupts: KVM_IRQ_LINE and KVM_SIGNAL_MSI.
    libc::SYS_ioctl,
    // Where a vDSO does not answer: limits and log lines.
    libc::SYS_clock_gettime,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    // glibc's allocator, where threads get into each other's way.
    libc::SYS_sched_getaffinity,
    libc::SYS_close,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
];

/// What limits of a device need, besides.
pub(super) const LIMITS: [Syscall; 2] = [libc::SYS_timerfd_create, libc::SYS_timerfd_settime];
