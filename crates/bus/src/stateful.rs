//! A device that can stand still, be saved, and go on, here or elsewhere.

use std::time::Instant;

use kedge_diag::{Fix, Trouble};
use kedge_saved_state::Part;

/// A device whose machine pauses, saves and restores it.
///
/// It works from when it is made until it is paused or restored; then it rests
/// until it is resumed. While it rests, its state, the guest's memory and its wire
/// stay as they are: what comes from the host meanwhile waits where it comes from,
/// in a tap's queue or with whoever types. The guest's accesses cannot come then,
/// since its machine holds the vCPUs before it pauses devices, and resumes devices
/// before it lets the vCPUs go.
pub trait Stateful: Send + Sync {
    /// What an error calls it: "disk `root`", "the serial port".
    fn name(&self) -> String;

    /// Comes to rest, after what it is at. Nothing where it rests.
    ///
    /// # Errors
    /// It was not done by `deadline`, or the host refused. It then works on, as if
    /// nobody had asked.
    fn pause(&self, deadline: Instant) -> Result<(), PauseError>;

    /// Goes on, and raises its wire where the guest of a restored machine may not
    /// have been given an edge. Nothing where it works.
    ///
    /// # Errors
    /// The host refused. It then still rests.
    fn resume(&self) -> Result<(), ResumeError>;

    /// What it takes to go on elsewhere. The same each time, for as long as it
    /// rests.
    ///
    /// # Errors
    /// It does not rest.
    fn save(&self) -> Result<Part, NotAtRest>;

    /// Takes up what was saved of a device like it, and rests. It must not have
    /// met a guest before, and the guest's memory must be there.
    ///
    /// # Errors
    /// The part is damaged or of another device, or the host's resource is not
    /// what the guest knows. The device is then of no further use.
    fn restore(&self, saved: &Part) -> Result<(), RestoreError>;
}

/// Why a device does not come to rest.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// It is not done with what it is at.
    #[error("{device} has not finished its requests in time")]
    Late {
        /// The device.
        device: String,
    },
    /// The host refuses.
    #[error("{device} cannot be paused")]
    Host {
        /// The device.
        device: String,
        /// Why.
        source: Trouble,
    },
}

impl Fix for PauseError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Late { .. } => Some(
                "look for what on the host keeps it waiting (a disk on a slow network?) and try \
                 again"
                    .to_owned(),
            ),
            Self::Host { source, .. } => source.fix(),
        }
    }
}

/// Why a device does not go on.
#[derive(Debug, thiserror::Error)]
#[error("{device} cannot go on")]
pub struct ResumeError {
    /// The device.
    pub device: String,
    /// Why.
    pub source: Trouble,
}

impl Fix for ResumeError {
    fn fix(&self) -> Option<String> {
        self.source.fix()
    }
}

/// A device at work cannot be saved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{device} cannot be saved while it works")]
pub struct NotAtRest {
    /// The device.
    pub device: String,
}

impl Fix for NotAtRest {
    fn fix(&self) -> Option<String> {
        Some("pause the machine first".to_owned())
    }
}

/// Why a device cannot be as it was saved.
#[derive(Debug, thiserror::Error)]
#[error("{device} cannot be restored")]
pub struct RestoreError {
    /// The device.
    pub device: String,
    /// Why: what is wrong with the saved state or the host.
    pub source: Trouble,
}

impl Fix for RestoreError {
    fn fix(&self) -> Option<String> {
        self.source.fix()
    }
}
