//! Restoring a machine: what its snapshot says, and what may be otherwise.
//!
//! A snapshot is input. Everything of it is read and judged, and a plan of all registers
//! is made with the machine that is being built, before its memory is mapped or any of
//! the host's resources is touched; `build::rebirth` builds.

mod error;
mod memory;
mod parts;
mod plan;
pub(crate) mod working_set;

use std::collections::BTreeSet;
use std::path::PathBuf;

use kedge_devices::virtio::catalog::{DeviceConfig, KINDS};
use kedge_firmware::Born;
use kedge_hv::VcpuFeatures;
use kedge_ids::RegId;
use kedge_metadata::Config as MetadataConfig;
use kedge_saved_state::{Contents, Snapshot, SnapshotId, StateFile};

pub use error::RestoreError;
pub(crate) use memory::WantedMemory;
pub use memory::{MemorySource, Pages};
pub(crate) use parts::Parts;
pub use plan::Forecast;
pub use working_set::WorkingSetError;

use crate::control::Clock;
use crate::save::saved::{DeviceV1, MachineV1};
use crate::spec::{
    Boot, KernelFormat, MachineSpec, OnPanic, OnReset, RomSpec, SerialSpec, Transport,
};

/// A machine as a snapshot has it, and what is to be otherwise.
#[derive(Debug)]
pub struct Restoration<'s> {
    /// The machine. What the guest knows cannot be changed; what the host gives it can:
    /// where devices lead, paths, what a reset does.
    pub spec: MachineSpec,
    /// Registers that the operator allows to be otherwise than saved: losses that a plan
    /// refuses unless they are named here.
    pub allow: BTreeSet<RegId>,
    /// What the time until then is to the guest, if it is to go on as soon as its machine
    /// runs. Without this it stays paused until [`crate::Handle::resume`].
    pub resume: Option<Clock>,
    /// Where its guest's memory comes from.
    pub memory: MemorySource<'s>,
    /// How large the host's pages behind that memory are to be.
    pub pages: Pages,
    /// The file with the pages that the guest needs first. One that is there is used: they
    /// are in place before the guest goes on. One that is not is written when the machine
    /// is first paused, or ends: with the pages in use by then.
    pub working_set: Option<PathBuf>,
    pub(crate) saved: Saved<'s>,
}

/// A machine as it was saved.
#[derive(Debug)]
pub(crate) struct Saved<'s> {
    pub(crate) state: &'s StateFile,
    pub(crate) parts: Parts,
}

impl Saved<'_> {
    /// The snapshot's id.
    pub(crate) fn id(&self) -> SnapshotId {
        self.state.header().memory.id
    }
}

impl<'s> Restoration<'s> {
    /// The machine in `snapshot`, as it was saved; its memory is the memory file's.
    ///
    /// # Errors
    /// The snapshot is damaged, of another architecture or page size, needs what this
    /// release does not know, or is a difference to another.
    pub fn of(snapshot: &'s Snapshot) -> Result<Self, RestoreError> {
        Self::from(snapshot.state(), MemorySource::File(snapshot.image()))
    }

    /// The machine of the state file `state`, as it was saved; the page server on `socket`
    /// has its memory.
    ///
    /// # Errors
    /// As for [`Restoration::of`].
    pub fn served(state: &'s StateFile, socket: PathBuf) -> Result<Self, RestoreError> {
        Self::from(state, MemorySource::Served(socket))
    }

    fn from(state: &'s StateFile, memory: MemorySource<'s>) -> Result<Self, RestoreError> {
        if let Contents::Difference { of } = state.header().contents() {
            return Err(RestoreError::Difference { of });
        }
        let parts = Parts::read(state)?;
        let spec = spec(&parts.machine, &parts.born)?;
        let saved = Saved { state, parts };
        let (allow, resume, working_set) = (BTreeSet::new(), None, None);
        Ok(Self { spec, allow, resume, memory, pages: Pages::default(), working_set, saved })
    }

    /// Puts `device` in the place of the saved one of its kind and name: the same to the
    /// guest, and something else of the host's.
    ///
    /// # Errors
    /// There is none.
    pub fn replace(&mut self, device: Box<dyn DeviceConfig>) -> Result<(), RestoreError> {
        let is_same = |other: &&mut Box<dyn DeviceConfig>| {
            other.kind().key == device.kind().key && other.id() == device.id()
        };
        let (noun, id) = (device.kind().noun, device.id().to_owned());
        match self.spec.devices.iter_mut().find(is_same) {
            Some(place) => {
                *place = device;
                Ok(())
            }
            None => Err(RestoreError::NoDevice { noun, id }),
        }
    }

    /// Checks that nothing was changed that the guest knows.
    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        let saved = &self.saved.parts.machine;
        let MachineSpec { cpus, memory, pci_slots, devices, plugged, rom, .. } = &self.spec;
        let device = |kind: &str, id: &str| format!("{kind} `{id}`");
        let rows = [
            ("number of vCPUs", saved.cpus.to_string(), cpus.to_string()),
            ("memory, in bytes,", saved.memory.to_string(), memory.to_string()),
            (
                "list of devices",
                list(saved.devices.iter().map(|saved| device(&saved.kind, &saved.id))),
                list(devices.iter().map(|here| device(here.kind().key, here.id()))),
            ),
            ("slots on PCI", saved.pci_slots.to_string(), pci_slots.to_string()),
            (
                "slots of devices",
                list(saved.plugged.iter().map(u8::to_string)),
                list(plugged.iter().map(u8::to_string)),
            ),
            (
                "read-only memory",
                list(saved.rom.iter().map(|rom| format!("{:#x}", rom.address))),
                list(rom.iter().map(|rom| format!("{:#x}", rom.address))),
            ),
        ];
        match rows.into_iter().find(|(_, saved, here)| saved != here) {
            Some((what, saved, here)) => Err(RestoreError::Changed { what, saved, here }),
            None => Ok(()),
        }
    }
}

fn list(words: impl Iterator<Item = String>) -> String {
    let words: Vec<_> = words.collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// What the snapshot's machine was asked to be.
fn spec(saved: &MachineV1, born: &Born) -> Result<MachineSpec, RestoreError> {
    let MachineV1 {
        cpus,
        memory,
        cpu_features,
        boot,
        rom,
        serial,
        devices,
        restarts,
        ends_on_panic,
        metadata,
        pci,
        pci_slots: _,
        plugged,
        io_threads,
    } = saved;
    let mut features = VcpuFeatures::NONE;
    for name in cpu_features {
        features |= kedge_arch::features::named(name)
            .map_err(|error| parts::field("cpu_features", error.to_string()))?;
    }
    Ok(MachineSpec {
        cpus: *cpus,
        memory: *memory,
        cpu_features: features,
        guest_abi: born.birth.abi.clone(),
        psci: None,
        gic: born.gic,
        transport: if *pci { Transport::Pci } else { Transport::Mmio },
        pci_slots: checked_slots(saved)?,
        boot: Boot {
            kernel: boot.kernel.clone(),
            kernel_format: if boot.flat { KernelFormat::Flat } else { KernelFormat::Auto },
            initrd: boot.initrd.clone(),
            cmdline: boot.cmdline.clone(),
        },
        rom: rom
            .iter()
            .map(|rom| RomSpec { path: rom.path.clone(), address: rom.address })
            .collect(),
        serial: serial.clone().map_or(SerialSpec::Stdio, SerialSpec::File),
        devices: devices.iter().map(device).collect::<Result<_, _>>()?,
        removable: Vec::new(),
        plugged: plugged.clone(),
        io_threads: *io_threads,
        metadata: metadata.as_deref().map(metadata_config).transpose()?,
        on_reset: if *restarts { OnReset::Restart } else { OnReset::Exit },
        on_panic: if *ends_on_panic { OnPanic::Exit } else { OnPanic::Continue },
    })
}

/// The slots, where the devices that are said to be in them can be.
fn checked_slots(saved: &MachineV1) -> Result<u8, RestoreError> {
    let MachineV1 { devices, pci_slots, plugged, .. } = saved;
    let is_odd = |(index, slot): &(usize, &u8)| {
        **slot == 0 || *slot > pci_slots || plugged[..*index].contains(slot)
    };
    if let Some((_, slot)) = plugged.iter().enumerate().find(is_odd) {
        return Err(parts::field("plugged", format!("has slot {slot} once too often")));
    }
    if plugged.len() > devices.len() {
        let problem = format!("are {}, and there are {} devices", plugged.len(), devices.len());
        return Err(parts::field("plugged", problem));
    }
    Ok(*pci_slots)
}

/// A metadata service as it was configured.
fn metadata_config(saved: &str) -> Result<MetadataConfig, RestoreError> {
    let config = serde_json::from_str(saved);
    config.map_err(|error| parts::field("metadata", format!("is not what it was: {error}")))
}

/// A device as it was configured.
fn device(saved: &DeviceV1) -> Result<Box<dyn DeviceConfig>, RestoreError> {
    let DeviceV1 { kind, id, configuration } = saved;
    let known = KINDS.iter().find(|known| known.key == kind.as_str());
    let known = known.ok_or_else(|| {
        parts::field("devices", format!("has a device of the unknown kind `{kind}`"))
    })?;
    let json = serde_json::from_str(configuration).map_err(|error| {
        parts::field("devices.configuration", format!("of `{id}` is not JSON: {error}"))
    })?;
    (known.from_json)(json).map_err(|source| {
        let (kind, id) = (kind.clone(), id.clone());
        RestoreError::Device { kind, id, source }
    })
}
