//! What becomes of a machine, told to whoever listens.

use std::path::PathBuf;

use kedge_devices::virtio::mishap::MishapListener;
pub use kedge_devices::virtio::mishap::{Mishap, MishapKind};

use crate::machine::{Ended, Reset, RunError};
use crate::surroundings::EventListener;

/// Something that became of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineEvent {
    /// Its guest begins, with its first instruction: once more after each reset.
    Started,
    /// It was restored.
    Loaded {
        /// Whether its guest goes on at once, or it is paused.
        runs: bool,
    },
    /// Its guest stands still.
    Paused,
    /// Its guest goes on.
    Resumed,
    /// It was saved, in this state file.
    Saved(PathBuf),
    /// Its guest has reset, and begins anew.
    Reset(Reset),
    /// Its guest's kernel has panicked, by its console, which shows this line. A guest can
    /// print such lines at will: it is told the first time, the second, the fourth, the
    /// eighth and so on.
    Panicked {
        /// The line.
        line: String,
        /// How often there was one by now.
        times: u64,
    },
    /// Something went wrong with a device.
    Mishap(Mishap),
    /// It has ended: how, or why it could not run on.
    Stopped(Result<Ended, String>),
}

impl MachineEvent {
    /// It has ended so.
    pub(crate) fn stopped(end: &Result<Ended, RunError>) -> Self {
        Self::Stopped(end.as_ref().map(|ended| *ended).map_err(ToString::to_string))
    }
}

/// Hears of devices' mishaps for `listener`.
pub(crate) fn mishaps(listener: &EventListener) -> MishapListener {
    let listener = EventListener::clone(listener);
    MishapListener::new(move |mishap| listener(&MachineEvent::Mishap(mishap)))
}
