//! Signals that end a process, for a machine that would leave something behind: it is
//! ended first. One on a terminal has its keys watched, and these signals with them.

use std::io;
use std::process;
use std::sync::{Arc, OnceLock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::keys::GRACE;
use super::signals::Signals;
use super::{Guest, spawn};
use crate::status::Status;

/// Signals held back from this thread and those it starts.
#[derive(Debug)]
pub(crate) struct Ending(Signals);

impl Ending {
    /// Holds the signals back, before there are other threads.
    ///
    /// # Errors
    /// The host has no more file descriptors.
    pub(crate) fn hold() -> io::Result<Self> {
        Signals::hold().map(Self)
    }

    /// Ends `guest` by the first of them, which is then told; by the second, or where the machine takes too
    /// long, the process.
    ///
    /// # Errors
    /// The host has no more threads.
    pub(crate) fn connect(self, guest: impl Guest) -> io::Result<Arc<OnceLock<u8>>> {
        let ended_by = Arc::new(OnceLock::new());
        let first = Arc::clone(&ended_by);
        spawn("signals", move || {
            let number = self.wait(None).unwrap_or_default();
            let _ = first.set(number);
            guest.stop();
            // Once the machine has ended, so does the process, and this thread with it.
            self.wait(Timespec::try_from(GRACE).ok());
            process::exit(Status::from_signal(number).0.into());
        })?;
        Ok(ended_by)
    }

    /// The next signal that comes; none within `patience`.
    fn wait(&self, patience: Option<Timespec>) -> Option<u8> {
        loop {
            let mut events = [PollFd::new(&self.0, PollFlags::IN)];
            // Only a signal that nobody holds can interrupt.
            let ready = poll(&mut events, patience.as_ref()).unwrap_or(1);
            match self.0.next() {
                Some(number) => return Some(number),
                None if ready == 0 => return None,
                None => {}
            }
        }
    }
}
