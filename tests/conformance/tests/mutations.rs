//! Each rule of the model, flipped, makes the suite fail: no rule is there without
//! a case or a fact that speaks for it.

use kedge_conformance::{Model, suite};
use kedge_hv::{GicVersion, MpState};
use kedge_hv_model::{
    Ability, Answer, AtVcpuCreation, BitmapOrder, CpuOnReset, FailedRun, Freeze, FrozenBy, Ids,
    Istatus, ModelHypervisor, PSCI_0_1, PowerOff, RELEASES, Recording, Refusal, Release, Row, Rule,
    Scope, Service, UnreadyPmu, V5_10, V6_1, V6_12, V7_2, WidthOf, id,
};
use kedge_ids::RegId;

/// A rule, and how it would read wrongly.
struct Mutation {
    name: &'static str,
    of: Release,
    change: fn(&mut Release),
}

const fn mutation(name: &'static str, of: Release, change: fn(&mut Release)) -> Mutation {
    Mutation { name, of, change }
}

/// An errno that no rule has.
const WRONG: i32 = libc::EBADFD;

const MUTATIONS: &[Mutation] = &[
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
    }),
    mutation("SVE state needs no finalization", V7_2, |r| {
        change_row(r, RegId(0x6080_0000_0015_0000), |row| row.rule = Rule::Stored);
    }),
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
];

const PFR0_EL1: RegId = RegId::system(3, 0, 0, 4, 0);
const MIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 0);
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

/// What fails when `release` is taken for `of`, on hosts with either controller.
fn first_failure(release: &Release, of: &Release) -> Option<String> {
    let host = Recording::parse(of.recording).expect("a recording made by a program");
    [GicVersion::V3, GicVersion::V2].into_iter().find_map(|gic| {
        let model = |release| Model(ModelHypervisor::on(release, host.clone(), &[gic]));
        suite::first_failure(&model(release), &model(of)).expect("the model makes plain machines")
    })
}

/// The names of those mutations that nothing notices.
fn unnoticed<T: Sync>(
    mutations: &[T],
    name: impl Fn(&T) -> String + Sync,
    failure: impl Fn(&T) -> Option<String> + Sync,
) -> Vec<String> {
    std::thread::scope(|scope| {
        let halves = mutations.chunks(mutations.len().div_ceil(4));
        let unnoticed = |half: &[T]| {
            let all = half.iter().filter(|mutation| failure(mutation).is_none());
            all.map(&name).collect::<Vec<_>>()
        };
        let workers: Vec<_> = halves.map(|half| scope.spawn(move || unnoticed(half))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no case panics")).collect()
    })
}

#[test]
fn the_releases_themselves_pass() {
    for release in RELEASES {
        assert_eq!(first_failure(release, release), None, "{}", release.name);
    }
}

#[test]
fn every_flipped_rule_is_noticed() {
    let failure = |mutation: &Mutation| {
        let mut release = mutation.of.clone();
        (mutation.change)(&mut release);
        first_failure(&release, &mutation.of)
    };
    assert_eq!(unnoticed(MUTATIONS, |m| m.name.to_owned(), failure), [""; 0]);
}

#[test]
fn every_wrong_errno_is_noticed() {
    let failure = |refusal: &Refusal| {
        let errnos: &'static [(Refusal, i32)] = Vec::leak(vec![(*refusal, WRONG)]);
        // What one release cannot refuse, another can.
        let of = [V7_2, V5_10];
        of.iter().find_map(|of| first_failure(&Release { errnos, ..of.clone() }, of))
    };
    assert_eq!(unnoticed(Refusal::ALL, |refusal| format!("{refusal:?}"), failure), [""; 0]);
}
