//! Making a vCPU leave the guest, from any thread and without a race.
//!
//! A kick is a signal to the vCPU's thread. That thread blocks the signal, and
//! KVM unblocks it for the time it is inside `KVM_RUN` (`KVM_SET_SIGNAL_MASK`):
//!
//! - inside the guest, the signal ends `KVM_RUN` with `EINTR`;
//! - before it, the signal stays pending, and the next `KVM_RUN` ends at once:
//!   there is no instant between a check and the call in which a kick is lost;
//! - either way the signal is still pending, and blocked again, when the call is
//!   back, so that no handler ever runs there; [`Binding::consume`] takes it off.
//!
//! So no flag has to reach a signal handler, which would need a static. The
//! handler does nothing. It is there because a signal without one would end
//! the process, should it reach a thread that does not block it: one whose
//! number the kernel gave to a new thread after the vCPU's own had ended.
//!
//! A real-time signal is queued once per sending, at the cost of the user's
//! `RLIMIT_SIGPENDING`. One is enough: [`Target::kicked`] keeps it at that.
//!
//! The thread keeps the signal blocked afterwards. Its system calls besides
//! `ioctl`, after each `EINTR`: `rt_sigtimedwait`.

// UNSAFETY: libc has no safe call that signals one thread by its number, and vmm-sys-util's
// that takes a signal off asks twice.
#![expect(unsafe_code)]

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use kedge_hv::{HvError, Kick};
use libc::{EAGAIN, EIO, c_int, c_void, siginfo_t, timespec};
use vmm_sys_util::errno;
use vmm_sys_util::signal::{
    Error as SignalError, SIGRTMIN, block_signal, create_sigset, get_blocked_signals,
    register_signal_handler,
};

use crate::attribute::refused;
use crate::ioctl::{self, SignalMask};

/// How long a full queue of signals is given to drain.
const QUEUE_FULL: Duration = Duration::from_millis(1);

/// A vCPU's side: which thread runs it. When it goes, kicks reach nobody.
#[derive(Debug, Default)]
pub(crate) struct Binding {
    target: Arc<Mutex<Target>>,
}

/// Whom to kick.
#[derive(Debug, Default)]
struct Target {
    /// The process and the thread, while the vCPU has one.
    thread: Option<(c_int, c_int)>,
    /// A signal is on its way, and has not been taken off.
    kicked: bool,
}

/// Kicks a vCPU's thread.
struct KvmKick {
    target: Arc<Mutex<Target>>,
}

impl Binding {
    /// Makes the calling thread the one that runs `vcpu`. A kicker from an earlier
    /// binding kicks this thread from now on.
    pub(crate) fn bind(&self, vcpu: &impl AsRawFd) -> Result<Box<dyn Kick>, HvError> {
        const CALL: &str = "make the vCPU's thread ready for kicks";
        let signal = SIGRTMIN();
        register_signal_handler(signal, on_kick).map_err(refused(CALL))?;
        match block_signal(signal) {
            Ok(()) | Err(SignalError::SignalAlreadyBlocked(_)) => {}
            Err(error) => return Err(HvError::new(CALL, errno_of(&error))),
        }
        let blocked =
            get_blocked_signals().map_err(|error| HvError::new(CALL, errno_of(&error)))?;
        let inside = SignalMask::new(set_of(&blocked) & !set_of(&[signal]));
        ioctl::set_signal_mask(vcpu, inside).map_err(refused(CALL))?;
        lock(&self.target).thread = Some(this_thread());
        Ok(Box::new(KvmKick { target: Arc::clone(&self.target) }))
    }

    /// Takes the signal off, after `KVM_RUN` was interrupted. A kick until now has
    /// had its effect.
    pub(crate) fn consume(&self) {
        let mut target = lock(&self.target);
        if target.thread.is_some() {
            take_off(SIGRTMIN());
            target.kicked = false;
        }
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        lock(&self.target).thread = None;
    }
}

impl Kick for KvmKick {
    fn kick(&self) {
        let mut target = lock(&self.target);
        if let (Some(thread), false) = (target.thread, target.kicked) {
            target.kicked = true;
            // The queue is the user's, not the process's: others can fill it.
            while signal_thread(thread, SIGRTMIN()) == Err(errno::Error::new(EAGAIN)) {
                thread::sleep(QUEUE_FULL);
            }
        }
    }
}

/// A thread that panicked with it left nothing half done: each change is one
/// assignment.
fn lock(target: &Mutex<Target>) -> MutexGuard<'_, Target> {
    target.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn on_kick(_signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {}

/// The calling thread: its process, and itself.
fn this_thread() -> (c_int, c_int) {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    (process, rustix::thread::gettid().as_raw_nonzero().get())
}

/// Takes one `signal` off those that are pending for this thread, if there is one. Should
/// it fail, or another be sent by somebody else, the next run is interrupted once more, no
/// worse.
fn take_off(signal: c_int) {
    const AT_ONCE: timespec = timespec { tv_sec: 0, tv_nsec: 0 };
    let Ok(signals) = create_sigset(&[signal]) else { return };
    // SAFETY: the set and the time live through the call, which writes to neither, and it
    // may leave out who sent the signal where that is null.
    unsafe { libc::sigtimedwait(&signals, std::ptr::null_mut(), &AT_ONCE) };
}

fn signal_thread((process, thread): (c_int, c_int), signal: c_int) -> Result<(), errno::Error> {
    // SAFETY: takes three integers and touches no memory. A thread that is gone is
    // `ESRCH`; the signal has a handler, so it ends nobody.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
    if result < 0 { Err(errno::Error::last()) } else { Ok(()) }
}

/// The kernel's set of these signals: signal n is bit n - 1.
fn set_of(signals: &[c_int]) -> u64 {
    signals
        .iter()
        .filter_map(|signal| u32::try_from(signal - 1).ok())
        .filter_map(|bit| 1_u64.checked_shl(bit))
        .fold(0, |set, bit| set | bit)
}

/// The errno in an error of vmm-sys-util's, whose variants hide it.
fn errno_of(error: &SignalError) -> i32 {
    match error {
        SignalError::CreateSigset(errno)
        | SignalError::CompareBlockedSignals(errno)
        | SignalError::BlockSignal(errno)
        | SignalError::UnblockSignal(errno)
        | SignalError::ClearWaitPending(errno)
        | SignalError::ClearGetPending(errno)
        | SignalError::ClearCheckPending(errno) => errno.errno(),
        SignalError::RetrieveSignalMask(errno) => *errno,
        SignalError::SignalAlreadyBlocked(_) => EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound_here() -> (Binding, KvmKick) {
        let binding = Binding::default();
        let signal = SIGRTMIN();
        register_signal_handler(signal, on_kick).unwrap();
        let _ = block_signal(signal);
        lock(&binding.target).thread = Some(this_thread());
        let kick = KvmKick { target: Arc::clone(&binding.target) };
        (binding, kick)
    }

    #[test]
    fn a_signal_is_the_bit_below_its_number() {
        assert_eq!(set_of(&[1, 2, 64]), 1 << 63 | 0b11);
        assert_eq!(set_of(&[0, 65]), 0);
    }

    #[test]
    fn kicks_before_a_run_are_one_pending_signal() {
        let (binding, kick) = bound_here();
        kick.kick();
        kick.kick();
        assert!(lock(&binding.target).kicked);
        binding.consume();
        assert!(!lock(&binding.target).kicked);
    }

    #[test]
    fn a_kick_after_one_was_consumed_is_a_new_one() {
        let (binding, kick) = bound_here();
        kick.kick();
        binding.consume();
        kick.kick();
        assert!(lock(&binding.target).kicked);
        binding.consume();
    }

    #[test]
    fn kicking_a_vcpu_that_is_gone_reaches_nobody() {
        let (binding, kick) = bound_here();
        drop(binding);
        kick.kick();
        assert!(!lock(&kick.target).kicked);
    }

    #[test]
    fn kicking_a_thread_that_ended_is_harmless() {
        let (binding, kick) = thread::spawn(bound_here).join().unwrap();
        kick.kick();
        drop(binding);
    }

    #[test]
    fn what_is_not_a_vcpu_cannot_be_bound() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = Binding::default().bind(&file).err().unwrap();
        assert_eq!(
            error.to_string(),
            "the hypervisor refused to make the vCPU's thread ready for kicks"
        );
    }
}
