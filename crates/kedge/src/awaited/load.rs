//! A snapshot that a client has loaded: what its words ask for, and what it is told where
//! that cannot be.

use std::collections::BTreeSet;
use std::path::Path;

use kedge_api::call::{Clock as WantedClock, HugePages, LoadSnapshot, MemoryBackend};
use kedge_devices::virtio::catalog::{KINDS, Kind};
use kedge_devices::virtio::overrides::{Override, OverrideError};
use kedge_diag::{Fix, Trouble};
use kedge_firmware::{NoRegister, register_named};
use kedge_saved_state::OpenError;
use kedge_vmm::spec::SerialSpec;
use kedge_vmm::{Clock, Pages};
use serde_json::{Value, json};

use crate::api::Told;
use crate::machine::{LoadRequest, MachineError, MemoryFrom};

/// Why a client's snapshot is not loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// Something else was described already.
    #[error("another machine is described already")]
    Described,
    /// It cannot be.
    #[error(transparent)]
    Failed(Told),
}

/// Why a snapshot cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadLoad {
    /// There can be no such machine here.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// No such register.
    #[error(transparent)]
    Register(#[from] NoRegister),
}

impl Fix for LoadError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Described => {
                Some("start that one, or load the snapshot in another process".to_owned())
            }
            Self::Failed(source) => source.fix(),
        }
    }
}

impl Fix for BadLoad {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Machine(source) => source.fix(),
            Self::Register(source) => source.fix(),
        }
    }
}

impl From<OverrideError> for BadLoad {
    fn from(error: OverrideError) -> Self {
        Self::Machine(error.into())
    }
}

impl LoadError {
    /// What a message about it begins with, behind what it is about (FIRECRACKER_API.md, 6).
    pub(crate) fn prefix(&self) -> String {
        match self {
            Self::Described => "Loading a microVM snapshot not allowed after configuring \
                                boot-specific resources. "
                .to_owned(),
            Self::Failed(told) => format!("Failed to restore from snapshot: {}", told.prefix()),
        }
    }
}

/// What a client's words ask for.
///
/// # Errors
/// They ask for something that there is not.
pub(super) fn request(load: &LoadSnapshot) -> Result<LoadRequest, BadLoad> {
    let memory = match &load.memory {
        MemoryBackend::File(path) => MemoryFrom::File(path.clone()),
        MemoryBackend::Uffd(socket) => MemoryFrom::Server(socket.clone()),
    };
    let pages = match load.huge_pages {
        HugePages::Snapshot => Pages::AsSaved,
        HugePages::None => Pages::Small,
        HugePages::Transparent => Pages::Transparent,
        HugePages::Huge2M => Pages::Huge2M,
    };
    let mut overrides = Vec::new();
    for change in &load.network_overrides {
        overrides.extend(other(NETWORK, json!(change))?);
    }
    for change in &load.drive_overrides {
        overrides.extend(other(DISKS, json!(change))?);
    }
    if let Some(change) = &load.vsock_override {
        overrides.extend(other(VSOCK, json!(change))?);
    }
    let allow = load.allow.iter().map(|name| register_named(name));
    let clock = match load.clock {
        WantedClock::Profile => Clock::Profile,
        WantedClock::Stop => Clock::Stop,
        WantedClock::Advance => Clock::Advance,
    };
    Ok(LoadRequest {
        state: load.snapshot_path.clone(),
        memory,
        pages,
        working_set: load.working_set_path.clone(),
        overrides,
        serial: load.serial_override.as_ref().map(|serial| output_to(&serial.serial_out_path)),
        allow: allow.collect::<Result<BTreeSet<_>, _>>()?,
        resume: load.resume_vm.then_some(clock),
        notes_changes: load.track_dirty_pages,
    })
}

fn output_to(path: &Path) -> SerialSpec {
    SerialSpec::File(path.to_owned())
}

/// The key of network interfaces, which can be given something else of the host's.
pub(crate) const NETWORK: &str = "network-interfaces";
/// That of disks.
pub(crate) const DISKS: &str = "drives";
/// That of the vsock device.
pub(crate) const VSOCK: &str = "vsock";

/// The kind of devices with this key.
pub(crate) fn kind(key: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.key == key)
}

/// What a device of the kind with this key uses here.
fn other(key: &str, change: Value) -> Result<Option<Override>, OverrideError> {
    kind(key).map(|kind| Override::from_json(kind, change)).transpose()
}

impl BadLoad {
    /// Why the snapshot with this state file is not loaded.
    pub(super) fn of(self, state: &Path) -> LoadError {
        LoadError::Failed(Told::new(self.prefix(state), Trouble::new(self)))
    }

    /// What a message about it begins with, where `state` is the snapshot's state file.
    fn prefix(&self, state: &Path) -> String {
        const STATE: &str = "Failed to get snapshot state from file: ";
        const MEMORY: &str = "Failed to load guest memory: Error creating guest memory from \
                              file: Failed to load guest memory: ";
        match self {
            Self::Machine(MachineError::Snapshot(error)) => match error {
                OpenError::File { path, source } if path == state => {
                    format!("{STATE}Failed to open snapshot file: {source}: ")
                }
                OpenError::File { source, .. } => format!("{MEMORY}{source}: "),
                OpenError::State { .. } => STATE.to_owned(),
                OpenError::Memory { .. } => MEMORY.to_owned(),
            },
            Self::Machine(MachineError::Override(OverrideError::NoSuch { noun, .. }))
                if kind(NETWORK).is_some_and(|kind| kind.noun == *noun) =>
            {
                "Unknown Network Device. ".to_owned()
            }
            Self::Machine(MachineError::Override(OverrideError::Which {
                noun, count: 0, ..
            })) if kind(VSOCK).is_some_and(|kind| kind.noun == *noun) => {
                "Unknown Vsock Device. ".to_owned()
            }
            Self::Machine(_) | Self::Register(_) => String::new(),
        }
    }
}
