//! The rules of the model, each flipped: a suite that means something notices every
//! one of them, against the model as it was and against the kernel it stands for.

use kedge_hv::{MpState, Timer};
use kedge_hv_model::{
    Ability, AbsentMonitors, Answer, AtVcpuCreation, BitmapOrder, CpuOnReset, EmptyRange,
    FailedRun, FirstRun, Freeze, FrozenBy, Hiding, Ids, Istatus, PSCI_0_1, PowerOff, Release, Row,
    Rule, SErrorTaken, Scope, Service, UnreadyPmu, V5_10, V6_1, V6_12, V7_2, WidthOf, id,
};
use kedge_ids::RegId;

use crate::facts::PAIRS;

mod errnos;

pub use errnos::{WRONG_ERRNOS, WrongErrno};

/// A rule, and how it would read wrongly.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// What it says then.
    pub name: &'static str,
    /// The release whose rule it is.
    pub of: Release,
    /// What speaks for the rule: a case, or a group of facts.
    pub clue: &'static str,
    change: fn(&mut Release),
}

impl Mutation {
    /// `release`, which has the rule, wrong in it.
    pub fn mutated(&self, release: &Release) -> Release {
        let mut release = release.clone();
        (self.change)(&mut release);
        release
    }

    /// Whether that is another release than it is.
    pub fn flips(&self, release: &Release) -> bool {
        // Releases are plain data: all of one is in its text.
        format!("{:?}", self.mutated(release)) != format!("{release:?}")
    }
}

const fn mutation(
    name: &'static str,
    of: Release,
    clue: &'static str,
    change: fn(&mut Release),
) -> Mutation {
    Mutation { name, of, clue, change }
}

/// Every rule, flipped on a release that has it.
pub const MUTATIONS: &[Mutation] = &[
    mutation("a newer PSCI version", V6_12, "firmware registers", |r| r.psci = V7_2.psci),
    mutation("an older PSCI version", V6_1, "firmware registers", |r| r.psci = V5_10.psci),
    mutation(
        "PSCI 0.1 can be chosen",
        V5_10,
        "versions_that_psci_does_not_have_are_refused",
        |r| r.psci = &[PSCI_0_1, 2, 0x1_0000],
    ),
    mutation("the PSCI version freezes", V7_2, "the_psci_version_is_never_frozen", |r| {
        change_row(r, RegId::PSCI_VERSION, |row| row.freeze = Freeze::Run);
    }),
    mutation("the PSCI version is a vCPU's", V7_2, "the_psci_version_is_the_whole_machines", |r| {
        change_row(r, RegId::PSCI_VERSION, |row| row.scope = Scope::Vcpu);
    }),
    mutation("any PSCI version goes", V7_2, "versions_that_psci_does_not_have_are_refused", |r| {
        change_row(r, RegId::PSCI_VERSION, |row| row.rule = Rule::Stored);
    }),
    mutation(
        "a workaround level is stored",
        V7_2,
        "a_workaround_level_up_to_the_hosts_is_accepted_and_dropped",
        |r| {
            change_row(r, id::WORKAROUND_1, |row| row.rule = Rule::Stored);
        },
    ),
    mutation(
        "a workaround level has more bits",
        V7_2,
        "a_workaround_level_above_the_hosts_is_refused",
        |r| {
            change_row(r, id::WORKAROUND_3, |row| row.rule = Rule::Ignored);
        },
    ),
    mutation("workaround 2 is as the others", V7_2, "workaround_2_tells_two_levels_apart", |r| {
        change_row(r, id::WORKAROUND_2, |row| row.rule = Rule::Level(0xf));
    }),
    mutation("a bitmap is born empty", V6_1, "bitmaps_are_born_full_or_empty", |r| {
        change_row(r, id::VENDOR_HYP_BMAP, |row| *row = row.born(&[0]));
    }),
    mutation("the late bitmap is born full", V7_2, "bitmaps_are_born_full_or_empty", |r| {
        change_row(r, id::VENDOR_HYP_BMAP_2, |row| *row = row.born(&[3]));
    }),
    mutation("a bitmap knows another bit", V6_12, "bitmaps_are_born_full_or_empty", |r| {
        let order = BitmapOrder::UnknownFirst;
        change_row(r, id::STD_BMAP, |row| row.rule = Rule::Bitmap { known: 3, order });
    }),
    mutation(
        "a bitmap notices the freeze first",
        V6_12,
        "a_frozen_bitmap_still_refuses_unknown_bits_first",
        |r| {
            let order = BitmapOrder::FrozenFirst;
            change_row(r, id::STD_BMAP, |row| row.rule = Rule::Bitmap { known: 1, order });
        },
    ),
    mutation("a bitmap never freezes", V6_12, "bitmaps_freeze_at_the_first_run", |r| {
        change_row(r, id::STD_HYP_BMAP, |row| row.freeze = Freeze::Never);
    }),
    mutation(
        "a frozen bitmap refuses its own value",
        V6_12,
        "a_frozen_bitmap_accepts_the_value_it_has",
        |r| {
            change_row(r, id::STD_HYP_BMAP, |row| row.freeze = Freeze::RunEvenIfEqual);
        },
    ),
    mutation("a bitmap is a vCPU's", V6_1, "bitmaps_are_the_whole_machines", |r| {
        change_row(r, id::VENDOR_HYP_BMAP, |row| row.scope = Scope::Vcpu);
    }),
    mutation("a bitmap is missing", V7_2, "firmware registers", |r| r.rows = V6_12.rows),
    mutation("an ID register is a vCPU's", V6_12, "scopes", |r| {
        change_row(r, PFR0_EL1, |row| row.scope = Scope::Vcpu);
    }),
    mutation("an ID register never freezes", V6_12, "frozen id registers", |r| {
        change_row(r, PFR0_EL1, |row| row.freeze = Freeze::Never);
    }),
    mutation(
        "a frozen ID register refuses its own value",
        V7_2,
        "id_registers_are_accepted_as_they_are_before_and_after_the_first_run",
        |r| {
            change_row(r, PFR0_EL1, |row| row.freeze = Freeze::RunEvenIfEqual);
        },
    ),
    mutation("an ID register freezes on an old kernel", V5_10, "frozen id registers", |r| {
        change_row(r, PFR0_EL1, |row| row.freeze = Freeze::Run);
    }),
    mutation(
        "an ID register takes anything",
        V7_2,
        "an_id_register_does_not_take_more_than_the_host_has",
        |r| {
            change_row(r, PFR0_EL1, |row| row.rule = Rule::Stored);
        },
    ),
    mutation("the main ID register takes anything", V7_2, "the_main_id_register_is_fixed", |r| {
        change_row(r, MIDR_EL1, |row| row.rule = Rule::Ignored);
    }),
    mutation(
        "the affinity is the machine's",
        V7_2,
        "the_affinity_can_be_set_for_each_vcpu_at_any_time",
        |r| {
            change_row(r, RegId::MPIDR_EL1, |row| row.scope = Scope::Vm);
        },
    ),
    mutation(
        "the affinity freezes",
        V7_2,
        "the_affinity_can_be_set_for_each_vcpu_at_any_time",
        |r| {
            change_row(r, RegId::MPIDR_EL1, |row| row.freeze = Freeze::Run);
        },
    ),
    mutation("OSLSR takes anything", V7_2, "scopes", |r| {
        change_row(r, OSLSR_EL1, |row| row.rule = Rule::Stored);
    }),
    mutation(
        "cache sizes are fixed",
        V6_12,
        "cache_registers_are_all_fixed_or_all_writable",
        |r| {
            change_row(r, CCSIDR, |row| row.rule = Rule::Fixed);
        },
    ),
    mutation("cache sizes are not fixed", V6_1, "sizes of caches", |r| {
        change_row(r, CCSIDR, |row| row.rule = Rule::CacheSize);
    }),
    mutation("lines of a cache are as short as one likes", V7_2, "sizes of caches", |r| {
        change_row(r, CCSIDR, |row| row.rule = Rule::Stored);
    }),
    mutation("a cache's size is the machine's", V6_12, "sizes of caches", |r| {
        change_row(r, CCSIDR, |row| row.scope = Scope::Vm);
    }),
    mutation("the counter is a vCPU's", V6_12, "the_counter_is_the_whole_machines", |r| {
        change_row(r, id::TIMER_CNT, |row| row.scope = Scope::Vcpu);
    }),
    mutation(
        "the counter goes on over another vCPU",
        V6_12,
        "creating_a_vcpu_starts_the_counter_again",
        |r| {
            let rule = Rule::Counter(AtVcpuCreation::Kept);
            change_row(r, id::TIMER_CNT, |row| row.rule = rule);
        },
    ),
    mutation("the counter stands still", V6_12, "the_counter_runs_on_from_what_was_written", |r| {
        change_row(r, id::TIMER_CNT, |row| row.rule = Rule::Stored);
    }),
    mutation("a due timer hides it", V6_12, "timers", |r| {
        change_row(r, id::TIMER_CTL, |row| row.rule = Rule::TimerControl(Istatus::Hidden));
    }),
    mutation("a due timer shows it", V7_2, "timers", |r| {
        change_row(r, id::TIMER_CTL, |row| row.rule = Rule::TimerControl(Istatus::Computed));
    }),
    mutation("the processor has any mode", V7_2, "scopes", |r| {
        change_row(r, RegId::PSTATE, |row| row.rule = Rule::Stored);
    }),
    mutation(
        "vector lengths are arbitrary",
        V7_2,
        "a_length_in_the_middle_cannot_be_left_out",
        |r| {
            change_row(r, RegId::SVE_VLS, |row| row.rule = Rule::Stored);
        },
    ),
    mutation(
        "SVE state needs no finalization",
        V7_2,
        "sve_state_is_out_of_reach_before_finalization",
        |r| {
            change_row(r, RegId(0x6080_0000_0015_0000), |row| row.rule = Rule::Stored);
        },
    ),
    mutation("a feature more", V7_2, "features", |r| r.features |= 1 << 9),
    mutation("a feature less", V7_2, "features", |r| r.features &= !(1 << 8)),
    mutation("features are a vCPU's", V6_12, "features", |r| r.feature_scope = Scope::Vcpu),
    mutation("features are the machine's", V6_1, "features", |r| r.feature_scope = Scope::Vm),
    mutation("being born off is compared", V6_12, "vcpus_may_differ_in_being_born_off", |r| {
        r.power_off = PowerOff::Compared;
    }),
    mutation("being born off is ephemeral", V6_1, "initialising again", |r| {
        r.power_off = PowerOff::Ephemeral;
    }),
    mutation(
        "vCPUs can be suspended",
        V5_10,
        "suspending_a_vcpu_and_the_system_came_together",
        |r| r.mp_states = V6_1.mp_states,
    ),
    mutation(
        "vCPUs cannot be suspended",
        V6_1,
        "suspending_a_vcpu_and_the_system_came_together",
        |r| r.mp_states = V5_10.mp_states,
    ),
    mutation("vCPUs cannot be stopped", V6_1, "power states", |r| {
        r.mp_states = &[MpState::Runnable];
    }),
    mutation(
        "systems can be suspended",
        V5_10,
        "suspending_a_vcpu_and_the_system_came_together",
        |r| r.system_suspend = Ability::Present,
    ),
    mutation(
        "systems cannot be suspended",
        V6_1,
        "suspending_a_vcpu_and_the_system_came_together",
        |r| r.system_suspend = Ability::Absent,
    ),
    mutation("guest code freezes", V6_12, "bitmaps_freeze_at_the_first_run", |r| {
        r.frozen_by = FrozenBy::GuestCode;
    }),
    mutation("a missing controller is not noticed", V6_12, "controllers in id registers", |r| {
        r.without_gic = &[];
    }),
    mutation("a missing controller is noticed", V6_1, "controllers in id registers", |r| {
        r.without_gic = V6_12.without_gic;
    }),
    mutation("a failed run can be mended", V7_2, "unready controllers", |r| {
        r.failed_run = FailedRun::CanBeMended;
    }),
    mutation("a failed run kills", V5_10, "unready controllers", |r| {
        r.failed_run = FailedRun::KillsMachine;
    }),
    mutation("an unready PMU runs", V6_1, "unready pmus", |r| r.unready_pmu = UnreadyPmu::Runs),
    mutation("an unready PMU does not run", V5_10, "unready pmus", |r| {
        r.unready_pmu = UnreadyPmu::Refused;
    }),
    mutation("monitors that there are not read as zero", V6_1, "what guests read", |r| {
        r.absent_monitors = AbsentMonitors::ReadAsZero;
    }),
    mutation("monitors that there are not are undefined", V5_10, "what guests read", |r| {
        r.absent_monitors = AbsentMonitors::Undefined;
    }),
    mutation("a run lets events be hidden", V6_1, "hidden events", |r| {
        r.hiding = Hiding::UntilReady;
    }),
    mutation("a run lets no events be hidden", V5_10, "hidden events", |r| {
        r.hiding = Hiding::UntilRun;
    }),
    mutation("every vCPU decides the width", V6_1, "register widths", |r| {
        r.width_of = WidthOf::EveryVcpu;
    }),
    mutation("the first vCPU decides the width", V5_10, "register widths", |r| {
        r.width_of = WidthOf::FirstInitialised;
    }),
    mutation("CPU_ON shows late", V7_2, "cpu_on", |r| r.cpu_on_reset = CpuOnReset::WhenRun),
    mutation("the firmware answers less", V6_12, "firmware calls", |r| r.services = V5_10.services),
    mutation("the firmware answers more", V5_10, "firmware calls", |r| r.services = V6_12.services),
    mutation("a call without its switch", V6_12, "a_handled_call_stays_behind_its_switch", |r| {
        r.services = UNGATED;
    }),
    mutation("calls can be filtered", V6_1, "a_host_without_a_filter_says_so", |r| {
        r.smccc_filter = Ability::Present;
    }),
    mutation("calls cannot be filtered", V6_12, "abilities", |r| r.smccc_filter = Ability::Absent),
    mutation("smc is a call", V6_1, "calls by smc", |r| r.smc_calls = Ability::Present),
    mutation("smc is no call", V6_12, "a_forwarded_call_can_come_by_smc", |r| {
        r.smc_calls = Ability::Absent;
    }),
    mutation("counters have an offset", V6_1, "a_host_without_offsets_refuses_one", |r| {
        r.counter_offset = Ability::Present;
    }),
    mutation("counters have no offset", V6_12, "abilities", |r| r.counter_offset = Ability::Absent),
    mutation(
        "main id registers can be chosen",
        V6_12,
        "a_host_whose_main_id_registers_are_fixed_says_so",
        |r| {
            r.writable_imp_ids = Ability::Present;
        },
    ),
    mutation("main id registers cannot be chosen", V7_2, "abilities", |r| {
        r.writable_imp_ids = Ability::Absent;
    }),
    mutation(
        "a main id register has fewer bits",
        V7_2,
        "main_id_registers_take_any_value_of_their_width",
        |r| {
            change_row(r, MIDR_EL1, |row| row.rule = Rule::ImpId(0xffff));
        },
    ),
    mutation(
        "a chosen main id register never freezes",
        V7_2,
        "main_id_registers_freeze_at_the_first_run",
        |r| {
            change_row(r, MIDR_EL1, |row| row.freeze = Freeze::Never);
        },
    ),
    mutation(
        "a chosen main id register is a vCPU's",
        V7_2,
        "main_id_registers_are_the_whole_machines",
        |r| {
            change_row(r, REVIDR_EL1, |row| row.scope = Scope::Vcpu);
        },
    ),
    mutation("masks are told", V6_1, "abilities", |r| r.id_masks = Ability::Present),
    mutation("masks are not told", V6_12, "abilities", |r| r.id_masks = Ability::Absent),
    mutation("the distributor has a third revision", V5_10, "revisions of the distributor", |r| {
        r.gic_revisions = &[2, 3];
    }),
    mutation("the distributor has no third revision", V6_1, "revisions of the distributor", |r| {
        r.gic_revisions = &[2];
    }),
    mutation(
        "the distributor's revision can be had early",
        V6_12,
        "revisions of the distributor",
        |r| {
            r.early_revision = Ability::Present;
        },
    ),
    mutation(
        "the distributor's revision cannot be had early",
        V7_2,
        "revisions of the distributor",
        |r| {
            r.early_revision = Ability::Absent;
        },
    ),
    mutation(
        "pending interrupts cannot be saved early",
        V5_10,
        "registers before initialisation",
        |r| {
            r.early_pending_tables = Ability::Absent;
        },
    ),
    mutation(
        "pending interrupts can be saved early",
        V6_12,
        "registers before initialisation",
        |r| {
            r.early_pending_tables = Ability::Present;
        },
    ),
    mutation("timers' interrupts are the machine's", V6_1, "interrupts of timers", |r| {
        r.timer_ppis = Scope::Vm;
    }),
    mutation("timers' interrupts are a vCPU's", V6_12, "interrupts of timers", |r| {
        r.timer_ppis = Scope::Vcpu;
    }),
    mutation("the physical timer claims first", V6_1, "interrupts of timers", |r| {
        r.timer_claims = [Timer::Physical, Timer::Virtual];
    }),
    mutation("the virtual timer claims first", V7_2, "interrupts of timers", |r| {
        r.timer_claims = [Timer::Virtual, Timer::Physical];
    }),
    mutation("a failed first run is tried again", V5_10, "interrupts of timers", |r| {
        r.first_run = FirstRun::Repeated;
    }),
    mutation("a failed first run is not tried again", V6_12, "interrupts of timers", |r| {
        r.first_run = FirstRun::TriedOnce;
    }),
    mutation("an empty range is nothing", V6_12, "ranges of a filter", |r| {
        r.empty_range = EmptyRange::Nothing;
    }),
    mutation("an empty range is everything", V7_2, "ranges of a filter", |r| {
        r.empty_range = EmptyRange::Everything;
    }),
    mutation("a controller does not show", V7_2, "id registers that depend on others", |r| {
        r.gic_fields = &[];
    }),
    mutation("a controller shows", V6_12, "id registers that depend on others", |r| {
        r.gic_fields = V7_2.gic_fields;
    }),
    mutation("serrors come early", V7_2, "vcpus before initialisation", |r| {
        r.early_serror = Ability::Present;
    }),
    mutation("serrors do not come early", V6_1, "vcpus before initialisation", |r| {
        r.early_serror = Ability::Absent;
    }),
    mutation("serrors are taken at once", V6_12, "serrors", |r| {
        r.serror_taken = SErrorTaken::AtOnce;
    }),
    mutation("serrors wait for a run", V7_2, "serrors", |r| r.serror_taken = SErrorTaken::WhenRun),
    mutation("the pmu's control takes anything", V6_12, "control of the pmu", |r| {
        change_row(r, PMCR_EL0, |row| row.rule = Rule::Stored);
    }),
    mutation("the pmu's counters can be chosen", V6_1, "control of the pmu", |r| {
        change_row(r, PMCR_EL0, |row| row.rule = Rule::PmuControl);
    }),
    mutation("counters' bits are assigned", V6_12, COUNTERS, |r| swap(r, V7_2)),
    mutation("counters' bits are set and cleared", V7_2, COUNTERS, |r| swap(r, V6_12)),
    mutation("bits of no counter are kept", V7_2, COUNTERS, |r| swap(r, V6_1)),
    mutation("bits of no counter are dropped", V6_1, COUNTERS, |r| swap(r, V7_2)),
    mutation(
        "the physical counter starts with a vCPU",
        V6_12,
        "the_physical_counter_is_the_hosts_until_it_is_written",
        |r| {
            let rule = Rule::Counter(AtVcpuCreation::Restarts);
            change_row(r, id::PTIMER_CNT, |row| row.rule = rule);
        },
    ),
    mutation(
        "the physical counter is a vCPU's",
        V7_2,
        "the_physical_counter_is_the_whole_machines",
        |r| {
            change_row(r, id::PTIMER_CNT, |row| row.scope = Scope::Vcpu);
        },
    ),
];

const PFR0_EL1: RegId = RegId::system(3, 0, 0, 4, 0);
const MIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 0);
const REVIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 6);
const PMCR_EL0: RegId = RegId::system(3, 3, 9, 12, 0);
const OSLSR_EL1: RegId = RegId::system(2, 0, 1, 1, 4);
const CCSIDR: RegId = RegId(0x6020_0000_0011_0000);
const UNGATED: &[Service] =
    &[Service { function: 0x8400_0050, gate: None, answer: Answer::Values([0x1_0000, 0, 0, 0]) }];

const COUNTERS: &str = "counters in the monitors' registers";

/// Has performance counters' bits be written as in another release.
#[expect(clippy::needless_pass_by_value, reason = "it is one of few constants")]
fn swap(release: &mut Release, other: Release) {
    for id in PAIRS.into_iter().flatten() {
        change_row(release, id, |row| row.rule = other.row(id).rule);
    }
}

/// Gives one register another row.
fn change_row(release: &mut Release, id: RegId, change: impl FnOnce(&mut Row)) {
    let mut row = Row { ids: Ids::One(id), ..*release.row(id) };
    change(&mut row);
    let first: &'static [Row] = Vec::leak(vec![row]);
    let rows = std::iter::once(first).chain(release.rows.iter().copied());
    release.rows = Vec::leak(rows.collect());
}
