//! What a machine takes time for, and how long that is called.

use std::time::Duration;

use kedge_api::call::{Call, SnapshotType, WantedState};
use tracing::info;

/// Something that a machine takes time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// It is saved as a whole.
    CreateFull,
    /// What has changed of it is saved.
    CreateDiff,
    /// It is loaded.
    Load,
    /// It is paused.
    Pause,
    /// It goes on.
    Resume,
}

/// Firecracker's names: until a client is answered, and in the machine alone.
pub(super) const KEYS: [&str; 10] = [
    "full_create_snapshot",
    "diff_create_snapshot",
    "load_snapshot",
    "pause_vm",
    "resume_vm",
    "vmm_full_create_snapshot",
    "vmm_diff_create_snapshot",
    "vmm_load_snapshot",
    "vmm_pause_vm",
    "vmm_resume_vm",
];

impl Act {
    /// Whether the machine is asked for it at once, so that it takes as long for it as its
    /// client waits: to look at the clock once more would cost as much as there is between.
    pub(crate) fn is_quick(self) -> bool {
        matches!(self, Self::Pause | Self::Resume)
    }

    /// What `call` is, if it is one of these.
    pub(crate) fn of(call: &Call) -> Option<Self> {
        match call {
            Call::SetState(WantedState::Paused) => Some(Self::Pause),
            Call::SetState(WantedState::Resumed) => Some(Self::Resume),
            Call::LoadSnapshot(_) => Some(Self::Load),
            Call::CreateSnapshot(create) => Some(match create.snapshot_type {
                SnapshotType::Diff => Self::CreateDiff,
                SnapshotType::Full | SnapshotType::Copy => Self::CreateFull,
            }),
            _ => None,
        }
    }

    /// The log's line on how long a client has waited for it (FIRECRACKER_API.md, 12).
    pub(crate) fn log_answered(self, took: Duration) {
        info!("'{}' API request took {} us.", self.words(), took.as_micros());
    }

    /// The log's line on how long a machine has taken for it.
    pub(crate) fn log_done(self, took: Duration) {
        info!("'{}' VMM action took {} us.", self.words(), took.as_micros());
    }

    fn words(self) -> &'static str {
        match self {
            Self::CreateFull => "create full snapshot",
            Self::CreateDiff => "create diff snapshot",
            Self::Load => "load snapshot",
            Self::Pause => "pause vm",
            Self::Resume => "resume vm",
        }
    }

    /// As metrics have it: until the client is answered.
    pub(super) fn key(self) -> &'static str {
        self.keys()[0]
    }

    /// In the machine alone.
    pub(super) fn machine_key(self) -> &'static str {
        self.keys()[1]
    }

    fn keys(self) -> [&'static str; 2] {
        match self {
            Self::CreateFull => [KEYS[0], KEYS[5]],
            Self::CreateDiff => [KEYS[1], KEYS[6]],
            Self::Load => [KEYS[2], KEYS[7]],
            Self::Pause => [KEYS[3], KEYS[8]],
            Self::Resume => [KEYS[4], KEYS[9]],
        }
    }
}
