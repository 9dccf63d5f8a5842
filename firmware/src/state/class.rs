//! What kind of register an id stands for, as far as saving and restoring goes: who
//! holds its value, and when in a restore it is written. An id that means nothing to
//! this release is state of its vCPU.
//!
//! KVM has no flag that says so (KVM/arm64 keeps PSCI, the bitmaps and, from Linux 6.5
//! on, the ID registers in the machine; the counters in the machine's timer); this is
//! read from `arch/arm64/kvm`. Where a host does otherwise, the host is right: see
//! [`super::Planned`].

use kedge_ids::RegId;

use crate::probe::PMCR_EL0;
use crate::register::Firmware;

/// When a register is written: those of an earlier class before all of a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Class {
    /// The SVE vector lengths: written before the vCPU is complete, and only compared
    /// afterwards.
    VectorLengths,
    /// ID registers. What a vCPU lists depends on them, and so does what other
    /// registers take.
    Identity,
    /// Banks 0x14 and 0x16.
    Firmware,
    /// `MPIDR_EL1`, by which the interrupt controller and PSCI know the vCPU.
    Affinity,
    /// `CLIDR_EL1`, which says which caches there are.
    CacheLevels,
    /// `CCSIDR_EL1` of each cache (coprocessor 0x11).
    CacheSizes,
    /// `PMCR_EL0`, which says how many event counters there are.
    MonitorControl,
    /// Everything else, known or not.
    State,
    /// `CNTVCT_EL0` and `CNTPCT_EL0`.
    Counters,
    /// The timers' compare values, which counters are compared with.
    TimerCompare,
    /// The timers' control registers, which may raise an interrupt at once.
    TimerControl,
}

/// Who holds a register's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The machine, or the host: the same through every vCPU.
    WholeVm,
    /// The machine, and it moves on by itself.
    Ticking,
    /// Each vCPU its own.
    Vcpu,
}

const CLIDR_EL1: RegId = RegId::system(3, 1, 0, 0, 1);
const DEMUX: u64 = 0x11;
const SYSTEM: u64 = 0x13;

/// `CNTVCT_EL0`, the virtual counter of the whole machine: it moves on, and writing it
/// moves it. Under the encoding of `CNTV_CVAL_EL0`, which has its: KVM swapped the two,
/// and that is its ABI.
pub const VIRTUAL_COUNTER: RegId = RegId::system(3, 3, 14, 3, 2);
/// `CNTPCT_EL0`, the physical counter of the whole machine, likewise; only since Linux
/// 6.4.
pub const PHYSICAL_COUNTER: RegId = RegId::system(3, 3, 14, 0, 1);
const COUNTERS: [RegId; 2] = [VIRTUAL_COUNTER, PHYSICAL_COUNTER];
const COMPARE: [RegId; 2] = [RegId::system(3, 3, 14, 0, 2), RegId::system(3, 3, 14, 2, 2)];
const CONTROL: [RegId; 2] = [RegId::system(3, 3, 14, 3, 1), RegId::system(3, 3, 14, 2, 1)];

/// ID registers held by the machine: op0 3, op1 0, CRn 0, CRm 1 to 7, and these.
const IDENTITY: [RegId; 4] = [
    RegId::system(3, 0, 0, 0, 0), // MIDR_EL1
    RegId::system(3, 0, 0, 0, 6), // REVIDR_EL1
    RegId::system(3, 1, 0, 0, 7), // AIDR_EL1
    RegId::system(3, 3, 0, 0, 1), // CTR_EL0
];
const FIRST_ID: RegId = RegId::system(3, 0, 0, 1, 0);
const LAST_ID: RegId = RegId::system(3, 0, 0, 7, 7);

impl Class {
    /// The class of a register.
    pub(super) fn of(id: RegId) -> Self {
        match id.coprocessor() {
            Firmware::FW | Firmware::FEAT_BMAP => Self::Firmware,
            DEMUX => Self::CacheSizes,
            SYSTEM => Self::of_system(id),
            _ if id == RegId::SVE_VLS => Self::VectorLengths,
            _ => Self::State,
        }
    }

    fn of_system(id: RegId) -> Self {
        match id {
            RegId::MPIDR_EL1 => Self::Affinity,
            CLIDR_EL1 => Self::CacheLevels,
            PMCR_EL0 => Self::MonitorControl,
            _ if (FIRST_ID..=LAST_ID).contains(&id) || IDENTITY.contains(&id) => Self::Identity,
            _ if COUNTERS.contains(&id) => Self::Counters,
            _ if COMPARE.contains(&id) => Self::TimerCompare,
            _ if CONTROL.contains(&id) => Self::TimerControl,
            _ => Self::State,
        }
    }

    /// Whether its registers are settled while a restore is planned. They may, as they
    /// depend on nothing but each other, and they must, as all refusals are theirs.
    pub(super) fn is_settled_by_the_plan(self) -> bool {
        self <= Self::MonitorControl
    }
}

impl Holder {
    /// Who holds a register. Of a firmware register, `known` says whether its row does:
    /// what has none is taken for each vCPU's own, which is right for whole-VM
    /// registers, too, as long as all vCPUs read the same.
    pub(super) fn of(id: RegId, known: impl Fn(RegId) -> bool) -> Self {
        match Class::of(id) {
            Class::Identity => Self::WholeVm,
            Class::Firmware if known(id) => Self::WholeVm,
            Class::Counters => Self::Ticking,
            _ => Self::Vcpu,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FwReg;

    fn class_and_holder(id: u64) -> (Class, Holder) {
        let id = RegId(id);
        (Class::of(id), Holder::of(id, |id| FwReg::from_id(id).is_some()))
    }

    #[test]
    fn registers_of_the_whole_machine_are_known_by_id() {
        let [psci, bitmap] = [0x6030_0000_0014_0000, 0x6030_0000_0016_0002];
        assert_eq!(class_and_holder(psci), (Class::Firmware, Holder::WholeVm));
        assert_eq!(class_and_holder(bitmap), (Class::Firmware, Holder::WholeVm));
        let [id_aa64pfr0, midr] = [0x6030_0000_0013_c020, 0x6030_0000_0013_c000];
        assert_eq!(class_and_holder(id_aa64pfr0), (Class::Identity, Holder::WholeVm));
        assert_eq!(class_and_holder(midr), (Class::Identity, Holder::WholeVm));
    }

    #[test]
    fn an_unknown_register_is_its_vcpus_own() {
        let unknown_bitmap = 0x6030_0000_0016_0009;
        assert_eq!(class_and_holder(unknown_bitmap), (Class::Firmware, Holder::Vcpu));
        let unknown_bank = 0x6070_0000_0077_0001;
        assert_eq!(class_and_holder(unknown_bank), (Class::State, Holder::Vcpu));
    }

    #[test]
    fn the_swapped_ids_of_the_virtual_timer_are_what_kvm_takes_them_for() {
        let [timer_cnt, timer_cval] = [0x6030_0000_0013_df1a, 0x6030_0000_0013_df02];
        assert_eq!(class_and_holder(timer_cnt), (Class::Counters, Holder::Ticking));
        assert_eq!(class_and_holder(timer_cval), (Class::TimerCompare, Holder::Vcpu));
    }

    #[test]
    fn timers_come_last_and_their_switches_behind_all() {
        assert!(Class::State < Class::Counters);
        assert!(Class::Counters < Class::TimerCompare);
        assert!(Class::TimerCompare < Class::TimerControl);
    }
}
