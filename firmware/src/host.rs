//! What a host can give its guests, as it was found by trial: the document that
//! `kedge abi probe` writes.
//!
//! As JSON, every register value and mask is a text in hexadecimal (`"0x10001"`), and
//! every register is named by its id; a `name` beside it is for readers only.

use kedge_hv::{GicVersion, Limits, VcpuFeatures};
use kedge_ids::RegId;
use serde::{Deserialize, Serialize};

use crate::hex::{Hex, RegValue, id, ids};
use crate::pmu::PmuEventSet;
use crate::register::{Domain, Firmware, FwReg, Scope};

/// What a host can give its guests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAbi {
    /// The version of this document's format: [`HostAbi::FORMAT`].
    pub format: u32,
    /// Sizes, features and devices.
    pub limits: HostLimits,
    /// What it can do that not every host can.
    pub abilities: HostAbilities,
    /// Every firmware register that a vCPU lists, known or not, by id.
    pub firmware: Vec<FoundFirmware>,
    /// Identification: of a vCPU without optional features, then of one with each of
    /// them alone.
    pub cpus: Vec<FoundCpu>,
}

impl HostAbi {
    /// The format that this release writes.
    pub const FORMAT: u32 = 3;

    /// What was found of a firmware register; nothing where the host does not list it.
    pub fn firmware(&self, reg: FwReg) -> Option<&FoundFirmware> {
        self.firmware.iter().find(|found| found.id == reg.spec().id)
    }

    /// What was found of an interrupt controller; nothing where there is none.
    pub fn gic(&self, version: GicVersion) -> Option<&FoundGic> {
        self.limits.gics.iter().find(|gic| gic.version == version)
    }

    /// Identification of a vCPU with these features, by name: what the vCPUs with each
    /// of them alone have otherwise than the plain one, put together.
    pub fn cpu_with(&self, features: &[String]) -> FoundCpu {
        let Some((plain, others)) = self.cpus.split_first() else {
            return FoundCpu::default();
        };
        let mut cpu = FoundCpu { features: features.to_vec(), ..plain.clone() };
        let has = |other: &&FoundCpu| other.features.iter().all(|name| features.contains(name));
        for other in others.iter().filter(has) {
            cpu.take_over(plain, other);
        }
        cpu
    }
}

/// Sizes, features and devices that a machine can have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLimits {
    /// Bits of a guest physical address, at most.
    pub ipa_bits: u8,
    /// vCPUs, at most, before the interrupt controller's own limit.
    pub vcpus: u32,
    /// Names of the vCPU features that can be asked for.
    pub features: Vec<String>,
    /// Interrupt controllers.
    pub gics: Vec<FoundGic>,
    /// Whether a GICv3 can have a translation service.
    pub its: bool,
    /// Whether a guest can be given PSCI SYSTEM_SUSPEND.
    pub system_suspend: bool,
    /// SVE vector lengths in bits, ascending; none without SVE.
    pub sve_lengths: Vec<u32>,
    /// The events that performance monitors count, as guests are told; nothing without
    /// the feature `pmu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmu_events: Option<PmuEventSet>,
    /// Ticks of the counter in a second, which guests read in `CNTFRQ_EL0` and no
    /// hypervisor can change; 0 where it is not known.
    pub counter_hz: u32,
    /// Bytes of a page of the host's memory.
    pub page_size: u64,
}

/// An interrupt controller that a machine can have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundGic {
    /// Which.
    pub version: GicVersion,
    /// The revision in `GICD_IIDR`, bits 15:12, of a machine that nobody has written to.
    pub revision: u32,
    /// The revisions that it stored, ascending.
    pub revisions: Vec<u32>,
    /// `GICD_TYPER2` of a machine that nobody has written to; nothing of a GICv2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typer2: Option<Hex>,
}

/// What a host can do that not every host can, and that no register shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAbilities {
    /// Calls of the firmware can be denied or answered by kedge (Linux 6.4).
    pub smccc_filter: bool,
    /// The physical counter can stand still while a machine does not run (Linux 6.4).
    pub counter_offset: bool,
    /// Guests can be told of stolen time.
    pub pv_time: bool,
    /// `MIDR_EL1`, `REVIDR_EL1` and `AIDR_EL1` can be chosen (Linux 6.15).
    pub writable_imp_ids: bool,
    /// Guests can ask KVM for precise time (Linux 5.13).
    pub ptp: bool,
}

impl HostLimits {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            ipa_bits: limits.ipa_bits,
            vcpus: limits.vcpus,
            features: names(limits.features),
            ..Self::default()
        }
    }
}

pub(crate) fn names(features: VcpuFeatures) -> Vec<String> {
    features.names().map(str::to_owned).collect()
}

/// What was found of a firmware register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundFirmware {
    /// Its id.
    #[serde(with = "id")]
    pub id: RegId,
    /// Its name, where the table has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The value of a machine that nobody has written to.
    pub default: RegValue,
    /// Whose value it is.
    pub scope: FoundScope,
    /// What it takes.
    pub takes: Takes,
}

impl FoundFirmware {
    /// Which register this is.
    pub fn firmware(&self) -> Firmware {
        Firmware::of(self.id).unwrap_or(Firmware::Unknown(self.id))
    }

    /// Where the host and the table disagree, as phrases for a reader; the host is
    /// right.
    pub fn surprises(&self) -> Vec<String> {
        let Some(spec) = self.firmware().spec() else {
            return vec!["not in the table".to_owned()];
        };
        let mut surprises = Vec::new();
        let expected = match spec.scope {
            Scope::WholeVm => FoundScope::WholeVm,
            Scope::Host => FoundScope::Unchanging,
        };
        if self.scope != expected {
            surprises.push(format!("{}, not {}", self.scope.words(), expected.words()));
        }
        let default = self.default.as_u64().unwrap_or(0);
        if spec.reg.check(default).is_err() {
            surprises.push(format!("the default {default:#x} is not in the table"));
        }
        if let (Takes::Bits { bits, .. }, Domain::Bits(_)) = (&self.takes, spec.domain)
            && bits.0 & !spec.domain.mask() != 0
        {
            let unnamed = bits.0 & !spec.domain.mask();
            surprises.push(format!("the bits {unnamed:#x} are not in the table"));
        }
        surprises
    }
}

/// Whose value a register holds, as writing through one vCPU and reading through
/// another showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FoundScope {
    /// The machine's: the other vCPU read what was written.
    WholeVm,
    /// Each vCPU's own: the other vCPU read what it had read before.
    Vcpu,
    /// Nothing that was written changed it.
    Unchanging,
}

impl FoundScope {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::WholeVm => "whole VM",
            Self::Vcpu => "per vCPU",
            Self::Unchanging => "unchanging",
        }
    }
}

/// What a register takes before the first run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Takes {
    /// Of the values tried, those that it stored.
    Values(Vec<Hex>),
    /// Of the levels tried, those that it accepted, and stored nowhere.
    Levels(Vec<Hex>),
    /// A set of bits.
    Bits {
        /// Those that, each alone, it stored.
        bits: Hex,
        /// Whether it stored the empty set.
        empty: bool,
    },
    /// Nothing was tried: it has not 64 bits.
    Untried,
}

impl Takes {
    /// In words, those of `firmware`.
    pub fn words(&self, firmware: Firmware) -> String {
        let words = |values: &[Hex]| {
            let words: Vec<_> = values.iter().map(|value| firmware.format(value.0)).collect();
            if words.is_empty() { "none".to_owned() } else { words.join(", ") }
        };
        match self {
            Self::Values(values) => words(values),
            Self::Levels(levels) => format!("{}; stores nothing", words(levels)),
            Self::Bits { bits: Hex(0), .. } => "no bit".to_owned(),
            Self::Bits { bits, empty: true } => format!("any of {}", firmware.format(bits.0)),
            Self::Bits { bits, empty: false } => {
                format!("one or more of {}", firmware.format(bits.0))
            }
            Self::Untried => "not tried".to_owned(),
        }
    }
}

/// A vCPU of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundCpu {
    /// The names of its features.
    pub features: Vec<String>,
    /// The ids of all its registers, ascending.
    #[serde(with = "ids")]
    pub registers: Vec<RegId>,
    /// Its ID registers, by id.
    pub id_registers: Vec<FoundIdReg>,
}

impl FoundCpu {
    /// What was found of an ID register; nothing where the vCPU does not list it.
    pub fn id_register(&self, id: RegId) -> Option<&FoundIdReg> {
        self.id_registers.iter().find(|found| found.id == id)
    }

    /// Makes its own what `other` has otherwise than `plain`.
    fn take_over(&mut self, plain: &Self, other: &Self) {
        let more = other.registers.iter().filter(|id| !plain.registers.contains(id));
        self.registers.extend(more);
        self.registers.retain(|id| other.registers.contains(id) || !plain.registers.contains(id));
        self.registers.sort_unstable();
        self.registers.dedup();
        for theirs in &other.id_registers {
            let ours = self.id_registers.iter_mut().find(|found| found.id == theirs.id);
            match (ours, plain.id_register(theirs.id)) {
                (Some(ours), Some(born)) => ours.take_over(born, theirs),
                (None, _) => self.id_registers.push(theirs.clone()),
                (Some(_), None) => {}
            }
        }
        self.id_registers.sort_by_key(|found| found.id);
    }
}

/// What was found of an ID register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundIdReg {
    /// Its id.
    #[serde(with = "id")]
    pub id: RegId,
    /// Its name in the Arm manual, or its encoding.
    pub name: String,
    /// The value of a machine that nobody has written to.
    pub value: Hex,
    /// Whose value it is.
    pub scope: FoundScope,
    /// What a guest reads as long as nobody has written to it, where that is not `value`:
    /// the kernel leaves the register to the processor, and tells its user what it has
    /// worked out itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Hex>,
    /// Its fields that take another value than their own, by position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FoundField>,
}

impl FoundIdReg {
    /// The lowest bits of its sixteen fields.
    pub(crate) fn shifts() -> impl Iterator<Item = u32> {
        (0..u64::BITS).step_by(4)
    }

    /// What the field at `shift` takes: bit v for the value v.
    pub fn takes(&self, shift: u32) -> u64 {
        let field = self.fields.iter().find(|field| field.shift == shift);
        field.map_or(1 << (self.value.0 >> shift & 0xf), |field| field.takes.0)
    }

    /// What a guest reads as long as nobody has written to it.
    pub fn shown(&self) -> u64 {
        self.guest.unwrap_or(self.value).0
    }

    /// What a guest can be made to read in the field at `shift`: bit v for the value v.
    pub fn shows(&self, shift: u32) -> u64 {
        let bit = |value: u64| 1 << (value >> shift & 0xf);
        let (told, shown) = (bit(self.value.0), bit(self.shown()));
        // To be told is to be shown something else, where the two differ.
        if told == shown { self.takes(shift) | shown } else { self.takes(shift) & !told | shown }
    }

    /// Makes its own the fields that `other` has otherwise than `plain`.
    fn take_over(&mut self, plain: &Self, other: &Self) {
        for shift in Self::shifts() {
            let field = |of: &Self| of.fields.iter().find(|field| field.shift == shift).copied();
            if (plain.value.0 ^ other.value.0) >> shift & 0xf == 0 && field(plain) == field(other) {
                continue;
            }
            self.value.0 = self.value.0 & !(0xf << shift) | other.value.0 & 0xf << shift;
            self.fields.retain(|field| field.shift != shift);
            self.fields.extend(field(other));
        }
        self.fields.sort_by_key(|field| field.shift);
    }
}

/// Four bits of an ID register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundField {
    /// The lowest of them.
    pub shift: u32,
    /// Bit v: it stores the value v, all other fields being as they are.
    pub takes: Hex,
    /// Bit v: it accepts the value v and drops it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub drops: Hex,
}

fn is_zero(hex: &Hex) -> bool {
    hex.0 == 0
}
