//! A machine as it is saved, but for its registers' firmware crate, its devices, its
//! interrupt controller and its memory, which have their own. Frozen: a change is a new
//! version.

use std::path::PathBuf;

use kedge_firmware::{
    Birth, PendingSError, Power, RegisterState, SavedRegister, ServiceRecord, VcpuRegisters,
    born_profile, pack, unpack,
};
use kedge_hv::{GicVersion, VcpuFeatures};
use kedge_saved_state::{Bytes, FileError, Part, StateError, StateFile, Versioned};
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
    /// Where the guest finds its metadata service: the JSON object that a configuration
    /// file would have. Nothing where it has none, as in snapshots before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metadata: Option<String>,
    /// Whether its virtio devices are on PCI. Without them it is as it was before there was
    /// this field.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) pci: bool,
    /// The slots on PCI for devices that come while the guest runs.
    #[serde(default, skip_serializing_if = "is_none_of")]
    pub(crate) pci_slots: u8,
    /// The slots of the last devices, which came so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) plugged: Vec<u8>,
    /// Threads of the devices' own: the host's business, and as it was unless it is said
    /// otherwise.
    #[serde(default, skip_serializing_if = "is_none_of")]
    pub(crate) io_threads: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_none_of(count: &u8) -> bool {
    *count == 0
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

/// All registers of all vCPUs as they were saved at first, and are still read: a text for each id
/// and each value.
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

/// All registers of all vCPUs, packed ([`pack`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistersV2 {
    /// The features of all vCPUs, as [`RegisterState::features`] has them.
    features: VcpuFeatures,
    /// Whether the kernel that it was saved on offers precise time.
    ptp: bool,
    /// The profile that the guest was born with: its JSON document.
    profile: Bytes,
    /// The firmware registers that were listed at its birth.
    firmware: Bytes,
    /// What the whole machine holds, by id.
    machine: Bytes,
    /// Each vCPU, by index.
    vcpus: Vec<VcpuRegistersV2>,
}

impl Versioned for RegistersV2 {
    const KIND: &'static str = RegistersV1::KIND;
    const VERSION: u16 = 2;
}

/// What one vCPU holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VcpuRegistersV2 {
    /// Its registers in the order of its kernel's list.
    registers: Bytes,
    /// Whether it is on.
    power: Power,
    /// The SError that waits for the guest.
    serror: Option<PendingSError>,
}

impl RegistersV2 {
    /// Packs `state`.
    pub(crate) fn of(state: &RegisterState) -> Self {
        let RegisterState { features, ptp, birth, machine, vcpus } = state;
        let Birth { abi, firmware } = birth;
        let packed = |registers: &[SavedRegister]| Bytes(pack(registers));
        let vcpu = |VcpuRegisters { registers, power, serror }: &VcpuRegisters| VcpuRegistersV2 {
            registers: packed(registers),
            power: *power,
            serror: *serror,
        };
        Self {
            features: *features,
            ptp: *ptp,
            profile: Bytes(abi.to_json().into_bytes()),
            firmware: packed(firmware),
            machine: packed(machine),
            vcpus: vcpus.iter().map(vcpu).collect(),
        }
    }

    /// What was packed.
    ///
    /// # Errors
    /// Registers end too early, or the profile is none that this release can honour.
    fn unpack(self) -> Result<RegisterState, StateError> {
        let Self { features, ptp, profile, firmware, machine, vcpus } = self;
        let registers = |name: &str, Bytes(packed): Bytes| {
            unpack(&packed)
                .ok_or_else(|| StateError::field::<Self>(name, "ends in the middle of a register"))
        };
        let abi = born_profile(&profile.0);
        let abi = abi.map_err(|problem| {
            StateError::field::<Self>("profile", format!("cannot be read: {problem}"))
        })?;
        let birth = Birth { abi, firmware: registers("firmware", firmware)? };
        let machine = registers("machine", machine)?;
        let vcpu = |(index, vcpu): (usize, VcpuRegistersV2)| {
            let VcpuRegistersV2 { registers: packed, power, serror } = vcpu;
            let registers = registers(&format!("vcpus[{index}].registers"), packed)?;
            Ok(VcpuRegisters { registers, power, serror })
        };
        let vcpus = vcpus.into_iter().enumerate().map(vcpu).collect::<Result<_, _>>()?;
        Ok(RegisterState { features, ptp, birth, machine, vcpus })
    }
}

/// The registers in a state file of any release.
///
/// # Errors
/// They are missing or damaged.
pub(crate) fn registers(state: &StateFile) -> Result<RegisterState, FileError> {
    let missing = || FileError::Missing { kind: RegistersV2::KIND, instance: String::new() };
    Ok(registers_of(state.find(RegistersV2::KIND, "").ok_or_else(missing)?)?)
}

fn registers_of(part: &Part) -> Result<RegisterState, StateError> {
    match part.version {
        RegistersV1::VERSION => Ok(part.read::<RegistersV1>()?.state),
        _ => part.read::<RegistersV2>()?.unpack(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kedge_firmware::{ARM64_V1, RegValue, builtin};
    use kedge_ids::RegId;

    use super::*;

    fn state() -> RegisterState {
        let of = |id, value: u64| SavedRegister { id, value: RegValue::from(value) };
        let vcpu = |pc, power, serror| VcpuRegisters {
            registers: vec![of(RegId::PC, pc), of(RegId::PSTATE, 0x3c5)],
            power,
            serror,
        };
        let firmware = vec![of(RegId::PSCI_VERSION, 0x1_0001)];
        RegisterState {
            features: VcpuFeatures::PSCI_0_2,
            ptp: true,
            birth: Birth { abi: builtin(ARM64_V1).unwrap(), firmware: firmware.clone() },
            machine: firmware,
            vcpus: vec![
                vcpu(0x8000_0000, Power::Runnable, Some(PendingSError { esr: None })),
                vcpu(u64::MAX, Power::Stopped, None),
            ],
        }
    }

    #[test]
    fn registers_of_every_version_are_read() {
        let state = state();
        let old = Part::of(&RegistersV1 { state: state.clone() });
        assert_eq!(registers_of(&old).unwrap(), state);
        assert_eq!(registers_of(&Part::of(&RegistersV2::of(&state))).unwrap(), state);
    }

    #[test]
    fn registers_that_end_too_early_are_refused_by_name() {
        let mut cut = RegistersV2::of(&state());
        cut.vcpus[1].registers.0.pop();
        expect![
            "the saved `registers` is not plausible: `vcpus[1].registers` ends in the middle of a \
             register"
        ]
        .assert_eq(&registers_of(&Part::of(&cut)).unwrap_err().to_string());
    }

    #[test]
    fn a_profile_that_cannot_be_honoured_is_named() {
        let mut odd = RegistersV2::of(&state());
        let text = String::from_utf8(odd.profile.0).unwrap();
        odd.profile.0 = text.replace("\"std_bmap\": \"", "\"std_bmap\": \"x").into_bytes();
        let error = registers_of(&Part::of(&odd)).unwrap_err().to_string();
        assert!(error.contains("born with the profile `arm64-v1`"), "{error}");
    }
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
