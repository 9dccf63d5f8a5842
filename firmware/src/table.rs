//! The firmware registers of KVM/arm64: a row each, by id.
//!
//! Facts are Linux's (Documentation/virt/kvm/arm/fw-pseudo-registers.rst,
//! arch/arm64/kvm/hypercalls.c, psci.c); the functions are those of PSCI (Arm
//! DEN0022), the SMC Calling Convention (DEN0028), TRNG (DEN0098) and PV time
//! (DEN0057).

use kedge_ids::RegId;

use crate::register::{Absent, ByPtp, Domain, Freeze, FwReg, FwSpec, Scope, Symbol};

const fn fw(index: u64) -> RegId {
    RegId(0x6030_0000_0014_0000 | index)
}

const fn bmap(index: u64) -> RegId {
    RegId(0x6030_0000_0016_0000 | index)
}

const fn symbol(name: &'static str, value: u64, opens: &'static [u32]) -> Symbol {
    Symbol { name, value, opens }
}

/// SYSTEM_SUSPEND (0x8400000e, 0xc400000e) also needs a capability of the machine, which
/// is in no register.
#[rustfmt::skip]
const PSCI_VERSIONS: &[Symbol] = &[
    //     name   value     functions that the one before does not have
    symbol("0.1", 0x0_0001, &[0x95c1_ba5f, 0x95c1_ba60]),
    symbol("0.2", 0x0_0002, &[0x8400_0000, 0x8400_0001, 0xc400_0001, 0x8400_0002, 0x8400_0003,
                              0xc400_0003, 0x8400_0004, 0xc400_0004, 0x8400_0006, 0x8400_0008,
                              0x8400_0009]),
    symbol("1.0", 0x1_0000, &[0x8400_000a, 0x8400_000e, 0xc400_000e]),
    symbol("1.1", 0x1_0001, &[0x8400_0012, 0xc400_0012]),
    symbol("1.2", 0x1_0002, &[]),
    symbol("1.3", 0x1_0003, &[0x8400_0015, 0xc400_0015]),
];

/// The workarounds' functions are answered at the entry of the hypervisor, whatever
/// the level: it opens none.
#[rustfmt::skip]
const MITIGATION: &[Symbol] = &[
    symbol("not-avail",    0, &[]),
    symbol("avail",        1, &[]),
    symbol("not-required", 2, &[]),
];

#[rustfmt::skip]
const SSBD: &[Symbol] = &[
    symbol("not-avail",     0x00, &[]),
    symbol("unknown",       0x01, &[]),
    symbol("avail",         0x02, &[]),
    symbol("avail-enabled", 0x12, &[]),
    symbol("not-required",  0x03, &[]),
];

#[rustfmt::skip]
const STD: &[Symbol] = &[
    symbol("trng", 1 << 0, &[0x8400_0050, 0x8400_0051, 0x8400_0052, 0x8400_0053, 0xc400_0053]),
];

#[rustfmt::skip]
const STD_HYP: &[Symbol] = &[
    symbol("pv-time", 1 << 0, &[0xc500_0020, 0xc500_0021]),
];

#[rustfmt::skip]
const VENDOR_HYP: &[Symbol] = &[
    symbol("func-feat", 1 << 0, &[0x8600_0000, 0x8600_ff01]),
    symbol("ptp",       1 << 1, &[0x8600_0001]),
];

/// KVM only tells a guest of these: who sets them has to answer them.
#[rustfmt::skip]
const VENDOR_HYP_2: &[Symbol] = &[
    symbol("impl-version", 1 << 0, &[0xc600_0040]),
    symbol("impl-cpus",    1 << 1, &[0xc600_0041]),
];

const fn workaround(reg: FwReg, index: u64, name: &'static str, about: &'static str) -> FwSpec {
    FwSpec {
        reg,
        id: fw(index),
        name,
        about,
        scope: Scope::Host,
        domain: Domain::Level(MITIGATION),
        freeze: Freeze::NothingStored,
        absent: None,
        neutral: None,
        opt_in: false,
        since: "5.3",
        source: "fw-pseudo-registers.rst; Arm DEN0028, 7",
    }
}

const fn bitmap(reg: FwReg, index: u64, name: &'static str, bits: &'static [Symbol]) -> FwSpec {
    FwSpec {
        reg,
        id: bmap(index),
        name,
        about: "",
        scope: Scope::WholeVm,
        domain: Domain::Bits(bits),
        freeze: Freeze::FirstRun,
        absent: None,
        neutral: Some(0),
        opt_in: false,
        since: "5.19",
        source: "fw-pseudo-registers.rst",
    }
}

/// Every firmware register that kedge knows, by id.
pub const TABLE: &[FwSpec] = &[
    FwSpec {
        reg: FwReg::PsciVersion,
        id: fw(0),
        name: "psci_version",
        about: "the PSCI version that a guest is offered; 0.1 goes with vCPUs without the \
                feature `psci-0.2`, all others with it",
        scope: Scope::WholeVm,
        domain: Domain::Version(PSCI_VERSIONS),
        freeze: Freeze::Never,
        absent: None,
        neutral: None,
        opt_in: false,
        since: "4.17",
        source: "fw-pseudo-registers.rst; Arm DEN0022",
    },
    workaround(FwReg::Workaround1, 1, "smccc_arch_workaround_1", "the mitigation of Spectre v2"),
    FwSpec {
        domain: Domain::Level(SSBD),
        ..workaround(
            FwReg::Workaround2,
            2,
            "smccc_arch_workaround_2",
            "the mitigation of Spectre v4; KVM tells only two levels apart, up to `unknown` and \
             from `avail`",
        )
    },
    FwSpec {
        absent: Some(Absent {
            shown: "no answer about Spectre-BHB: the guest takes care of itself",
            same_as: Some(0),
            by_ptp: None,
        }),
        since: "5.18, and stable releases before it",
        ..workaround(
            FwReg::Workaround3,
            3,
            "smccc_arch_workaround_3",
            "the mitigation of Spectre-BHB",
        )
    },
    FwSpec {
        about: "standard secure services: random numbers (Arm DEN0098)",
        absent: Some(Absent {
            shown: "all that the kernel has, without a switch: TRNG from 5.12 on, nothing on 5.10",
            same_as: None,
            by_ptp: Some(ByPtp { with: 0x1, without: 0x0 }),
        }),
        ..bitmap(FwReg::StdBmap, 0, "std_bmap", STD)
    },
    FwSpec {
        about: "standard hypervisor services: stolen time (Arm DEN0057)",
        absent: Some(Absent {
            shown: "PV time, without a switch",
            same_as: Some(0x1),
            by_ptp: None,
        }),
        ..bitmap(FwReg::StdHypBmap, 1, "std_hyp_bmap", STD_HYP)
    },
    FwSpec {
        about: "services of KVM's own: discovery, precise time",
        absent: Some(Absent {
            shown: "all that the kernel has, without a switch: both from 5.13 on, nothing on 5.10",
            same_as: None,
            by_ptp: Some(ByPtp { with: 0x3, without: 0x0 }),
        }),
        ..bitmap(FwReg::VendorHypBmap, 2, "vendor_hyp_bmap", VENDOR_HYP)
    },
    FwSpec {
        about: "services of KVM's own from function 64 on: discovery of the implementations that \
                a guest may run on, answered by the VMM",
        absent: Some(Absent { shown: "nothing", same_as: Some(0x0), by_ptp: None }),
        opt_in: true,
        since: "6.15",
        ..bitmap(FwReg::VendorHypBmap2, 3, "vendor_hyp_bmap_2", VENDOR_HYP_2)
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Firmware;

    fn unique<T: Ord>(all: impl IntoIterator<Item = T>) -> bool {
        let mut seen = BTreeSet::new();
        all.into_iter().all(|one| seen.insert(one))
    }

    #[test]
    fn rows_stand_by_id_and_nothing_is_there_twice() {
        assert!(TABLE.is_sorted_by_key(|row| row.id));
        assert!(TABLE.is_sorted_by_key(|row| row.reg));
        assert!(unique(TABLE.iter().map(|row| row.id)));
        assert!(unique(TABLE.iter().map(|row| row.name)));
    }

    #[test]
    fn every_row_is_64_bits_of_the_firmware_banks() {
        let firmware = |row: &FwSpec| Firmware::of(row.id) == Some(Firmware::Known(row.reg));
        assert!(TABLE.iter().all(|row| firmware(row) && row.id.size().bytes() == 8));
    }

    #[test]
    fn a_register_of_bank_0x16_is_a_bitmap_of_the_machine_that_can_be_empty() {
        for row in TABLE.iter().filter(|row| row.id.coprocessor() == Firmware::FEAT_BMAP) {
            assert!(matches!(row.domain, Domain::Bits(_)), "{row:?}");
            let rules = (row.scope, row.freeze, row.neutral);
            assert_eq!(rules, (Scope::WholeVm, Freeze::FirstRun, Some(0)));
        }
    }

    #[test]
    fn a_bit_is_one_bit_and_a_name_is_one_word() {
        for symbol in TABLE.iter().flat_map(|row| row.domain.symbols()) {
            assert!(symbol.name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)));
        }
        let bits = TABLE.iter().filter(|row| matches!(row.domain, Domain::Bits(_)));
        assert!(bits.flat_map(|row| row.domain.symbols()).all(|bit| bit.value.count_ones() == 1));
    }

    #[test]
    fn values_and_names_of_a_register_are_unique() {
        for row in TABLE {
            assert!(unique(row.domain.symbols().iter().map(|symbol| symbol.value)));
            assert!(unique(row.domain.symbols().iter().map(|symbol| symbol.name)));
        }
    }

    #[test]
    fn no_function_is_opened_twice() {
        let symbols = TABLE.iter().flat_map(|row| row.domain.symbols());
        assert!(unique(symbols.flat_map(|symbol| symbol.opens)));
    }

    #[test]
    fn every_value_that_a_row_states_is_one_of_its_own() {
        for row in TABLE {
            for value in
                [row.neutral, row.absent.and_then(|absent| absent.same_as)].into_iter().flatten()
            {
                assert_eq!(row.reg.check(value), Ok(()));
            }
        }
    }

    #[test]
    fn versions_go_up() {
        assert!(PSCI_VERSIONS.is_sorted_by_key(|version| version.value));
    }
}
