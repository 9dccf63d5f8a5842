//! Signals that end a process, as something to wait for: whoever has left a terminal raw,
//! or has files to remove, must hear of them.
//!
//! UNSAFETY: neither rustix nor vmm-sys-util has signalfd(2), sigtimedwait(2), or a
//! question for a signal's disposition.
#![expect(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use libc::{SFD_CLOEXEC, SFD_NONBLOCK, SIG_IGN, SIGHUP, SIGINT, SIGTERM, c_int, timespec};
use vmm_sys_util::signal::{block_signal, create_sigset};

/// `struct signalfd_siginfo` is 128 bytes long and begins with `ssi_signo`.
const RECORD: usize = 128;

/// SIGTERM, SIGINT and SIGHUP, as far as they are held back from their defaults.
#[derive(Debug)]
pub(super) struct Held(Vec<c_int>);

impl Held {
    /// Holds the signals back from this thread and those it starts from now on.
    /// What the process's parent had it ignore, as nohup(1) does, stays ignored.
    pub(super) fn hold() -> Self {
        let wanted: Vec<c_int> =
            [SIGTERM, SIGINT, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal)).collect();
        for &signal in &wanted {
            // Where the parent blocked it, it is held back already.
            let _ = block_signal(signal);
        }
        Self(wanted)
    }

    /// The number of the next that comes; none within `patience`, from the last time that
    /// something else came. Unlike who waits for a file descriptor, who waits here sleeps
    /// through signals to other threads.
    pub(super) fn wait(&self, patience: Option<Duration>) -> Option<u8> {
        let set = create_sigset(&self.0).ok()?;
        let patience = patience.map(|patience| timespec {
            tv_sec: patience.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        });
        let timeout = patience.as_ref().map_or(ptr::null(), ptr::from_ref);
        loop {
            // SAFETY: the set and the timeout, which may be null, live through the call, and
            // it leaves out who sent the signal where that is null.
            let number = unsafe { libc::sigtimedwait(&raw const set, ptr::null_mut(), timeout) };
            if number >= 0 {
                return u8::try_from(number).ok();
            }
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return None;
            }
        }
    }
}

/// Held signals, to wait for beside other things (signalfd(2)).
#[derive(Debug)]
pub(super) struct Signals(OwnedFd);

impl Signals {
    /// Those that are held back: from this thread and those it starts from now on.
    ///
    /// # Errors
    /// The host has no more file descriptors.
    pub(super) fn hold() -> io::Result<Self> {
        let set = create_sigset(&Held::hold().0)?;
        // SAFETY: `set` is a valid signal set and outlives the call.
        let fd = unsafe { libc::signalfd(-1, &raw const set, SFD_CLOEXEC | SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made `fd`, and nobody else has seen it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The number of a signal that came, if one did.
    pub(super) fn next(&self) -> Option<u8> {
        let mut record = [0; RECORD];
        let length = rustix::io::read(&self.0, &mut record).ok()?;
        let number = record.first_chunk().filter(|_| length == RECORD)?;
        u8::try_from(u32::from_ne_bytes(*number)).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn is_ignored(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only fills `action`, which is large
    // enough.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeroes is a valid `sigaction`, and so is what the kernel wrote.
    let action = unsafe { action.assume_init() };
    asked == 0 && action.sa_sigaction == SIG_IGN
}
