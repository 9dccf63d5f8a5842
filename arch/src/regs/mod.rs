//! What moving an arm64 guest between kernels has to know of its system registers: a
//! row each. [`kedge_firmware::plan`] makes a plan of them.
//!
//! A row is a promise that a guest cannot tell; it says why. What no row allows is
//! refused: a guest that would read another value in an ID register moves only if its
//! profile names the field as one that varies, or the operator allows it by name. Field
//! positions are those of the Arm ARM (DDI 0487); which kernel does what was read in
//! Linux' `arch/arm64/kvm` and compared with running kernels.

use std::ops::RangeInclusive;

use kedge_firmware::{Quirk, RegRow, When};
use kedge_hv::VcpuFeatures;
use kedge_ids::RegId;

const ID_AA64PFR2_EL1: RegId = RegId::system(3, 0, 0, 4, 2);
const ID_AA64DFR0_EL1: RegId = RegId::system(3, 0, 0, 5, 0);
const ID_AA64MMFR3_EL1: RegId = RegId::system(3, 0, 0, 7, 3);
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
const PMCR_EL0: RegId = RegId::system(3, 3, 9, 12, 0);
const PMCNTENSET_EL0: RegId = RegId::system(3, 3, 9, 12, 1);
const PMCNTENCLR_EL0: RegId = RegId::system(3, 3, 9, 12, 2);
const PMOVSCLR_EL0: RegId = RegId::system(3, 3, 9, 12, 3);
const PMSWINC_EL0: RegId = RegId::system(3, 3, 9, 12, 4);
const PMSELR_EL0: RegId = RegId::system(3, 3, 9, 12, 5);
const PMOVSSET_EL0: RegId = RegId::system(3, 3, 9, 14, 3);
const PMINTENSET_EL1: RegId = RegId::system(3, 0, 9, 14, 1);
const PMINTENCLR_EL1: RegId = RegId::system(3, 0, 9, 14, 2);
const PMINTEN: RangeInclusive<RegId> = PMINTENSET_EL1..=PMINTENCLR_EL1;
const MONITORS: RangeInclusive<RegId> = PMCR_EL0..=PMOVSSET_EL0;
const EVENT_COUNTERS: RangeInclusive<RegId> =
    RegId::system(3, 3, 14, 8, 0)..=RegId::system(3, 3, 14, 11, 6);
/// `PMEVTYPER<n>_EL0`, and behind them `PMCCFILTR_EL0`.
const EVENT_TYPES: RangeInclusive<RegId> =
    RegId::system(3, 3, 14, 12, 0)..=RegId::system(3, 3, 14, 15, 7);
/// `CCSIDR_EL1` by cache (coprocessor 0x11).
const CACHE_SIZES: RangeInclusive<RegId> =
    RegId(0x6020_0000_0011_0000)..=RegId(0x6020_0000_0011_00ff);

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
const NO_FEATURE: &str = "the ID registers tell the guest that there is no such register";
const PHYSICAL_TIMER: &str = "the guest's physical timer is off; on a kernel that cannot save it, \
                              the physical counter is the host's";
const NO_CACHE: &str = "CLIDR_EL1 tells the guest that there is no such cache";
const NO_COUNTER: &str = "a guest reads no bit of a counter that it does not have";
const UPPER_HALF: &str = "a guest reads it as zero";

/// Registers that one side has and the other has not.
const ONE_SIDED: &[RegRow] = &[
    monitors(PMINTEN, Quirk::OnlySource),
    monitors(MONITORS, Quirk::OnlySource),
    monitors(EVENT_COUNTERS, Quirk::OnlySource),
    monitors(EVENT_TYPES, Quirk::OnlySource),
    monitors(PMINTEN, Quirk::OnlyDestination),
    monitors(MONITORS, Quirk::OnlyDestination),
    monitors(EVENT_COUNTERS, Quirk::OnlyDestination),
    monitors(EVENT_TYPES, Quirk::OnlyDestination),
    no_cache(Quirk::OnlySource),
    no_cache(Quirk::OnlyDestination),
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

const fn no_cache(quirk: Quirk) -> RegRow {
    RegRow {
        when: When::NoSuchCache,
        why: NO_CACHE,
        source: "all 14 caches since Linux 6.3, those of the host before",
        ..range(CACHE_SIZES, quirk)
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
    no_cache(Quirk::KeepDestination(u64::MAX)),
    counters(PMCNTENSET_EL0, "PMCNTENSET_EL0"),
    counters(PMCNTENCLR_EL0, "PMCNTENCLR_EL0"),
    counters(PMOVSSET_EL0, "PMOVSSET_EL0"),
    counters(PMOVSCLR_EL0, "PMOVSCLR_EL0"),
    counters(PMINTENSET_EL1, "PMINTENSET_EL1"),
    counters(PMINTENCLR_EL1, "PMINTENCLR_EL1"),
    cleared_by(PMCNTENSET_EL0, "PMCNTENSET_EL0", PMCNTENCLR_EL0),
    cleared_by(PMOVSSET_EL0, "PMOVSSET_EL0", PMOVSCLR_EL0),
    cleared_by(PMINTENSET_EL1, "PMINTENSET_EL1", PMINTENCLR_EL1),
    RegRow {
        why: "a guest can only write it",
        source: "it holds what was written up to Linux 5.10",
        ..row(PMSWINC_EL0, "PMSWINC_EL0", Quirk::Normalised(u64::MAX))
    },
    RegRow {
        why: "a guest reads the number of a counter in it, and no other bit",
        source: "it holds other bits, too, up to Linux 5.10",
        ..row(PMSELR_EL0, "PMSELR_EL0", Quirk::Normalised(!0x1f))
    },
    RegRow {
        why: UPPER_HALF,
        source: "it holds other bits, too, up to Linux 5.10",
        ..range(EVENT_TYPES, Quirk::Normalised(0xffff_ffff << 32))
    },
    // Longer counters came with version 3.5 of the monitors, which is 6 in PMUVer.
    short_counters(1),
    short_counters(4),
    short_counters(5),
    istatus(CNTV_CTL_EL0, "CNTV_CTL_EL0"),
    istatus(CNTP_CTL_EL0, "CNTP_CTL_EL0"),
];

const fn counters(id: RegId, name: &'static str) -> RegRow {
    let quirk = Quirk::NormalisedFrom { count: PMCR_EL0, shift: 11, but: 1 << 31 };
    RegRow {
        why: NO_COUNTER,
        source: "bits of counters that there are not: kept up to Linux 6.1",
        ..row(id, name, quirk)
    }
}

const fn cleared_by(id: RegId, name: &'static str, other: RegId) -> RegRow {
    RegRow {
        why: "the guest reads what it read before",
        source: "both registers are assigned to up to 6.1 and from 7 on, and set and clear between",
        ..row(id, name, Quirk::ClearedBy(other))
    }
}

const fn short_counters(version: u64) -> RegRow {
    RegRow {
        when: When::Saved { id: ID_AA64DFR0_EL1, mask: field(8), value: version << 8 },
        why: UPPER_HALF,
        source: "it holds other bits, too, up to Linux 5.10",
        ..range(EVENT_COUNTERS, Quirk::Normalised(0xffff_ffff << 32))
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
    fn no_row_lets_an_id_register_be_another() {
        let caches = RegId::system(3, 1, 0, 0, 1);
        let cache_type = RegId::system(3, 3, 0, 0, 1);
        let ids = RegId::system(3, 0, 0, 0, 0)..=RegId::system(3, 0, 0, 7, 7);
        let others = |id: &RegId| ids.contains(id) || [caches, cache_type, PMCR_EL0].contains(id);
        let differs =
            |row: &RegRow| !matches!(row.quirk, Quirk::OnlySource | Quirk::OnlyDestination);
        let rows = rows();
        let rows = rows.iter().filter(|row| differs(row));
        assert!(!rows.into_iter().any(|row| others(row.ids.start()) || others(row.ids.end())));
    }
}
