//! The four releases that kedge is tested on, as rows. The rules are those of
//! Linux' `arch/arm64/kvm` and were compared with running kernels by the
//! conformance suite; the kernel is right.

use kedge_hv::{MpState, Timer};
use kedge_ids::RegId;

use crate::refusal::Refusal;
use crate::release::{
    Ability, AbsentMonitors, Answer, AtVcpuCreation, Birth, BitmapOrder, CounterBits, CpuOnReset,
    EmptyRange, FailedRun, FirstRun, FrozenBy, Hiding, Ids, Istatus, PowerOff, Release, Row, Rule,
    SErrorTaken, Scope, Service, UnreadyPmu, WidthOf,
};

/// Register ids that the rows name.
#[rustfmt::skip]
pub mod id {
    use kedge_ids::RegId;

    const fn fw(index: u64) -> RegId { RegId(0x6030_0000_0014_0000 | index) }
    const fn bitmap(index: u64) -> RegId { RegId(0x6030_0000_0016_0000 | index) }

    /// Mitigation of Spectre v2.
    pub const WORKAROUND_1:      RegId = fw(1);
    /// Mitigation of Spectre v4.
    pub const WORKAROUND_2:      RegId = fw(2);
    /// Mitigation of Spectre-BHB.
    pub const WORKAROUND_3:      RegId = fw(3);
    /// Standard secure services: the TRNG.
    pub const STD_BMAP:          RegId = bitmap(0);
    /// Standard hypervisor services: PV time.
    pub const STD_HYP_BMAP:      RegId = bitmap(1);
    /// Services of KVM's own.
    pub const VENDOR_HYP_BMAP:   RegId = bitmap(2);
    /// Services of KVM's own, from function 64 on.
    pub const VENDOR_HYP_BMAP_2: RegId = bitmap(3);

    /// CNTVCT. The ABI has it and the next swapped, against their encodings.
    pub const TIMER_CNT:  RegId = RegId::system(3, 3, 14, 3, 2);
    /// CNTV_CVAL.
    pub const TIMER_CVAL: RegId = RegId::system(3, 3, 14, 0, 2);
    /// CNTV_CTL.
    pub const TIMER_CTL:  RegId = RegId::system(3, 3, 14, 3, 1);
    /// CNTPCT.
    pub const PTIMER_CNT:  RegId = RegId::system(3, 3, 14, 0, 1);
    /// CNTP_CVAL.
    pub const PTIMER_CVAL: RegId = RegId::system(3, 3, 14, 2, 2);
    /// CNTP_CTL.
    pub const PTIMER_CTL:  RegId = RegId::system(3, 3, 14, 2, 1);
}

const fn one(id: RegId, rule: Rule) -> Row {
    Row::of(Ids::One(id), rule)
}

const fn bitmap(id: RegId, known: u64, birth: &'static [u8]) -> Row {
    one(id, Rule::Bitmap { known, order: BitmapOrder::UnknownFirst })
        .whole_vm()
        .frozen_by_run()
        .born(birth)
}

const fn system(first: (u64, u64), last: (u64, u64), rule: Rule) -> Row {
    let first = RegId::system(3, 0, 0, first.0, first.1);
    Row::of(Ids::Range(first, RegId::system(3, 0, 0, last.0, last.1)), rule)
}

const PMCR_EL0: RegId = RegId::system(3, 3, 9, 12, 0);
const CLIDR_EL1: RegId = RegId::system(3, 1, 0, 0, 1);
const CTR_EL0: RegId = RegId::system(3, 3, 0, 0, 1);
const MIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 0);
const REVIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 6);
const AIDR_EL1: RegId = RegId::system(3, 1, 0, 0, 7);
const ID_PFR1_EL1: RegId = RegId::system(3, 0, 0, 1, 1);
const ID_AA64PFR0_EL1: RegId = RegId::system(3, 0, 0, 4, 0);
const OSLSR_EL1: RegId = RegId::system(2, 0, 1, 1, 4);
const DEMUX: Ids = Ids::Range(RegId(0x6020_0000_0011_0000), RegId(0x6020_0000_0011_ffff));
const SVE_STATE: Ids = Ids::Range(RegId(0x6080_0000_0015_0000), RegId(0x6080_0000_0015_03ff));
const SVE_PREDICATES: Ids = Ids::Range(RegId(0x6050_0000_0015_0400), RegId(0x6050_0000_0015_0600));

/// Rules of every release.
pub const COMMON: &[Row] = &[
    one(RegId::PSCI_VERSION, Rule::PsciVersion).whole_vm().born(&[0]),
    one(RegId::PSTATE, Rule::ProcessorState),
    one(id::WORKAROUND_1, Rule::Level(0xf)),
    one(id::WORKAROUND_2, Rule::SsbdLevel),
    one(id::WORKAROUND_3, Rule::Level(0xf)),
    Row { birth: Birth::Identity, ..one(RegId::MPIDR_EL1, Rule::Stored) },
    one(OSLSR_EL1, Rule::Masked(1 << 1)),
    one(id::TIMER_CNT, Rule::Counter(AtVcpuCreation::Restarts)).whole_vm(),
    one(id::PTIMER_CNT, Rule::Counter(AtVcpuCreation::FollowsHost)).whole_vm(),
    one(RegId::SVE_VLS, Rule::VectorLengths),
    Row::of(SVE_STATE, Rule::SveState),
    Row::of(SVE_PREDICATES, Rule::SveState),
];

/// Timers that say when they are due, even if they are off.
const TIMERS: &[Row] = &[
    one(id::TIMER_CTL, Rule::TimerControl(Istatus::Computed)),
    one(id::PTIMER_CTL, Rule::TimerControl(Istatus::Computed)),
];

/// Timers of Linux 7, which leave it to the guest to see that they are due.
const TIMERS_7: &[Row] = &[
    one(id::TIMER_CTL, Rule::TimerControl(Istatus::Hidden)),
    one(id::PTIMER_CTL, Rule::TimerControl(Istatus::Hidden)),
];

/// The main ID registers: the host's, and the machine's where its user could say so
/// (Linux 6.15) and did.
const IMP_IDS: &[Row] = &[
    one(MIDR_EL1, Rule::ImpId(0xffff_ffff)).whole_vm().frozen_by_run(),
    one(REVIDR_EL1, Rule::ImpId(u64::MAX)).whole_vm().frozen_by_run(),
    one(AIDR_EL1, Rule::ImpId(u64::MAX)).whole_vm().frozen_by_run(),
];

/// Identification before Linux 6.3: all of the host's, but for two fields.
const IDENTITY: &[Row] = &[
    system((1, 0), (7, 7), Rule::Fields).whole_vm(),
    one(CLIDR_EL1, Rule::Fixed),
    one(CTR_EL0, Rule::Fixed),
    Row::of(DEMUX, Rule::Fixed),
];

/// Identification since Linux 6.11: held by the machine, fields can be lowered; and
/// with it the number of performance counters.
const IDENTITY_WRITABLE: &[Row] = &[
    system((1, 0), (7, 7), Rule::Fields).whole_vm().frozen_by_run(),
    one(CLIDR_EL1, Rule::Fields),
    one(CTR_EL0, Rule::Fields).whole_vm().frozen_by_run(),
    one(PMCR_EL0, Rule::PmuControl),
    Row::of(DEMUX, Rule::CacheSize),
];

/// The performance counters' bits: of each two registers, the one that sets bits first.
const COUNTER_BITS: [[RegId; 2]; 3] = [
    [RegId::system(3, 3, 9, 12, 1), RegId::system(3, 3, 9, 12, 2)], // PMCNTENSET, PMCNTENCLR
    [RegId::system(3, 3, 9, 14, 3), RegId::system(3, 3, 9, 12, 3)], // PMOVSSET, PMOVSCLR
    [RegId::system(3, 0, 9, 14, 1), RegId::system(3, 0, 9, 14, 2)], // PMINTENSET, PMINTENCLR
];

const fn counter_bits([set, clear]: [CounterBits; 2]) -> [Row; 6] {
    const fn of(set: RegId, id: RegId, written: CounterBits) -> Row {
        one(id, Rule::CounterBits { held_by: set, written })
    }
    let [[a, b], [c, d], [e, f]] = COUNTER_BITS;
    [of(a, a, set), of(a, b, clear), of(c, c, set), of(c, d, clear), of(e, e, set), of(e, f, clear)]
}

/// Performance monitors whose registers hold what is written.
const MONITORS: &[Row] = &counter_bits([CounterBits::Any, CounterBits::Any]);

/// Those that a user writes as a guest does.
const MONITORS_AS_GUESTS: &[Row] = &counter_bits([CounterBits::Set, CounterBits::Cleared]);

/// Those of Linux 7, which are assigned to.
const MONITORS_7: &[Row] = &counter_bits([CounterBits::Assigned, CounterBits::Assigned]);

/// The increment by software, which only guests write: since Linux 6.1 or earlier.
const NO_INCREMENT: &[Row] = &[one(RegId::system(3, 3, 9, 12, 4), Rule::Ignored)];

/// The bitmaps of Linux 5.19: everything on, to be opted out of.
pub const BITMAPS: &[Row] = &[
    bitmap(id::STD_BMAP, 0x1, &[0x1]),
    bitmap(id::STD_HYP_BMAP, 0x1, &[0x1]),
    bitmap(id::VENDOR_HYP_BMAP, 0x3, &[0x3]),
];

/// The bitmap of Linux 6.15: everything off, to be opted in.
pub const BITMAPS_2: &[Row] = &[bitmap(id::VENDOR_HYP_BMAP_2, 0x3, &[0x0])];

const fn service(function: u32, gate: Option<(RegId, u64)>, answer: Answer) -> Service {
    Service { function, gate, answer }
}

const fn says(x0: u64) -> Answer {
    Answer::Values([x0, 0, 0, 0])
}

const TRNG: Option<(RegId, u64)> = Some((id::STD_BMAP, 1));
const PV_TIME: Option<(RegId, u64)> = Some((id::STD_HYP_BMAP, 1));
const VENDOR: Option<(RegId, u64)> = Some((id::VENDOR_HYP_BMAP, 1));
const PTP: Option<(RegId, u64)> = Some((id::VENDOR_HYP_BMAP, 2));
/// 0d21e000-4384-11eb-8070-5244554e5a4c, as four little-endian words.
const TRNG_UUID: Answer = Answer::Values([0xe0_210d, 0xeb11_8443, 0x4452_7080, 0x4c5a_4e55]);
/// 28b46fb6-2ec5-11e9-a9ca-4b564d003a74, as four words.
const KVM_UID: Answer = Answer::Values([0xb66f_b428, 0xe911_c52e, 0x564b_caa9, 0x743a_004d]);

/// The calls of Linux 5.10: no switches.
const SERVICES_OLD: &[Service] = &[
    service(0x8000_0000, None, says(0x1_0001)),
    service(0x8000_0001, None, Answer::ArchFeatures),
    service(0xc500_0020, None, Answer::PvTimeFeatures),
    service(0xc500_0021, None, Answer::PvTimeRecord),
];

/// The calls since Linux 5.19, each behind a bit of a bitmap. PTP has no clock here.
const SERVICES: &[Service] = &[
    service(0x8000_0000, None, says(0x1_0001)),
    service(0x8000_0001, None, Answer::ArchFeatures),
    service(0x8400_0050, TRNG, says(0x1_0000)),
    service(0x8400_0051, TRNG, Answer::TrngFeatures),
    service(0x8400_0052, TRNG, TRNG_UUID),
    service(0x8400_0053, TRNG, says(0)),
    service(0xc400_0053, TRNG, says(0)),
    service(0xc500_0020, PV_TIME, Answer::PvTimeFeatures),
    service(0xc500_0021, PV_TIME, Answer::PvTimeRecord),
    service(0x8600_0000, VENDOR, Answer::VendorFeatures),
    service(0x8600_ff01, VENDOR, KVM_UID),
    service(0x8600_0001, PTP, says(0)),
];

/// Linux 5.10, the oldest release kedge runs on.
pub const V5_10: Release = Release {
    name: "5.10",
    recording: include_str!("../recordings/max-5.10.host"),
    rows: &[COMMON, TIMERS, IMP_IDS, IDENTITY, MONITORS],
    unlisted: &[],
    hidden: &[],
    psci: &[0x2, 0x1_0000],
    services: SERVICES_OLD,
    features: 0x7f,
    feature_scope: Scope::Vcpu,
    power_off: PowerOff::Compared,
    mp_states: &[MpState::Runnable, MpState::Stopped],
    system_suspend: Ability::Absent,
    smccc_filter: Ability::Absent,
    smc_calls: Ability::Absent,
    counter_offset: Ability::Absent,
    writable_imp_ids: Ability::Absent,
    id_masks: Ability::Absent,
    gic_revisions: &[2],
    timer_ppis: Scope::Vcpu,
    timer_claims: [Timer::Virtual, Timer::Physical],
    first_run: FirstRun::TriedOnce,
    empty_range: EmptyRange::Everything,
    early_revision: Ability::Absent,
    early_pending_tables: Ability::Present,
    gic_fields: &[],
    early_serror: Ability::Present,
    serror_taken: SErrorTaken::WhenRun,
    frozen_by: FrozenBy::RunCall,
    without_gic: &[],
    failed_run: FailedRun::CanBeMended,
    unready_pmu: UnreadyPmu::Runs,
    hiding: Hiding::UntilReady,
    absent_monitors: AbsentMonitors::ReadAsZero,
    width_of: WidthOf::EveryVcpu,
    cpu_on_reset: CpuOnReset::WhenRead,
    errnos: &[(Refusal::NoCpuRegister, libc::ENXIO)],
};

/// Linux 6.1.
pub const V6_1: Release = Release {
    name: "6.1",
    recording: include_str!("../recordings/max-6.1.host"),
    rows: &[COMMON, TIMERS, IMP_IDS, IDENTITY, MONITORS, NO_INCREMENT, BITMAPS],
    psci: &[0x2, 0x1_0000, 0x1_0001],
    services: SERVICES,
    mp_states: &[MpState::Runnable, MpState::Stopped, MpState::Suspended],
    system_suspend: Ability::Present,
    gic_revisions: &[2, 3],
    early_pending_tables: Ability::Absent,
    failed_run: FailedRun::KillsMachine,
    first_run: FirstRun::Repeated,
    unready_pmu: UnreadyPmu::Refused,
    hiding: Hiding::UntilRun,
    absent_monitors: AbsentMonitors::Undefined,
    width_of: WidthOf::FirstInitialised,
    errnos: &[],
    ..V5_10
};

/// Linux 6.12.
pub const V6_12: Release = Release {
    name: "6.12",
    recording: include_str!("../recordings/max-6.12.host"),
    rows: &[COMMON, TIMERS, IMP_IDS, IDENTITY_WRITABLE, MONITORS_AS_GUESTS, NO_INCREMENT, BITMAPS],
    feature_scope: Scope::Vm,
    power_off: PowerOff::Ephemeral,
    smccc_filter: Ability::Present,
    smc_calls: Ability::Present,
    counter_offset: Ability::Present,
    id_masks: Ability::Present,
    timer_ppis: Scope::Vm,
    timer_claims: [Timer::Physical, Timer::Virtual],
    without_gic: &[(ID_PFR1_EL1, 0xf << 28), (ID_AA64PFR0_EL1, 0xf << 24)],
    ..V6_1
};

/// Linux 7.2.
pub const V7_2: Release = Release {
    name: "7.2",
    recording: include_str!("../recordings/max-7.2.host"),
    rows: &[
        COMMON,
        TIMERS_7,
        IMP_IDS,
        IDENTITY_WRITABLE,
        MONITORS_7,
        NO_INCREMENT,
        BITMAPS,
        BITMAPS_2,
    ],
    psci: &[0x2, 0x1_0000, 0x1_0001, 0x1_0002, 0x1_0003],
    features: 0x1ff,
    writable_imp_ids: Ability::Present,
    empty_range: EmptyRange::Nothing,
    early_revision: Ability::Present,
    gic_fields: &[(ID_PFR1_EL1, 0xf << 28, 1 << 28), (ID_AA64PFR0_EL1, 0xf << 24, 1 << 24)],
    early_serror: Ability::Absent,
    serror_taken: SErrorTaken::AtOnce,
    errnos: &[(Refusal::GicTyper2, libc::EBUSY)],
    ..V6_12
};

/// The releases, oldest first.
pub const RELEASES: &[Release] = &[V5_10, V6_1, V6_12, V7_2];

/// The release called `name`, as in `6.12`.
pub fn release(name: &str) -> Option<&'static Release> {
    RELEASES.iter().find(|release| release.name == name)
}
