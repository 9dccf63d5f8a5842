//! The rules of the model, each flipped: a suite that means something notices every
//! one of them, against the model as it was and against the kernel it stands for.

use kedge_hv::{MpState, Timer};
use kedge_hv_model::{
    Ability, Answer, AtVcpuCreation, BitmapOrder, CpuOnReset, EmptyRange, FailedRun, FirstRun,
    Freeze, FrozenBy, Ids, Istatus, PSCI_0_1, PowerOff, Refusal, Release, Row, Rule, SErrorTaken,
    Scope, Service, UnreadyPmu, V5_10, V6_1, V6_12, V7_2, WidthOf, id,
};
use kedge_ids::RegId;

use crate::Need;

/// A rule, and how it would read wrongly.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// What it says then.
    pub name: &'static str,
    /// The release whose rule it is.
    pub of: Release,
    /// Without this, a host shows nothing of it.
    pub need: Need,
    change: fn(&mut Release),
}

impl Mutation {
    /// The release, wrong in this one rule.
    pub fn mutated(&self) -> Release {
        let mut release = self.of.clone();
        (self.change)(&mut release);
        release
    }

    const fn needs(self, need: Need) -> Self {
        Self { need, ..self }
    }
}

const fn mutation(name: &'static str, of: Release, change: fn(&mut Release)) -> Mutation {
    Mutation { name, of, need: Need::Kvm, change }
}

/// An errno that no rule has.
const WRONG: i32 = libc::EBADFD;

/// A release that refuses this with a wrong errno.
pub fn with_wrong_errno(release: &Release, refusal: Refusal) -> Release {
    Release { errnos: Vec::leak(vec![(refusal, WRONG)]), ..release.clone() }
}

/// What a host must have or lack for this to be refused there at all.
pub fn need_of(refusal: Refusal) -> Need {
    match refusal {
        Refusal::NoFilter => Need::NoFilter,
        Refusal::FilterRange | Refusal::FilterOverlap | Refusal::FilterLate => Need::Filter,
        Refusal::NoCounterOffset => Need::NoCounterOffset,
        Refusal::ImpIds => Need::NoImpIds,
        Refusal::SystemSuspend | Refusal::MpState => Need::NoSuspend,
        Refusal::SveUnfinished
        | Refusal::SveFinished
        | Refusal::SveLengths
        | Refusal::FinalizedTwice
        | Refusal::HiddenCore => Need::Sve,
        _ => Need::Kvm,
    }
}

/// Every rule, flipped on a release that has it.
pub const MUTATIONS: &[Mutation] = &[
    mutation("a newer PSCI version", V6_12, |r| r.psci = V7_2.psci),
    mutation("an older PSCI version", V6_1, |r| r.psci = V5_10.psci),
    mutation("PSCI 0.1 can be chosen", V5_10, |r| r.psci = &[PSCI_0_1, 2, 0x1_0000]),
    mutation("the PSCI version freezes", V7_2, |r| {
        change_row(r, RegId::PSCI_VERSION, |row| row.freeze = Freeze::Run);
    }),
    mutation("the PSCI version is a vCPU's", V7_2, |r| {
        change_row(r, RegId::PSCI_VERSION, |row| row.scope = Scope::Vcpu);
    }),
    mutation("any PSCI version goes", V7_2, |r| {
        change_row(r, RegId::PSCI_VERSION, |row| row.rule = Rule::Stored);
    }),
    mutation("a workaround level is stored", V7_2, |r| {
        change_row(r, id::WORKAROUND_1, |row| row.rule = Rule::Stored);
    }),
    mutation("a workaround level has more bits", V7_2, |r| {
        change_row(r, id::WORKAROUND_3, |row| row.rule = Rule::Ignored);
    }),
    mutation("workaround 2 is as the others", V7_2, |r| {
        change_row(r, id::WORKAROUND_2, |row| row.rule = Rule::Level(0xf));
    }),
    mutation("a bitmap is born empty", V6_1, |r| {
        change_row(r, id::VENDOR_HYP_BMAP, |row| *row = row.born(&[0]));
    }),
    mutation("the late bitmap is born full", V7_2, |r| {
        change_row(r, id::VENDOR_HYP_BMAP_2, |row| *row = row.born(&[3]));
    }),
    mutation("a bitmap knows another bit", V6_12, |r| {
        let order = BitmapOrder::UnknownFirst;
        change_row(r, id::STD_BMAP, |row| row.rule = Rule::Bitmap { known: 3, order });
    }),
    mutation("a bitmap notices the freeze first", V6_12, |r| {
        let order = BitmapOrder::FrozenFirst;
        change_row(r, id::STD_BMAP, |row| row.rule = Rule::Bitmap { known: 1, order });
    }),
    mutation("a bitmap never freezes", V6_12, |r| {
        change_row(r, id::STD_HYP_BMAP, |row| row.freeze = Freeze::Never);
    }),
    mutation("a frozen bitmap refuses its own value", V6_12, |r| {
        change_row(r, id::STD_HYP_BMAP, |row| row.freeze = Freeze::RunEvenIfEqual);
    }),
    mutation("a bitmap is a vCPU's", V6_1, |r| {
        change_row(r, id::VENDOR_HYP_BMAP, |row| row.scope = Scope::Vcpu);
    }),
    mutation("a bitmap is missing", V7_2, |r| r.rows = V6_12.rows),
    mutation("an ID register is a vCPU's", V6_12, |r| {
        change_row(r, PFR0_EL1, |row| row.scope = Scope::Vcpu);
    }),
    mutation("an ID register never freezes", V6_12, |r| {
        change_row(r, PFR0_EL1, |row| row.freeze = Freeze::Never);
    }),
    mutation("a frozen ID register refuses its own value", V7_2, |r| {
        change_row(r, PFR0_EL1, |row| row.freeze = Freeze::RunEvenIfEqual);
    }),
    mutation("an ID register freezes on an old kernel", V5_10, |r| {
        change_row(r, PFR0_EL1, |row| row.freeze = Freeze::Run);
    }),
    mutation("an ID register takes anything", V7_2, |r| {
        change_row(r, PFR0_EL1, |row| row.rule = Rule::Stored);
    }),
    mutation("the main ID register takes anything", V7_2, |r| {
        change_row(r, MIDR_EL1, |row| row.rule = Rule::Ignored);
    }),
    mutation("the affinity is the machine's", V7_2, |r| {
        change_row(r, RegId::MPIDR_EL1, |row| row.scope = Scope::Vm);
    }),
    mutation("the affinity freezes", V7_2, |r| {
        change_row(r, RegId::MPIDR_EL1, |row| row.freeze = Freeze::Run);
    }),
    mutation("OSLSR takes anything", V7_2, |r| {
        change_row(r, OSLSR_EL1, |row| row.rule = Rule::Stored);
    }),
    mutation("cache sizes are fixed", V6_12, |r| {
        change_row(r, CCSIDR, |row| row.rule = Rule::Fixed);
    }),
    mutation("cache sizes are not fixed", V6_1, |r| {
        change_row(r, CCSIDR, |row| row.rule = Rule::CacheSize);
    }),
    mutation("the counter is a vCPU's", V6_12, |r| {
        change_row(r, id::TIMER_CNT, |row| row.scope = Scope::Vcpu);
    }),
    mutation("the counter goes on over another vCPU", V6_12, |r| {
        let rule = Rule::Counter(AtVcpuCreation::Kept);
        change_row(r, id::TIMER_CNT, |row| row.rule = rule);
    }),
    mutation("the counter stands still", V6_12, |r| {
        change_row(r, id::TIMER_CNT, |row| row.rule = Rule::Stored);
    }),
    mutation("a due timer hides it", V6_12, |r| {
        change_row(r, id::TIMER_CTL, |row| row.rule = Rule::TimerControl(Istatus::Hidden));
    }),
    mutation("a due timer shows it", V7_2, |r| {
        change_row(r, id::TIMER_CTL, |row| row.rule = Rule::TimerControl(Istatus::Computed));
    }),
    mutation("the processor has any mode", V7_2, |r| {
        change_row(r, RegId::PSTATE, |row| row.rule = Rule::Stored);
    }),
    mutation("vector lengths are arbitrary", V7_2, |r| {
        change_row(r, RegId::SVE_VLS, |row| row.rule = Rule::Stored);
    })
    .needs(Need::Sve),
    mutation("SVE state needs no finalization", V7_2, |r| {
        change_row(r, RegId(0x6080_0000_0015_0000), |row| row.rule = Rule::Stored);
    })
    .needs(Need::Sve),
    mutation("a feature more", V7_2, |r| r.features |= 1 << 9),
    mutation("a feature less", V7_2, |r| r.features &= !(1 << 8)),
    mutation("features are a vCPU's", V6_12, |r| r.feature_scope = Scope::Vcpu),
    mutation("features are the machine's", V6_1, |r| r.feature_scope = Scope::Vm),
    mutation("being born off is compared", V6_12, |r| r.power_off = PowerOff::Compared),
    mutation("being born off is ephemeral", V6_1, |r| r.power_off = PowerOff::Ephemeral),
    mutation("vCPUs can be suspended", V5_10, |r| r.mp_states = V6_1.mp_states),
    mutation("vCPUs cannot be suspended", V6_1, |r| r.mp_states = V5_10.mp_states),
    mutation("vCPUs cannot be stopped", V6_1, |r| r.mp_states = &[MpState::Runnable]),
    mutation("systems can be suspended", V5_10, |r| r.system_suspend = Ability::Present),
    mutation("systems cannot be suspended", V6_1, |r| r.system_suspend = Ability::Absent),
    mutation("guest code freezes", V6_12, |r| r.frozen_by = FrozenBy::GuestCode),
    mutation("a missing controller is not noticed", V6_12, |r| r.without_gic = &[]),
    mutation("a missing controller is noticed", V6_1, |r| r.without_gic = V6_12.without_gic),
    mutation("a failed run can be mended", V7_2, |r| r.failed_run = FailedRun::CanBeMended),
    mutation("a failed run kills", V5_10, |r| r.failed_run = FailedRun::KillsMachine),
    mutation("an unready PMU runs", V6_1, |r| r.unready_pmu = UnreadyPmu::Runs),
    mutation("an unready PMU does not run", V5_10, |r| r.unready_pmu = UnreadyPmu::Refused),
    mutation("every vCPU decides the width", V6_1, |r| r.width_of = WidthOf::EveryVcpu),
    mutation("the first vCPU decides the width", V5_10, |r| {
        r.width_of = WidthOf::FirstInitialised;
    }),
    mutation("CPU_ON shows late", V7_2, |r| r.cpu_on_reset = CpuOnReset::WhenRun),
    mutation("the firmware answers less", V6_12, |r| r.services = V5_10.services),
    mutation("the firmware answers more", V5_10, |r| r.services = V6_12.services),
    mutation("a call without its switch", V6_12, |r| r.services = UNGATED),
    mutation("calls can be filtered", V6_1, |r| r.smccc_filter = Ability::Present),
    mutation("calls cannot be filtered", V6_12, |r| r.smccc_filter = Ability::Absent),
    mutation("smc is a call", V6_1, |r| r.smc_calls = Ability::Present),
    mutation("smc is no call", V6_12, |r| r.smc_calls = Ability::Absent),
    mutation("counters have an offset", V6_1, |r| r.counter_offset = Ability::Present),
    mutation("counters have no offset", V6_12, |r| r.counter_offset = Ability::Absent),
    mutation("main id registers can be chosen", V6_12, |r| {
        r.writable_imp_ids = Ability::Present;
    }),
    mutation("main id registers cannot be chosen", V7_2, |r| {
        r.writable_imp_ids = Ability::Absent;
    }),
    mutation("a main id register has fewer bits", V7_2, |r| {
        change_row(r, MIDR_EL1, |row| row.rule = Rule::ImpId(0xffff));
    }),
    mutation("a chosen main id register never freezes", V7_2, |r| {
        change_row(r, MIDR_EL1, |row| row.freeze = Freeze::Never);
    }),
    mutation("a chosen main id register is a vCPU's", V7_2, |r| {
        change_row(r, REVIDR_EL1, |row| row.scope = Scope::Vcpu);
    }),
    mutation("masks are told", V6_1, |r| r.id_masks = Ability::Present),
    mutation("masks are not told", V6_12, |r| r.id_masks = Ability::Absent),
    mutation("the distributor has a third revision", V5_10, |r| r.gic_revisions = &[2, 3]),
    mutation("the distributor has no third revision", V6_1, |r| r.gic_revisions = &[2]),
    mutation("the distributor's revision can be had early", V6_12, |r| {
        r.early_revision = Ability::Present;
    }),
    mutation("the distributor's revision cannot be had early", V7_2, |r| {
        r.early_revision = Ability::Absent;
    }),
    mutation("timers' interrupts are the machine's", V6_1, |r| r.timer_ppis = Scope::Vm),
    mutation("timers' interrupts are a vCPU's", V6_12, |r| r.timer_ppis = Scope::Vcpu),
    mutation("the physical timer claims first", V6_1, |r| {
        r.timer_claims = [Timer::Physical, Timer::Virtual];
    }),
    mutation("the virtual timer claims first", V7_2, |r| {
        r.timer_claims = [Timer::Virtual, Timer::Physical];
    }),
    mutation("a failed first run is tried again", V5_10, |r| {
        r.first_run = FirstRun::Repeated;
    }),
    mutation("a failed first run is not tried again", V6_12, |r| {
        r.first_run = FirstRun::TriedOnce;
    }),
    mutation("an empty range is nothing", V6_12, |r| r.empty_range = EmptyRange::Nothing),
    mutation("an empty range is everything", V7_2, |r| {
        r.empty_range = EmptyRange::Everything;
    }),
    mutation("a controller does not show", V7_2, |r| r.gic_fields = &[]),
    mutation("a controller shows", V6_12, |r| r.gic_fields = V7_2.gic_fields),
    mutation("serrors come early", V7_2, |r| r.early_serror = Ability::Present),
    mutation("serrors do not come early", V6_1, |r| r.early_serror = Ability::Absent),
    mutation("serrors are taken at once", V6_12, |r| r.serror_taken = SErrorTaken::AtOnce),
    mutation("serrors wait for a run", V7_2, |r| r.serror_taken = SErrorTaken::WhenRun),
    mutation("the pmu's control takes anything", V6_12, |r| {
        change_row(r, PMCR_EL0, |row| row.rule = Rule::Stored);
    }),
    mutation("the pmu's counters can be chosen", V6_1, |r| {
        change_row(r, PMCR_EL0, |row| row.rule = Rule::PmuControl);
    }),
    mutation("the physical counter starts with a vCPU", V6_12, |r| {
        let rule = Rule::Counter(AtVcpuCreation::Restarts);
        change_row(r, id::PTIMER_CNT, |row| row.rule = rule);
    }),
    mutation("the physical counter is a vCPU's", V7_2, |r| {
        change_row(r, id::PTIMER_CNT, |row| row.scope = Scope::Vcpu);
    }),
];

const PFR0_EL1: RegId = RegId::system(3, 0, 0, 4, 0);
const MIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 0);
const REVIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 6);
const PMCR_EL0: RegId = RegId::system(3, 3, 9, 12, 0);
const OSLSR_EL1: RegId = RegId::system(2, 0, 1, 1, 4);
const CCSIDR: RegId = RegId(0x6020_0000_0011_0000);
const UNGATED: &[Service] =
    &[Service { function: 0x8400_0050, gate: None, answer: Answer::Values([0x1_0000, 0, 0, 0]) }];

/// Gives one register another row.
fn change_row(release: &mut Release, id: RegId, change: impl FnOnce(&mut Row)) {
    let mut row = Row { ids: Ids::One(id), ..*release.row(id) };
    change(&mut row);
    let first: &'static [Row] = Vec::leak(vec![row]);
    let rows = std::iter::once(first).chain(release.rows.iter().copied());
    release.rows = Vec::leak(rows.collect());
}
