//! What moving an arm64 guest between kernels has to know of its system registers: a
//! row each. [`kedge_firmware::plan`] makes a plan of them.
//!
//! A row is a promise that a guest cannot tell, or can live with the difference; it
//! says why. What no row allows is refused. Field positions are those of the Arm ARM
//! (DDI 0487); which kernel does what was read in Linux' `arch/arm64/kvm` and compared
//! with running kernels.

use std::ops::RangeInclusive;

use kedge_firmware::{Quirk, RegRow, When};
use kedge_hv::VcpuFeatures;
use kedge_ids::RegId;

const ID_DFR0_EL1: RegId = RegId::system(3, 0, 0, 1, 2);
const ID_MMFR4_EL1: RegId = RegId::system(3, 0, 0, 2, 6);
const ID_AA64PFR0_EL1: RegId = RegId::system(3, 0, 0, 4, 0);
const ID_AA64PFR1_EL1: RegId = RegId::system(3, 0, 0, 4, 1);
const ID_AA64PFR2_EL1: RegId = RegId::system(3, 0, 0, 4, 2);
const ID_AA64DFR0_EL1: RegId = RegId::system(3, 0, 0, 5, 0);
const ID_AA64MMFR1_EL1: RegId = RegId::system(3, 0, 0, 7, 1);
const ID_AA64MMFR2_EL1: RegId = RegId::system(3, 0, 0, 7, 2);
const ID_AA64MMFR3_EL1: RegId = RegId::system(3, 0, 0, 7, 3);
const CLIDR_EL1: RegId = RegId::system(3, 1, 0, 0, 1);
const OSLSR_EL1: RegId = RegId::system(2, 0, 1, 1, 4);
const SCTLR2_EL1: RegId = RegId::system(3, 0, 1, 0, 3);
const TCR2_EL1: RegId = RegId::system(3, 0, 2, 0, 3);
const PIRE0_EL1: RegId = RegId::system(3, 0, 10, 2, 2);
const PIR_EL1: RegId = RegId::system(3, 0, 10, 2, 3);
const POR_EL1: RegId = RegId::system(3, 0, 10, 2, 4);
const POR_EL0: RegId = RegId::system(3, 3, 10, 2, 4);
const FPMR: RegId = RegId::system(3, 3, 4, 4, 2);
const CNTPCT_EL0: RegId = RegId::system(3, 3, 14, 0, 1);
const CNTP_CTL_EL0: RegId = RegId::system(3, 3, 14, 2, 1);
const CNTP_CVAL_EL0: RegId = RegId::system(3, 3, 14, 2, 2);
const CNTV_CTL_EL0: RegId = RegId::system(3, 3, 14, 3, 1);
const PMINTEN: RangeInclusive<RegId> =
    RegId::system(3, 0, 9, 14, 1)..=RegId::system(3, 0, 9, 14, 2);
const MONITORS: RangeInclusive<RegId> =
    RegId::system(3, 3, 9, 12, 0)..=RegId::system(3, 3, 9, 14, 3);
const EVENT_COUNTERS: RangeInclusive<RegId> =
    RegId::system(3, 3, 14, 8, 0)..=RegId::system(3, 3, 14, 15, 7);
/// `CCSIDR_EL1` by cache (coprocessor 0x11).
const CACHE_SIZES: RangeInclusive<RegId> =
    RegId(0x6020_0000_0011_0000)..=RegId(0x6020_0000_0011_00ff);

/// EL2 for the guest: bit 7 of KVM's features.
const EL2: VcpuFeatures = VcpuFeatures(1 << 7);

/// Four bits of a register.
const fn field(shift: u32) -> u64 {
    0xf << shift
}

/// While these bits of the guest's `id` are zero.
const fn lacks(id: RegId, mask: u64) -> When {
    When::Saved { id, mask, value: 0 }
}

const fn row(id: RegId, name: &'static str, quirk: Quirk) -> RegRow {
    RegRow { ids: id..=id, name: Some(name), quirk, when: When::Always, why: "", source: "" }
}

const fn range(ids: RangeInclusive<RegId>, quirk: Quirk) -> RegRow {
    RegRow { ids, name: None, quirk, when: When::Always, why: "", source: "" }
}

const NO_MONITORS: &str = "the vCPU has no performance monitors, so a guest cannot use them";
const GEOMETRY: &str = "it describes caches that a guest cannot operate on: maintenance by set \
                        and way is trapped, maintenance by address does not depend on it";
const NO_FEATURE: &str = "the ID registers tell the guest that there is no such register";
const PHYSICAL_TIMER: &str = "the guest's physical timer is off; on a kernel that cannot save it, \
                              the physical counter is the host's";
const OLD_MONITORS: &str = "the vCPU has no performance monitors, whatever this field says; a \
                            kernel that says otherwise ignores accesses to them";
const DEBUG: &str = "every version of the debug architecture from 6 on has what KVM gives a guest";
const EL2_ONLY: &str = "it is about EL2, which the guest does not have";
const DROPPED: &str = "a guest was never given it: newer kernels no longer say that the CPU has it";

/// Registers that one side has and the other has not.
const ONE_SIDED: &[RegRow] = &[
    monitors(PMINTEN, Quirk::OnlySource),
    monitors(MONITORS, Quirk::OnlySource),
    monitors(EVENT_COUNTERS, Quirk::OnlySource),
    monitors(PMINTEN, Quirk::OnlyDestination),
    monitors(MONITORS, Quirk::OnlyDestination),
    monitors(EVENT_COUNTERS, Quirk::OnlyDestination),
    RegRow {
        why: GEOMETRY,
        source: "all 14 caches since Linux 6.3, those of the host before",
        ..range(CACHE_SIZES, Quirk::OnlySource)
    },
    RegRow {
        why: GEOMETRY,
        source: "all 14 caches since Linux 6.3, those of the host before",
        ..range(CACHE_SIZES, Quirk::OnlyDestination)
    },
    RegRow {
        when: lacks(OSLSR_EL1, 1 << 1),
        why: "the OS lock is off, as a kernel without the register always has it",
        source: "Linux 5.18",
        ..row(OSLSR_EL1, "OSLSR_EL1", Quirk::OnlySource)
    },
    gone(TCR2_EL1, "TCR2_EL1", lacks(ID_AA64MMFR3_EL1, field(0))),
    gone(SCTLR2_EL1, "SCTLR2_EL1", lacks(ID_AA64MMFR3_EL1, field(4))),
    gone(PIRE0_EL1, "PIRE0_EL1", lacks(ID_AA64MMFR3_EL1, field(8))),
    gone(PIR_EL1, "PIR_EL1", lacks(ID_AA64MMFR3_EL1, field(8))),
    gone(POR_EL1, "POR_EL1", lacks(ID_AA64MMFR3_EL1, field(16))),
    gone(POR_EL0, "POR_EL0", lacks(ID_AA64MMFR3_EL1, field(16))),
    gone(FPMR, "FPMR", lacks(ID_AA64PFR2_EL1, field(32))),
    physical_timer(CNTPCT_EL0, "CNTPCT_EL0"),
    physical_timer(CNTP_CTL_EL0, "CNTP_CTL_EL0"),
    physical_timer(CNTP_CVAL_EL0, "CNTP_CVAL_EL0"),
];

const fn monitors(ids: RangeInclusive<RegId>, quirk: Quirk) -> RegRow {
    RegRow {
        when: When::Without(VcpuFeatures::PMU_V3),
        why: NO_MONITORS,
        source: "listed without the feature up to Linux 5.10",
        ..range(ids, quirk)
    }
}

const fn gone(id: RegId, name: &'static str, when: When) -> RegRow {
    RegRow {
        when,
        why: NO_FEATURE,
        source: "listed whatever the ID registers say before Linux 6.13",
        ..row(id, name, Quirk::OnlySource)
    }
}

const fn physical_timer(id: RegId, name: &'static str) -> RegRow {
    RegRow {
        when: lacks(CNTP_CTL_EL0, 1 << 0),
        why: PHYSICAL_TIMER,
        source: "Linux 6.4",
        ..row(id, name, Quirk::OnlySource)
    }
}

/// Values that a destination does not take, or makes others of.
const VALUES: &[RegRow] = &[
    RegRow {
        when: When::Without(VcpuFeatures::PMU_V3),
        why: OLD_MONITORS,
        source: "PerfMon: shown without the feature up to Linux 5.10",
        ..row(ID_DFR0_EL1, "ID_DFR0_EL1", Quirk::KeepDestination(field(24)))
    },
    RegRow {
        when: When::Without(VcpuFeatures::PMU_V3),
        why: OLD_MONITORS,
        source: "PMUVer: shown without the feature up to Linux 5.10",
        ..row(ID_AA64DFR0_EL1, "ID_AA64DFR0_EL1", Quirk::KeepDestination(field(8)))
    },
    RegRow {
        when: When::Saved { id: ID_AA64DFR0_EL1, mask: field(8), value: field(8) },
        why: "performance monitors that are not Arm's are none that KVM gives a guest",
        source: "PMUVer: IMP_DEF is dropped since Linux 6.2",
        ..row(ID_AA64DFR0_EL1, "ID_AA64DFR0_EL1", Quirk::Normalised(field(8)))
    },
    RegRow {
        why: DEBUG,
        source: "DebugVer: 6 in Linux 5.11 to 6.6, the host's before and after",
        ..row(ID_AA64DFR0_EL1, "ID_AA64DFR0_EL1", Quirk::KeepDestination(field(0)))
    },
    RegRow {
        why: "statistical profiling is given to no guest",
        source: "PMSVer: zero since Linux 5.11",
        ..row(ID_AA64DFR0_EL1, "ID_AA64DFR0_EL1", Quirk::KeepDestination(field(32)))
    },
    dropped(ID_AA64PFR0_EL1, "ID_AA64PFR0_EL1", Quirk::KeepDestination(field(40))),
    dropped(ID_AA64PFR0_EL1, "ID_AA64PFR0_EL1", Quirk::Normalised(field(40))),
    dropped(ID_AA64PFR1_EL1, "ID_AA64PFR1_EL1", Quirk::KeepDestination(field(16))),
    dropped(ID_AA64PFR1_EL1, "ID_AA64PFR1_EL1", Quirk::Normalised(field(16))),
    dropped(ID_AA64MMFR2_EL1, "ID_AA64MMFR2_EL1", Quirk::KeepDestination(field(24))),
    dropped(ID_AA64MMFR2_EL1, "ID_AA64MMFR2_EL1", Quirk::Normalised(field(24))),
    RegRow {
        why: GEOMETRY,
        source: "CCIDX: hidden since Linux 6.1 or earlier",
        ..row(ID_AA64MMFR2_EL1, "ID_AA64MMFR2_EL1", Quirk::KeepDestination(field(20)))
    },
    RegRow {
        why: GEOMETRY,
        source: "CCIDX: hidden since Linux 6.1 or earlier",
        ..row(ID_MMFR4_EL1, "ID_MMFR4_EL1", Quirk::KeepDestination(field(24)))
    },
    RegRow {
        when: When::Without(EL2),
        why: EL2_ONLY,
        source: "TWED, HCX: fixed before Linux 6.18, hidden in 6.1",
        ..row(ID_AA64MMFR1_EL1, "ID_AA64MMFR1_EL1", Quirk::KeepDestination(field(32) | field(40)))
    },
    RegRow {
        why: "the first run clears features that lack another one which they need",
        source: "Linux 7",
        ..row(ID_AA64MMFR3_EL1, "ID_AA64MMFR3_EL1", Quirk::Normalised(u64::MAX))
    },
    RegRow {
        why: GEOMETRY,
        source: "Ctype, Ttype, ICB: the host's before Linux 6.3, made up since; not LoUU, LoUIS \
                 and LoC, which tell what to clean",
        ..row(CLIDR_EL1, "CLIDR_EL1", Quirk::KeepDestination(0x7fff_c01f_ffff))
    },
    RegRow {
        why: GEOMETRY,
        source: "the host's before Linux 6.3, made up since",
        ..range(CACHE_SIZES, Quirk::KeepDestination(u64::MAX))
    },
    istatus(CNTV_CTL_EL0, "CNTV_CTL_EL0"),
    istatus(CNTP_CTL_EL0, "CNTP_CTL_EL0"),
];

const fn dropped(id: RegId, name: &'static str, quirk: Quirk) -> RegRow {
    RegRow {
        why: DROPPED,
        source: "MPAM, MPAM_frac, NV: hidden since Linux 6.13, accepted and dropped",
        ..row(id, name, quirk)
    }
}

const fn istatus(id: RegId, name: &'static str) -> RegRow {
    RegRow {
        why: "it is computed from the counter",
        source: "ISTATUS: not shown to the VMM since Linux 7",
        ..row(id, name, Quirk::Normalised(1 << 2))
    }
}

/// All rows.
pub fn rows() -> Vec<RegRow> {
    [ONE_SIDED, VALUES].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_says_why_and_where() {
        assert!(rows().iter().all(|row| !row.why.is_empty() && !row.source.is_empty()));
    }

    #[test]
    fn no_row_lets_a_mitigation_or_a_cpu_be_another() {
        let firmware = RegId(0x6030_0000_0014_0000)..=RegId(0x6030_0000_0016_ffff);
        let midr = RegId::system(3, 0, 0, 0, 0);
        let touches = |row: &RegRow| row.ids.contains(&midr) || firmware.contains(row.ids.start());
        assert!(!rows().iter().any(touches));
    }

    #[test]
    fn what_to_clean_is_never_let_differ() {
        const LOUIS_LOC_LOUU: u64 = 0x3fe0_0000;
        let clidr = rows().into_iter().filter(|row| row.ids.contains(&CLIDR_EL1));
        let masks = clidr.map(|row| match row.quirk {
            Quirk::KeepDestination(mask) | Quirk::Normalised(mask) => mask,
            Quirk::OnlySource | Quirk::OnlyDestination => 0,
        });
        assert_eq!(masks.fold(0, |all, mask| all | mask) & LOUIS_LOC_LOUU, 0);
    }
}
