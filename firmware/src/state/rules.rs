//! What is known about moving registers between kernels: rows, and the table of
//! firmware registers. All of it is data that a caller hands in, so that a release with
//! a smaller table can be tested.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use kedge_hv::VcpuFeatures;
use kedge_ids::RegId;

use super::RegisterState;
use crate::fields;
use crate::probe::{PMCR_EL0, cache, is_identification};
use crate::register::{Firmware, FwSpec};
use crate::table::TABLE;

const CLIDR_EL1: RegId = RegId::system(3, 1, 0, 0, 1);

/// What a plan goes by.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    /// The firmware registers that are known.
    pub table: &'a [FwSpec],
    /// What is known of other registers. All rows that name a register count.
    pub rows: &'a [RegRow],
    /// Registers that the operator allows to be otherwise than saved, by name. A
    /// mitigation that the destination lacks is never tolerated but by this.
    pub allow: BTreeSet<RegId>,
    /// What a plan has lines of.
    pub lines: Lines,
}

/// What a plan has lines of. It is made of every register in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lines {
    /// Everything: for who shows all of it.
    #[default]
    All,
    /// What is not kept. Nothing else is put into words, of which a plan is mostly made.
    Changed,
}

impl<'a> Rules<'a> {
    /// All firmware registers that this release knows, and these rows.
    pub fn new(rows: &'a [RegRow]) -> Self {
        Self { table: TABLE, rows, allow: BTreeSet::new(), lines: Lines::All }
    }

    /// The row of a firmware register, if it is known.
    pub fn spec(&self, id: RegId) -> Option<&'a FwSpec> {
        self.table.iter().find(|spec| spec.id == id)
    }

    /// The firmware register with this id; unknown ones of the banks, too.
    pub(super) fn firmware(&self, id: RegId) -> Option<Firmware> {
        let firmware = Firmware::of(id)?;
        Some(self.spec(id).map_or(Firmware::Unknown(id), |_| firmware))
    }

    pub(super) fn rows(&self, id: RegId) -> impl Iterator<Item = &'a RegRow> + use<'a> {
        self.rows.iter().filter(move |row| row.ids.contains(&id))
    }

    /// The rows of a register that hold for it in a saved vCPU.
    pub(super) fn holding(
        &self,
        id: RegId,
        state: &RegisterState,
        vcpu: usize,
    ) -> impl Iterator<Item = &'a RegRow> {
        self.rows(id).filter(move |row| row.when.holds(id, state, vcpu))
    }

    /// What a reader calls a register: its row's name, its name in the Arm manual, or
    /// its id.
    pub(super) fn name(&self, id: RegId) -> String {
        let named = self.rows(id).find_map(|row| row.name);
        named.map_or_else(|| name(id), str::to_owned)
    }
}

/// What a reader calls a register without any rows: its name, its encoding as
/// assemblers write it, or its id.
pub(crate) fn name(id: RegId) -> String {
    const SYSTEM: u64 = 0x13;
    if let Some(firmware) = Firmware::of(id) {
        return firmware.to_string();
    }
    let bits = |shift: u32, width: u32| id.0 >> shift & ((1 << width) - 1);
    match id.coprocessor() {
        _ if id == RegId::MPIDR_EL1 => "MPIDR_EL1".to_owned(),
        _ if id == PMCR_EL0 => "PMCR_EL0".to_owned(),
        _ if is_identification(id) => crate::probe::name(id),
        SYSTEM => format!(
            "S{}_{}_C{}_C{}_{}",
            bits(14, 2),
            bits(11, 3),
            bits(7, 4),
            bits(3, 4),
            bits(0, 3)
        ),
        _ => id.to_string(),
    }
}

/// Something that moving some registers between kernels has to know.
#[derive(Clone, Debug)]
pub struct RegRow {
    /// Which ones: ids from the first to the last.
    pub ids: RangeInclusive<RegId>,
    /// What they are called, where it is one name.
    pub name: Option<&'static str>,
    /// What there is to know.
    pub quirk: Quirk,
    /// When it holds.
    pub when: When,
    /// Why a guest cannot tell, or can live with it.
    pub why: &'static str,
    /// Which kernels make it necessary.
    pub source: &'static str,
}

/// How a register may differ between two kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// Only the source has it: its value is dropped.
    OnlySource,
    /// Only the destination has it: it stays as it is.
    OnlyDestination,
    /// These bits stay as the destination has them where it does not take the saved
    /// ones.
    KeepDestination(u64),
    /// The destination may take these bits and make others of them: they are computed,
    /// or a guest cannot read them.
    Normalised(u64),
    /// The same of all bits but those below a number, and `but`. The number is a field of
    /// five bits of another saved register: how many counters there are.
    NormalisedFrom {
        /// The register with the number.
        count: RegId,
        /// Where the number begins in it.
        shift: u32,
        /// Bits that are kept whatever the number is.
        but: u64,
    },
    /// This register and the other one hold one value. What is written to this one, a
    /// kernel assigns, or sets in the value; what is written to the other, it assigns, or
    /// clears in the value. So all ones go to the other, and then the value to this one;
    /// nothing else is written to the other.
    ClearedBy(RegId),
}

impl Quirk {
    /// Whether a destination may make other bits of a value.
    pub(super) const fn normalises(self) -> bool {
        matches!(self, Self::Normalised(_) | Self::NormalisedFrom { .. })
    }

    /// The bits that a destination may make others of, of a saved vCPU.
    pub(super) fn normalised(self, state: &RegisterState, vcpu: usize) -> u64 {
        match self {
            Self::Normalised(mask) => mask,
            Self::NormalisedFrom { count, shift, but } => {
                let count = state.of_vcpu(vcpu, count).map_or(0, number) >> shift & 0x1f;
                !(((1 << count) - 1) | but)
            }
            Self::OnlySource
            | Self::OnlyDestination
            | Self::KeepDestination(_)
            | Self::ClearedBy(_) => 0,
        }
    }
}

/// When a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// The vCPUs do not have any of these features.
    Without(VcpuFeatures),
    /// These bits of a saved register, of the same vCPU or of the machine, have this
    /// value; a register that was not saved reads zero.
    Saved {
        /// The register.
        id: RegId,
        /// The bits.
        mask: u64,
        /// Their value.
        value: u64,
    },
    /// The register is the size of a cache of which the saved `CLIDR_EL1` says that there
    /// is none.
    NoSuchCache,
}

impl When {
    /// Whether it holds for a register of a saved vCPU.
    pub(super) fn holds(self, id: RegId, state: &RegisterState, vcpu: usize) -> bool {
        match self {
            Self::Always => true,
            Self::NoSuchCache => {
                let clidr = state.of_vcpu(vcpu, CLIDR_EL1).map_or(0, number);
                cache(id).is_some_and(|cache| !fields::is_there(clidr, cache))
            }
            Self::Without(features) => state.features.0 & features.0 == 0,
            Self::Saved { id, mask, value } => {
                let saved = state.of_vcpu(vcpu, id).map_or(0, number);
                saved & mask == value
            }
        }
    }
}

/// Up to 64 bits as a number.
pub(super) fn number(value: &crate::hex::RegValue) -> u64 {
    value.number()
}
