//! Fields that may read differently from host to host, with the reason why a guest can
//! live with it; and fields that a vCPU has by a feature.

use kedge_ids::RegId;

use crate::probe::PMCR_EL0;

const fn id(crm: u64, op2: u64) -> RegId {
    RegId::system(3, 0, 0, crm, op2)
}

pub(super) const ID_AA64PFR0_EL1: RegId = id(4, 0);
const ID_AA64PFR1_EL1: RegId = id(4, 1);
const ID_AA64PFR2_EL1: RegId = id(4, 2);
const ID_AA64ZFR0_EL1: RegId = id(4, 4);
const ID_AA64DFR0_EL1: RegId = id(5, 0);
const ID_AA64ISAR1_EL1: RegId = id(6, 1);
const ID_AA64ISAR2_EL1: RegId = id(6, 2);
const ID_AA64MMFR0_EL1: RegId = id(7, 0);
const ID_AA64MMFR1_EL1: RegId = id(7, 1);
const ID_AA64MMFR2_EL1: RegId = id(7, 2);
const ID_AA64MMFR3_EL1: RegId = id(7, 3);
const ID_AA64MMFR4_EL1: RegId = id(7, 4);
const ID_PFR1_EL1: RegId = id(1, 1);
const ID_DFR0_EL1: RegId = id(1, 2);

/// When a field may vary.
#[derive(Clone, Copy, Debug)]
enum When {
    /// Whatever it reads.
    Always,
    /// Where all hosts' values are among these.
    Among(u64, u64),
    /// Where vCPUs do not have this feature.
    Without(&'static str),
}

const NO_MONITORS: &str = "the vCPU has no performance monitors on any host; an old kernel shows \
                           its own CPU's all the same, and can neither set nor hide that";
const FOLLOWS_GIC: &str = "it tells of the interrupt controller, which the machine's device tree \
                           describes and the host emulates";
const NO_EL2: &str = "it tells of what EL2 can do, and a guest has no EL2";
const NO_PARTITIONS: &str = "partitions of caches are the host's: KVM gives them to no guest, \
                             whatever the field reads";

#[rustfmt::skip]
const VARYING: &[(RegId, &str, When, &str)] = &[
    (ID_AA64DFR0_EL1, "DebugVer", When::Among(6, 9),
        "versions 6 to 9 differ in debugging from outside, which no guest has; what a guest \
         debugs itself with is the same, and told by fields of its own"),
    (ID_AA64DFR0_EL1, "PMUVer", When::Without("pmu"), NO_MONITORS),
    (ID_DFR0_EL1, "PerfMon", When::Without("pmu"), NO_MONITORS),
    (ID_AA64DFR0_EL1, "PMSVer", When::Always,
        "profiling by samples is the host's: KVM gives it to no guest, whatever the field reads"),
    (ID_AA64PFR0_EL1, "GIC", When::Always, FOLLOWS_GIC),
    (ID_AA64PFR2_EL1, "GCIE", When::Always, FOLLOWS_GIC),
    (ID_PFR1_EL1, "GIC", When::Always, FOLLOWS_GIC),
    (ID_AA64PFR0_EL1, "MPAM", When::Always, NO_PARTITIONS),
    (ID_AA64PFR1_EL1, "MPAM_frac", When::Always, NO_PARTITIONS),
    (ID_AA64MMFR0_EL1, "TGran16_2", When::Always, NO_EL2),
    (ID_AA64MMFR0_EL1, "TGran64_2", When::Always, NO_EL2),
    (ID_AA64MMFR0_EL1, "TGran4_2", When::Always, NO_EL2),
    (ID_AA64MMFR0_EL1, "FGT", When::Always, NO_EL2),
    (ID_AA64MMFR1_EL1, "VMIDBits", When::Always, NO_EL2),
    (ID_AA64MMFR1_EL1, "VH", When::Always, NO_EL2),
    (ID_AA64MMFR1_EL1, "XNX", When::Always, NO_EL2),
    (ID_AA64MMFR1_EL1, "HCX", When::Always, NO_EL2),
    (ID_AA64MMFR2_EL1, "NV", When::Always, NO_EL2),
    (ID_AA64MMFR2_EL1, "FWB", When::Always, NO_EL2),
    (ID_AA64MMFR2_EL1, "EVT", When::Always, NO_EL2),
    (ID_AA64MMFR3_EL1, "S2PIE", When::Always, NO_EL2),
    (ID_AA64MMFR3_EL1, "S2POE", When::Always, NO_EL2),
    (ID_AA64MMFR4_EL1, "NV_frac", When::Always, NO_EL2),
    (ID_AA64MMFR4_EL1, "E2H0", When::Always, NO_EL2),
];

/// The reason for letting a field vary, if there is one: of vCPUs with `features`, where
/// the hosts read `values`.
pub(super) fn reason(
    (register, field): (RegId, &str),
    features: &[String],
    values: &[u64],
) -> Option<&'static str> {
    let may = |when: When| match when {
        When::Always => true,
        When::Among(first, last) => values.iter().all(|value| (first..=last).contains(value)),
        When::Without(feature) => features.iter().all(|name| name != feature),
    };
    let mut rows = VARYING.iter().filter(|row| (row.0, row.1) == (register, field));
    rows.find(|row| may(row.2)).map(|row| row.3)
}

/// Of vCPUs with performance monitors: who made these, in `PMCR_EL0`. A kernel that shows
/// it shows it again whenever a vCPU is turned on, and no probe tells whether one does.
pub(super) const MONITORS_MAKER: (RegId, &str, u64, &str) = (
    PMCR_EL0,
    "PMCR_EL0",
    0xffff_0000,
    "IMP, IDCODE: Linux 6.1 and older show who made the CPU, 6.12 and later nobody; MIDR_EL1 tells \
     the guest on every host",
);

/// Why the size of a cache may vary.
pub(super) const CACHE_SIZE: &str = "it describes a cache to people; a guest looks after its caches by \
                                     CTR_EL0, and what it does to them by set and way KVM does to all \
                                     of its memory";

/// Why a register of AArch32 may vary where no CPU can run it.
pub(super) const NO_AARCH32: &str = "no CPU has AArch32, and without it the register means nothing";

/// Whether a register describes AArch32: CRm 1 to 3.
pub(super) fn is_aarch32(register: RegId) -> bool {
    (id(1, 0)..=id(3, 7)).contains(&register)
}

/// Whether a register of this encoding reads as zero where a host does not have it.
pub(super) fn reads_as_zero(register: RegId) -> bool {
    (id(1, 0)..=id(7, 7)).contains(&register)
}

#[rustfmt::skip]
const BY_FEATURE: &[(&str, RegId, &[&str])] = &[
    ("pmu",     ID_AA64DFR0_EL1,  &["PMUVer"]),
    ("pmu",     ID_DFR0_EL1,      &["PerfMon"]),
    ("sve",     ID_AA64PFR0_EL1,  &["SVE"]),
    ("sve",     ID_AA64ZFR0_EL1,  &[]),
    ("ptrauth", ID_AA64ISAR1_EL1, &["APA", "API", "GPA", "GPI"]),
    ("ptrauth", ID_AA64ISAR2_EL1, &["APA3", "GPA3", "PAC_frac"]),
];

/// The feature without which a field tells of nothing.
pub(super) fn feature(register: RegId, field: &str) -> Option<&'static str> {
    let mut rows = BY_FEATURE.iter().filter(|row| row.1 == register);
    rows.find(|row| row.2.is_empty() || row.2.contains(&field)).map(|row| row.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields;

    #[test]
    fn every_field_here_is_one_of_its_register() {
        let varying = VARYING.iter().map(|row| (row.0, row.1));
        let by_feature =
            BY_FEATURE.iter().flat_map(|row| row.2.iter().map(move |field| (row.1, *field)));
        for (register, name) in varying.chain(by_feature) {
            assert!(fields::of(register).iter().any(|field| field.name == name), "{name}");
        }
    }

    #[test]
    fn monitors_vary_only_where_a_guest_has_none() {
        let field = (ID_AA64DFR0_EL1, "PMUVer");
        assert!(reason(field, &[], &[0, 4]).is_some());
        assert!(reason(field, &["pmu".to_owned()], &[4, 5]).is_none());
    }

    #[test]
    fn a_debug_version_that_a_guest_could_use_does_not_vary() {
        let field = (ID_AA64DFR0_EL1, "DebugVer");
        assert!(reason(field, &[], &[6, 8]).is_some());
        assert!(reason(field, &[], &[6, 0xb]).is_none());
    }
}
