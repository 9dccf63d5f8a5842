//! Signals that end a process, for a machine that would leave something behind: it is
//! ended first. One on a terminal has its keys watched, and these signals with them.

use std::io;
use std::process;
use std::sync::{Arc, OnceLock};

use super::keys::GRACE;
use super::signals::Held;
use super::{Guest, spawn};
use crate::status::Status;

/// Signals held back from this thread and those it starts.
#[derive(Debug)]
pub(crate) struct Ending(Held);

impl Ending {
    /// Holds the signals back, before there are other threads.
    pub(crate) fn hold() -> Self {
        Self(Held::hold())
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
            let number = self.0.wait(None).unwrap_or_default();
            let _ = first.set(number);
            guest.stop();
            // Once the machine has ended, so does the process, and this thread with it.
            self.0.wait(Some(GRACE));
            process::exit(Status::from_signal(number).0.into());
        })?;
        Ok(ended_by)
    }
}
