//! The vocabulary in which a kernel release is described: which rule a register
//! follows, whose it is, when it freezes, and with which errno the kernel
//! refuses what. The releases themselves are in `releases`.
//!
//! Everything is plain data, so that a kernel that does not exist yet is a
//! struct update away: `Release { psci: &[0x2, 0x1_0000], ..V7_2 }`.

use kedge_hv::{MpState, Timer};
use kedge_ids::RegId;

use crate::refusal::Refusal;

/// What KVM/arm64 does in one kernel release.
#[derive(Clone, Debug)]
pub struct Release {
    /// The version as `uname -r` begins: `6.12`.
    pub name: &'static str,
    /// A host under this release, as it was recorded (see `recording`).
    pub recording: &'static str,
    /// The rules of its registers, in groups. The first row that names a
    /// register counts; one that no row names is plain state of its vCPU.
    pub rows: &'static [&'static [Row]],
    /// Registers that it does not list, whatever the recorded host has.
    pub unlisted: &'static [Ids],
    /// Registers that are there only while a field of an ID register is not zero: the
    /// ID register, and the lowest bit of the field.
    pub hidden: &'static [(Ids, RegId, u32)],
    /// The PSCI versions it speaks, the newest last. A machine that asks for
    /// none gets the newest.
    pub psci: &'static [u64],
    /// The calls its firmware answers besides PSCI.
    pub services: &'static [Service],
    /// The vCPU features it knows, whatever the host can do.
    pub features: u32,
    /// Whether vCPUs of one machine may differ in their features.
    pub feature_scope: Scope,
    /// What becomes of the feature that leaves a vCPU powered off.
    pub power_off: PowerOff,
    /// The power states that can be written.
    pub mp_states: &'static [MpState],
    /// Whether PSCI SYSTEM_SUSPEND can be had.
    pub system_suspend: Ability,
    /// Whether calls of the firmware can be filtered.
    pub smccc_filter: Ability,
    /// Whether SMC is a call of the firmware as HVC is.
    pub smc_calls: Ability,
    /// Whether counters can be given an offset.
    pub counter_offset: Ability,
    /// Whether the main ID registers can be made the machine's.
    pub writable_imp_ids: Ability,
    /// Whether it tells which bits of ID registers can be changed.
    pub id_masks: Ability,
    /// The revisions of the interrupt distributor's behaviour that can be chosen. A
    /// machine that chooses none gets the newest, which is the last.
    pub gic_revisions: &'static [u32],
    /// Whose the timers' interrupts are. A vCPU's own are set on all vCPUs that there
    /// are, which must agree when one is run; and each forbids a change through itself
    /// only, once it has run.
    pub timer_ppis: Scope,
    /// In which order the timers claim their interrupts when a vCPU is run. What was
    /// claimed stays claimed, even where the second claim then fails.
    pub timer_claims: [Timer; 2],
    /// Whether a vCPU's first run is tried again once it failed for its interrupts.
    pub first_run: FirstRun,
    /// What a filter's range says that starts at 0 and holds nothing.
    pub empty_range: EmptyRange,
    /// Whether the revision of a GICv3's behaviour can be reached before it is
    /// initialised.
    pub early_revision: Ability,
    /// Whether a GICv3 writes its pending LPIs into the guest's memory before it is
    /// initialised.
    pub early_pending_tables: Ability,
    /// Fields of ID registers that say what controller there is: from its creation on,
    /// with this value for a GICv3 and 0 for a GICv2.
    pub gic_fields: &'static [(RegId, u64, u64)],
    /// Whether an SError can be told and made before a vCPU is initialised.
    pub early_serror: Ability,
    /// When a vCPU takes an SError that it does not mask.
    pub serror_taken: SErrorTaken,
    /// What freezes the firmware that the guest sees.
    pub frozen_by: FrozenBy,
    /// The fields of ID registers that the first run clears in a machine without
    /// an interrupt controller.
    pub without_gic: &'static [(RegId, u64)],
    /// What becomes of a machine whose interrupt controller was not ready when it
    /// was run.
    pub failed_run: FailedRun,
    /// What becomes of a vCPU whose performance monitors are not ready when it is
    /// run.
    pub unready_pmu: UnreadyPmu,
    /// Until when events of performance monitors can be hidden.
    pub hiding: Hiding,
    /// What becomes of a guest without performance monitors that reads their registers.
    pub absent_monitors: AbsentMonitors,
    /// Whose register width all vCPUs have to have.
    pub width_of: WidthOf,
    /// When a target of CPU_ON shows its new registers.
    pub cpu_on_reset: CpuOnReset,
    /// Where it refuses with another errno than [`Refusal::errno`].
    pub errnos: &'static [(Refusal, i32)],
}

impl Release {
    /// The row that rules `id`.
    pub fn row(&self, id: RegId) -> &'static Row {
        self.rows.iter().copied().flatten().find(|row| row.ids.contains(id)).unwrap_or(&Row::PLAIN)
    }

    /// The rows that rule one register each, with that register.
    pub fn single_rows(&self) -> impl Iterator<Item = (RegId, &'static Row)> {
        self.rows.iter().copied().flatten().filter_map(|row| match row.ids {
            Ids::One(id) if std::ptr::eq(self.row(id), row) => Some((id, row)),
            _ => None,
        })
    }

    /// Whether it lists this register at all.
    pub fn lists(&self, id: RegId) -> bool {
        !self.unlisted.iter().any(|ids| ids.contains(id))
    }

    /// The errno with which it refuses.
    pub fn errno(&self, refusal: Refusal) -> i32 {
        let own = self.errnos.iter().find(|(which, _)| *which == refusal);
        own.map_or(refusal.errno(), |(_, errno)| *errno)
    }

    /// The newest PSCI version it speaks.
    pub fn newest_psci(&self) -> u64 {
        self.psci.last().copied().unwrap_or(PSCI_0_1)
    }
}

/// PSCI 0.1, the version of a vCPU without the feature `psci-0.2`.
pub const PSCI_0_1: u64 = 1;

/// The rule of some registers.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which ones.
    pub ids: Ids,
    /// What a write does.
    pub rule: Rule,
    /// Who holds the value.
    pub scope: Scope,
    /// Until when it can change.
    pub freeze: Freeze,
    /// The value it is born with.
    pub birth: Birth,
}

impl Row {
    /// A register that holds what is written to it, one for each vCPU.
    pub const PLAIN: Self = Self {
        ids: Ids::Range(RegId(0), RegId(u64::MAX)),
        rule: Rule::Stored,
        scope: Scope::Vcpu,
        freeze: Freeze::Never,
        birth: Birth::Recorded,
    };

    /// The rule for `ids`, held by each vCPU and never frozen.
    pub const fn of(ids: Ids, rule: Rule) -> Self {
        Self { ids, rule, ..Self::PLAIN }
    }

    /// The same, held once by the machine.
    pub const fn whole_vm(self) -> Self {
        Self { scope: Scope::Vm, ..self }
    }

    /// The same, frozen by the first run: from then on only the value it has is
    /// accepted.
    pub const fn frozen_by_run(self) -> Self {
        Self { freeze: Freeze::Run, ..self }
    }

    /// The same, listed by this release whatever the recorded host has.
    pub const fn born(self, value: &'static [u8]) -> Self {
        Self { birth: Birth::Value(value), ..self }
    }
}

/// A set of register ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// This one.
    One(RegId),
    /// From the first to the last, both included.
    Range(RegId, RegId),
}

impl Ids {
    /// Whether `id` is in the set.
    pub fn contains(self, id: RegId) -> bool {
        match self {
            Self::One(only) => id == only,
            Self::Range(first, last) => (first..=last).contains(&id),
        }
    }
}

/// What a write to a register does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It stores any value.
    Stored,
    /// It accepts the value there is, no other.
    Fixed,
    /// It accepts every value and drops it.
    Ignored,
    /// It changes these bits, and refuses a difference elsewhere.
    Masked(u64),
    /// A PSCI version.
    PsciVersion,
    /// How well the host is mitigated, up to the given level: a write only asks
    /// whether the host is at least that good, and stores nothing.
    Level(u64),
    /// The same for Spectre v4: the four levels count as two.
    SsbdLevel,
    /// A set of firmware services among those known here.
    Bitmap {
        /// The bits known.
        known: u64,
        /// Whether unknown bits or the freeze are noticed first.
        order: BitmapOrder,
    },
    /// The processor state: its mode must be one of EL0 and EL1 in the vCPU's
    /// register width.
    ProcessorState,
    /// An identification register: field by field, as recorded on the host.
    Fields,
    /// An implementation ID register, of which these bits can be changed in a machine
    /// that may; any other accepts the value there is.
    ImpId(u64),
    /// The control register of the performance monitors: the vCPU's own eight bits,
    /// and the machine's number of counters, which is up to the host's, and fixed by
    /// the first run. Whatever is not taken is dropped.
    PmuControl,
    /// A register with a bit for each counter of the performance monitors. One of two sets
    /// bits when a guest writes, the other clears them; both hold one value.
    CounterBits {
        /// Under whose id it is held.
        held_by: RegId,
        /// What becomes of it when a user writes.
        written: CounterBits,
    },
    /// A cache's size: `CCSIDR_EL1`, whose lines are no shorter than the host's.
    CacheSize,
    /// A counter: a write moves it, and it runs on.
    Counter(AtVcpuCreation),
    /// A timer's control register, whose ISTATUS bit is computed.
    TimerControl(Istatus),
    /// The set of SVE vector lengths.
    VectorLengths,
    /// SVE state, out of reach until the lengths are final, and then as long as the
    /// longest: what is beyond reads as zero and is ignored.
    SveState,
}

/// What becomes of the bits of performance counters when a user writes a register of
/// theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterBits {
    /// They are those written, of counters that there are not, too.
    Any,
    /// They are those written of the counters that there are.
    Assigned,
    /// Those written are set.
    Set,
    /// Those written are cleared.
    Cleared,
}

/// Who holds a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each vCPU its own.
    Vcpu,
    /// The machine, one for all vCPUs.
    Vm,
}

/// Until when a register can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// For ever.
    Never,
    /// Until the first run; writing the value it has is accepted after it.
    Run,
    /// Until the first run; every write is refused after it.
    RunEvenIfEqual,
}

/// The value a register is born with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// What the recording says.
    Recorded,
    /// This one, little endian; missing high bytes are zero.
    Value(&'static [u8]),
    /// `MPIDR_EL1`: the vCPU's index, sixteen to a cluster.
    Identity,
}

/// What a write to a bitmap notices first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitmapOrder {
    /// A bit that is not known.
    UnknownFirst,
    /// That the machine has run.
    FrozenFirst,
}

/// What creating another vCPU does to a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtVcpuCreation {
    /// It starts again from zero.
    Restarts,
    /// It shows the host's counter.
    FollowsHost,
    /// Nothing.
    Kept,
}

/// When a timer's control register says that its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Istatus {
    /// Whenever the counter has reached the compare value. The register has 32
    /// bits.
    Computed,
    /// To the guest only. The register has 64 bits.
    Hidden,
}

/// A set of function ids that the firmware answers, unless they are switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The function id.
    pub function: u32,
    /// The bitmap register and its bit that must be set.
    pub gate: Option<(RegId, u64)>,
    /// The answer.
    pub answer: Answer,
}

/// What a service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These values in x0 to x3.
    Values([u64; 4]),
    /// The vendor bitmaps: in x0 and x2, as KVM_FEATURES gives them.
    VendorFeatures,
    /// Which of the architecture's workarounds and services there are.
    ArchFeatures,
    /// Whether the function in x1 is one of the TRNG's.
    TrngFeatures,
    /// Whether the function in x1 is one of PV time's, and the caller has a record of
    /// stolen time.
    PvTimeFeatures,
    /// Where the caller's record of stolen time is, which it zeroes.
    PvTimeRecord,
}

/// Whether a vCPU's first run, which checks its interrupts, is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstRun {
    /// It is not: the second run goes without a check.
    TriedOnce,
    /// Until it succeeds.
    Repeated,
}

/// What a filter's range says that starts at 0 and holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyRange {
    /// Everything: its last function id is the one before 0.
    Everything,
    /// Nothing, as any other range without a function id, which is refused.
    Nothing,
}

/// When a vCPU takes an SError that it does not mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SErrorTaken {
    /// When it runs.
    WhenRun,
    /// When it is made.
    AtOnce,
}

/// What becomes of the feature that leaves a vCPU powered off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerOff {
    /// It is a feature as any other: the next initialisation must repeat it.
    Compared,
    /// It holds for the one initialisation (Linux 6.5).
    Ephemeral,
}

/// Whether a host can do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// It can.
    Present,
    /// It cannot.
    Absent,
}

/// What freezes the firmware that the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrozenBy {
    /// The first attempt to run, even one that runs no guest code.
    RunCall,
    /// The first guest code.
    GuestCode,
}

/// When a target of PSCI CPU_ON shows its new registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuOnReset {
    /// To whoever reads them.
    WhenRead,
    /// Once it runs.
    WhenRun,
}

/// What becomes of a machine whose interrupt controller was not ready when it was
/// run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedRun {
    /// It can be made ready, and run.
    CanBeMended,
    /// It is dead: every further call is refused.
    KillsMachine,
}

/// What becomes of a vCPU whose performance monitors are not ready when it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreadyPmu {
    /// It runs.
    Runs,
    /// It is refused.
    Refused,
}

/// What becomes of a guest without performance monitors that reads their registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbsentMonitors {
    /// It reads zero.
    ReadAsZero,
    /// The instruction is undefined, as the architecture has it.
    Undefined,
}

/// Until when events of performance monitors can be hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hiding {
    /// Until the monitors of the vCPU are ready, whatever has run.
    UntilReady,
    /// Until then, or until the machine's first run.
    UntilRun,
}

/// Whose register width all vCPUs have to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WidthOf {
    /// That of all others, which is 64 bits as long as they are not initialised.
    EveryVcpu,
    /// That of the first one that was initialised.
    FirstInitialised,
}
