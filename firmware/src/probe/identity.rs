//! ID registers: which there are, what they are called, what their fields take.

use kedge_ids::RegId;

use super::scratch::{Bench, Trial};
use super::{ProbeError, Seen, scope_of};
use crate::hex::Hex;
use crate::host::{FoundField, FoundIdReg};

const fn id(crm: u64, op2: u64) -> RegId {
    RegId::system(3, 0, 0, crm, op2)
}

/// The names in the Arm ARM (DDI 0487, D24.2), by encoding.
#[rustfmt::skip]
const NAMES: &[(RegId, &str)] = &[
    (id(0, 0), "MIDR_EL1"),
    (id(0, 6), "REVIDR_EL1"),
    (id(1, 0), "ID_PFR0_EL1"),
    (id(1, 1), "ID_PFR1_EL1"),
    (id(1, 2), "ID_DFR0_EL1"),
    (id(1, 3), "ID_AFR0_EL1"),
    (id(1, 4), "ID_MMFR0_EL1"),
    (id(1, 5), "ID_MMFR1_EL1"),
    (id(1, 6), "ID_MMFR2_EL1"),
    (id(1, 7), "ID_MMFR3_EL1"),
    (id(2, 0), "ID_ISAR0_EL1"),
    (id(2, 1), "ID_ISAR1_EL1"),
    (id(2, 2), "ID_ISAR2_EL1"),
    (id(2, 3), "ID_ISAR3_EL1"),
    (id(2, 4), "ID_ISAR4_EL1"),
    (id(2, 5), "ID_ISAR5_EL1"),
    (id(2, 6), "ID_MMFR4_EL1"),
    (id(2, 7), "ID_ISAR6_EL1"),
    (id(3, 0), "MVFR0_EL1"),
    (id(3, 1), "MVFR1_EL1"),
    (id(3, 2), "MVFR2_EL1"),
    (id(3, 4), "ID_PFR2_EL1"),
    (id(3, 5), "ID_DFR1_EL1"),
    (id(3, 6), "ID_MMFR5_EL1"),
    (id(4, 0), "ID_AA64PFR0_EL1"),
    (id(4, 1), "ID_AA64PFR1_EL1"),
    (id(4, 2), "ID_AA64PFR2_EL1"),
    (id(4, 4), "ID_AA64ZFR0_EL1"),
    (id(4, 5), "ID_AA64SMFR0_EL1"),
    (id(4, 7), "ID_AA64FPFR0_EL1"),
    (id(5, 0), "ID_AA64DFR0_EL1"),
    (id(5, 1), "ID_AA64DFR1_EL1"),
    (id(5, 2), "ID_AA64DFR2_EL1"),
    (id(5, 4), "ID_AA64AFR0_EL1"),
    (id(5, 5), "ID_AA64AFR1_EL1"),
    (id(6, 0), "ID_AA64ISAR0_EL1"),
    (id(6, 1), "ID_AA64ISAR1_EL1"),
    (id(6, 2), "ID_AA64ISAR2_EL1"),
    (id(6, 3), "ID_AA64ISAR3_EL1"),
    (id(7, 0), "ID_AA64MMFR0_EL1"),
    (id(7, 1), "ID_AA64MMFR1_EL1"),
    (id(7, 2), "ID_AA64MMFR2_EL1"),
    (id(7, 3), "ID_AA64MMFR3_EL1"),
    (id(7, 4), "ID_AA64MMFR4_EL1"),
    (CLIDR_EL1, "CLIDR_EL1"),
    (AIDR_EL1,  "AIDR_EL1"),
    (CTR_EL0,   "CTR_EL0"),
];

const CLIDR_EL1: RegId = RegId::system(3, 1, 0, 0, 1);
const AIDR_EL1: RegId = RegId::system(3, 1, 0, 0, 7);
pub(crate) const CTR_EL0: RegId = RegId::system(3, 3, 0, 0, 1);
/// The performance monitors' control register: in its upper half, who made them.
pub(crate) const PMCR_EL0: RegId = RegId::system(3, 3, 9, 12, 0);

/// Whether a register tells a guest what its CPU is: op0 3, op1 0, CRn 0, CRm 1 to 7,
/// a few beside them, and the sizes of its caches. `MPIDR_EL1` tells which one.
pub(crate) fn is_identification(register: RegId) -> bool {
    (id(1, 0)..=id(7, 7)).contains(&register)
        || cache(register).is_some()
        || known(register).is_some()
}

/// The cache whose size a register is, as `CSSELR_EL1` selects it: `CCSIDR_EL1` is one
/// register for each (KVM's demultiplexed registers, api.rst 4.68).
pub(crate) fn cache(register: RegId) -> Option<u64> {
    const FIRST: RegId = RegId(0x6020_0000_0011_0000);
    const LAST: RegId = RegId(0x6020_0000_0011_00ff);
    (FIRST..=LAST).contains(&register).then_some(register.0 & 0xff)
}

/// The name, or the encoding as assemblers write it.
pub(crate) fn name(register: RegId) -> String {
    if let Some(cache) = cache(register) {
        return format!("CCSIDR_EL1 of cache {cache}");
    }
    let by_encoding = || format!("S3_0_C0_C{}_{}", register.0 >> 3 & 0xf, register.0 & 7);
    known(register).map_or_else(by_encoding, str::to_owned)
}

/// Its name in the manual, if it has one.
pub(crate) fn known(register: RegId) -> Option<&'static str> {
    let row = NAMES.binary_search_by_key(&register, |(named, _)| *named).ok()?;
    NAMES.get(row).map(|(_, name)| *name)
}

/// Whether a register tells which implementation of the architecture a CPU is.
pub(crate) fn is_implementation(register: RegId) -> bool {
    [id(0, 0), id(0, 6), AIDR_EL1].contains(&register)
}

/// The register of this name.
pub(crate) fn register(name: &str) -> Option<RegId> {
    NAMES.iter().find(|row| row.1 == name).map(|row| row.0)
}

/// Whether this is the name of another register than `register`. What has none in the
/// manual is called by its encoding, and no name in the manual begins so.
pub(crate) fn is_name_of_another(name: &str, register: RegId) -> bool {
    if name.starts_with("S3_") {
        return false;
    }
    let row = NAMES.binary_search_by_key(&register, |(named, _)| *named).ok();
    let own = row.and_then(|row| NAMES.get(row)).is_some_and(|own| own.1 == name);
    !own && NAMES.iter().any(|row| row.1 == name)
}

/// What a register is and what its fields take.
pub(super) fn found(
    bench: &mut Bench<'_>,
    id: RegId,
    seen: &Seen,
) -> Result<FoundIdReg, ProbeError> {
    let value = bench.number(id)?;
    let trials = bench.trials(id, others(id, value))?;
    let of_field = |shift: u32| {
        let field = trials.iter().filter(move |trial| (trial.value ^ value) >> shift & 0xf != 0);
        summary(shift, value, field)
    };
    let fields = (0..u64::BITS).step_by(4).filter_map(of_field).collect();
    let scope = scope_of(&trials);
    let guest = seen.otherwise(id, value);
    Ok(FoundIdReg { id, name: name(id), value: Hex(value), scope, guest, fields })
}

/// All values of `id` that differ from `born` in one field of four bits.
fn others(id: RegId, born: u64) -> impl Iterator<Item = u64> {
    let bits = if cache(id).is_some() { u32::BITS } else { u64::BITS };
    let shifts = (0..bits).step_by(4);
    shifts.flat_map(move |shift| (1..16).map(move |change| born ^ change << shift))
}

/// What a field takes, unless it is its own value only.
fn summary<'a>(
    shift: u32,
    born: u64,
    trials: impl Iterator<Item = &'a Trial>,
) -> Option<FoundField> {
    let bit = |value: u64| 1_u64 << (value >> shift & 0xf);
    let (mut takes, mut drops) = (0, 0);
    for trial in trials {
        takes |= if trial.stored { bit(trial.value) } else { 0 };
        drops |= if trial.accepted && !trial.changed { bit(trial.value) } else { 0 };
    }
    let moves = takes | drops != 0;
    moves.then_some(FoundField { shift, takes: Hex(takes | bit(born)), drops: Hex(drops) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_stand_by_encoding() {
        assert!(NAMES.is_sorted_by_key(|(id, _)| *id));
    }

    #[test]
    fn a_register_without_a_name_is_called_by_its_encoding() {
        assert_eq!(name(id(4, 0)), "ID_AA64PFR0_EL1");
        assert_eq!(name(id(7, 7)), "S3_0_C0_C7_7");
        assert_eq!(name(RegId(0x6020_0000_0011_0002)), "CCSIDR_EL1 of cache 2");
    }

    #[test]
    fn which_cpu_it_is_is_no_identification() {
        assert!(is_identification(CTR_EL0));
        assert!(is_identification(id(1, 0)) && is_identification(id(7, 7)));
        assert!(!is_identification(RegId::MPIDR_EL1));
        assert!(!is_identification(RegId::PSCI_VERSION));
    }
}
