//! A machine as it is saved, but for its registers' firmware crate, its devices, its
//! interrupt controller and its memory, which have their own. Frozen: a change is a new
//! version.

use std::path::PathBuf;

use kedge_firmware::{RegisterState, ServiceRecord};
use kedge_hv::GicVersion;
use kedge_saved_state::Versioned;
use serde::{Deserialize, Serialize};

/// What the machine is made of: its specification, but for what its guest was born with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MachineV1 {
    /// vCPUs.
    pub(crate) cpus: u32,
    /// RAM in bytes.
    pub(crate) memory: u64,
    /// Features of the vCPUs, by name.
    pub(crate) cpu_features: Vec<String>,
    /// What it booted from, and boots from again where a reset restarts it.
    pub(crate) boot: BootV1,
    /// Its read-only memory.
    pub(crate) rom: Vec<RomV1>,
    /// Where the serial port's output goes: a file's path, or the process's output where
    /// there is none.
    pub(crate) serial: Option<PathBuf>,
    /// Its virtio devices, in the order in which the guest finds them.
    pub(crate) devices: Vec<DeviceV1>,
    /// Whether a reset by the guest restarts the machine.
    pub(crate) restarts: bool,
    /// Whether a panic of the guest's kernel ends the machine.
    pub(crate) ends_on_panic: bool,
}

impl Versioned for MachineV1 {
    const KIND: &'static str = "machine";
    const VERSION: u16 = 1;
}

/// What boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BootV1 {
    /// The kernel.
    pub(crate) kernel: PathBuf,
    /// Whether the kernel is code without a header.
    pub(crate) flat: bool,
    /// The initial RAM disk.
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub(crate) cmdline: String,
}

/// Read-only memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RomV1 {
    /// The file with its bytes, which it is loaded from anew.
    pub(crate) path: PathBuf,
    /// Its first address.
    pub(crate) address: u64,
    /// The CRC-32 (IEEE 802.3) of all of it: the guest has read it.
    pub(crate) checksum: u32,
}

/// A virtio device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceV1 {
    /// The key of its kind: "drives".
    pub(crate) kind: String,
    /// Its name.
    pub(crate) id: String,
    /// Its configuration: the JSON object that a configuration file would have.
    pub(crate) configuration: String,
}

/// What the guest was born with besides registers; the rest is with the registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BornV1 {
    /// The interrupt controller.
    pub(crate) gic: Option<GicVersion>,
    /// The revision in `GICD_IIDR`.
    pub(crate) gicd_revision: Option<u32>,
    /// Whether PSCI offers SYSTEM_SUSPEND.
    pub(crate) system_suspend: bool,
    /// Whether there is memory for stolen time.
    pub(crate) pv_time: bool,
    /// The services of the program around it, which answer its firmware calls.
    pub(crate) services: Vec<ServiceRecord>,
}

impl Versioned for BornV1 {
    const KIND: &'static str = "born";
    const VERSION: u16 = 1;
}

/// All registers of all vCPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistersV1 {
    /// As the firmware crate has them.
    pub(crate) state: RegisterState,
}

impl Versioned for RegistersV1 {
    const KIND: &'static str = "registers";
    const VERSION: u16 = 1;
}

/// The guest's time when it was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClockV1 {
    /// What the virtual counter read, in ticks.
    pub(crate) virtual_counter: u64,
    /// What the physical counter read; none where it was the host's, out of reach.
    pub(crate) physical_counter: Option<u64>,
    /// Whether both are one distance from the host's counter.
    pub(crate) together: bool,
    /// Ticks in a second; 0 where the host does not say.
    pub(crate) counter_hz: u32,
    /// The host's time then, in nanoseconds since 1970.
    pub(crate) host_time: u64,
}

impl Versioned for ClockV1 {
    const KIND: &'static str = "clock";
    const VERSION: u16 = 1;
}

/// Where the guest found things: another release must have them there, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LayoutV1 {
    /// Everything with an address, the interrupt controller's frames first.
    pub(crate) places: Vec<PlaceV1>,
}

impl Versioned for LayoutV1 {
    const KIND: &'static str = "layout";
    const VERSION: u16 = 1;
}

/// Where the guest found something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaceV1 {
    /// What it is: "serial", "virtio 0".
    pub(crate) name: String,
    /// Its first address.
    pub(crate) address: u64,
    /// Its interrupt, by INTID.
    pub(crate) interrupt: Option<u32>,
}
