//! What a machine is made of, as a user says it: plain data, checked when the
//! machine is built. The command line, the configuration file and embedders all
//! produce the same value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::mem;
use std::path::PathBuf;

pub use kedge_arch::image::KernelFormat;
pub use kedge_arch::layout::Transport;
pub use kedge_arch::psci::PsciVersion;
use kedge_devices::virtio::catalog::{self, Clash, DeviceConfig};
use kedge_diag::Fix;
pub use kedge_firmware::GuestAbi;
use kedge_firmware::{ARM64_V1, Firmware, FwReg, builtin};
use kedge_hv::{GicVersion, VcpuFeatures};
use kedge_metadata::Config as MetadataConfig;
use serde::{Serialize, Serializer};

/// The most slots on PCI that a machine has.
pub const PCI_SLOTS: u8 = 8;

/// A machine.
#[derive(Debug, Serialize)]
pub struct MachineSpec {
    /// vCPUs, from 1.
    pub cpus: u32,
    /// RAM in bytes: a multiple of the host's page size.
    pub memory: u64,
    /// Features asked for beyond the plain architecture: `pmu`, `sve`, `ptrauth`.
    #[serde(serialize_with = "feature_names")]
    pub cpu_features: VcpuFeatures,
    /// What the guest is promised of its firmware and its CPU, for life.
    pub guest_abi: GuestAbi,
    /// The PSCI version the guest is offered, whatever its profile says of it.
    pub psci: Option<PsciVersion>,
    /// The interrupt controller; the host's best where not given.
    pub gic: Option<GicVersion>,
    /// What its virtio devices are attached to.
    pub transport: Transport,
    /// Slots on PCI into which devices can be plugged while the guest runs, up to 8.
    #[serde(skip_serializing_if = "is_zero")]
    pub pci_slots: u8,
    /// What runs.
    pub boot: Boot,
    /// Memory that the guest can load from but not store to.
    pub rom: Vec<RomSpec>,
    /// Where the serial port leads.
    pub serial: SerialSpec,
    /// Virtio devices, each with the key of its kind, in the order in which the
    /// guest finds them.
    #[serde(serialize_with = "devices_as_json")]
    pub devices: Vec<Box<dyn DeviceConfig>>,
    /// The names of devices that begin in slots, the first in the first: they can leave while
    /// the guest runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removable: Vec<String>,
    /// The slots, from 1, of those devices that are in slots, be it from the start or since
    /// they were plugged in: they are the last ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugged: Vec<u8>,
    /// Threads on which virtio devices work, in turn; without any, all work on one, with
    /// whatever else does.
    #[serde(skip_serializing_if = "is_zero")]
    pub io_threads: u8,
    /// Where the guest finds a metadata service, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataConfig>,
    /// What a reset by the guest does.
    pub on_reset: OnReset,
    /// What a panic of the guest's kernel does, once its console has told of it.
    pub on_panic: OnPanic,
}

impl MachineSpec {
    /// A machine that runs `boot` with this release's default profile: one vCPU, 128 MiB of RAM, no virtio devices; it
    /// ends when the guest resets or panics.
    pub fn new(boot: Boot) -> Self {
        Self {
            cpus: 1,
            memory: 128 << 20,
            cpu_features: VcpuFeatures::NONE,
            guest_abi: builtin(ARM64_V1).expect("every release has its default profile"),
            psci: None,
            gic: None,
            transport: Transport::Mmio,
            pci_slots: 0,
            boot,
            rom: Vec::new(),
            serial: SerialSpec::default(),
            devices: Vec::new(),
            removable: Vec::new(),
            plugged: Vec::new(),
            io_threads: 0,
            metadata: None,
            on_reset: OnReset::Exit,
            on_panic: OnPanic::Exit,
        }
    }

    /// How many devices are not in slots.
    pub(crate) fn built_in(&self) -> usize {
        self.devices.len().saturating_sub(self.plugged.len())
    }

    /// Whether it has no more slots than it can.
    ///
    /// # Errors
    /// It has.
    pub(crate) fn check_slots(&self) -> Result<(), BadSlots> {
        match (self.pci_slots, self.transport) {
            (0, _) => Ok(()),
            (_, Transport::Mmio) => Err(BadSlots::NoPci),
            (asked, _) if asked > PCI_SLOTS => Err(BadSlots::TooMany { asked }),
            (1.., Transport::Pci) => Ok(()),
        }
    }

    /// Puts the devices in the order in which the guest finds them.
    ///
    /// # Errors
    /// They cannot be in one machine together.
    pub(crate) fn arrange(&mut self) -> Result<(), Clash> {
        let built_in = self.built_in();
        catalog::arrange(&mut self.devices[..built_in])?;
        catalog::check_ids(&self.devices)
    }

    /// Puts devices that are to be removable, which are arranged, into slots.
    ///
    /// # Errors
    /// One cannot be there.
    pub(crate) fn fill_slots(&mut self) -> Result<(), BadSlots> {
        for id in mem::take(&mut self.removable) {
            let mut built_in = self.devices.iter().take(self.built_in());
            let Some(index) = built_in.position(|device| device.id() == id) else {
                return Err(BadSlots::NoSuch { id });
            };
            let (noun, slots) = (self.devices[index].kind().noun, self.pci_slots);
            if self.devices[index].leads() || !self.devices[index].kind().many {
                return Err(BadSlots::Fixed { noun, id });
            }
            let taken = u8::try_from(self.plugged.len()).unwrap_or(u8::MAX);
            if taken >= slots {
                return Err(BadSlots::Full { noun, id, slots });
            }
            // Behind all others, whose order stays.
            self.devices[index..].rotate_left(1);
            self.plugged.push(taken + 1);
        }
        Ok(())
    }

    /// The profile with what the machine asks for beside it.
    pub(crate) fn effective_abi(&self) -> Cow<'_, GuestAbi> {
        match self.psci {
            Some(version) => {
                let psci = Firmware::Known(FwReg::PsciVersion);
                Cow::Owned(self.guest_abi.with(psci, version.register()))
            }
            None => Cow::Borrowed(&self.guest_abi),
        }
    }
}

/// Slots that a machine cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSlots {
    /// Its devices are elsewhere.
    #[error("slots are on PCI, and the machine's devices are on MMIO")]
    NoPci,
    /// Too many.
    #[error("{asked} slots are too many: a machine has at most {PCI_SLOTS}")]
    TooMany {
        /// How many are asked for.
        asked: u8,
    },
    /// Nothing to be put into one.
    #[error("there is no device `{id}` to be removable")]
    NoSuch {
        /// The name given.
        id: String,
    },
    /// What is there for good.
    #[error("the {noun} `{id}` cannot be removable")]
    Fixed {
        /// What it is.
        noun: &'static str,
        /// Its name.
        id: String,
    },
    /// Too few.
    #[error("there is no slot for the {noun} `{id}` to be removable: the machine has {slots}")]
    Full {
        /// What it is.
        noun: &'static str,
        /// Its name.
        id: String,
        /// How many slots there are.
        slots: u8,
    },
}

impl Fix for BadSlots {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::NoPci => "ask for PCI with `--transport pci`, or for no slots".to_owned(),
            Self::TooMany { .. } => format!("ask for up to {PCI_SLOTS}"),
            Self::NoSuch { .. } => "give the `id` of a disk or a network interface".to_owned(),
            Self::Fixed { .. } => {
                "name disks and network interfaces on which the guest's root is not".to_owned()
            }
            Self::Full { slots, .. } => format!(
                "ask for more slots: `--transport pci --pci-slots {}`",
                slots.saturating_add(1).min(PCI_SLOTS)
            ),
        })
    }
}

/// What a machine runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// The kernel: an arm64 Image, plain or compressed, EFI zboot or ELF.
    pub kernel: PathBuf,
    /// How to take the kernel's file.
    pub kernel_format: KernelFormat,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line, to the letter.
    pub cmdline: String,
}

impl Boot {
    /// Boots `kernel`, whatever it is, with nothing else.
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        let kernel_format = KernelFormat::Auto;
        Self { kernel: kernel.into(), kernel_format, initrd: None, cmdline: String::new() }
    }
}

/// Read-only memory: a store there is an external abort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RomSpec {
    /// The file with its bytes; zeros follow up to a multiple of 64 KiB.
    pub path: PathBuf,
    /// Its first address, a multiple of 64 KiB where the machine has nothing else.
    pub address: u64,
}

/// Where the serial port leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SerialSpec {
    /// To the writer in the machine's surroundings, and from `Machine::serial_input`:
    /// for `kedge`, its standard output and input.
    #[default]
    Stdio,
    /// To a file or FIFO; nothing comes back.
    File(PathBuf),
}

/// What a reset by the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReset {
    /// The machine ends, as after a power-off.
    Exit,
    /// The machine is built anew from its specification.
    Restart,
}

/// What a panic of the guest's kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnPanic {
    /// The machine ends.
    Exit,
    /// Nothing: the guest goes on as its command line says.
    Continue,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

fn feature_names<S: Serializer>(features: &VcpuFeatures, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(features.names())
}

fn devices_as_json<S: Serializer>(
    devices: &[Box<dyn DeviceConfig>],
    to: S,
) -> Result<S::Ok, S::Error> {
    let objects = devices.iter().map(|device| (device.kind().key, device.to_json()));
    to.collect_seq(objects.map(|object| BTreeMap::from([object])))
}
