//! Everything KVM/arm64 refuses, each with its errno.

use kedge_hv::HvError;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $errno:ident, $call:literal;)*) => {
        /// Something that KVM refuses.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Refusal { $($(#[$doc])* $name,)* }

        impl Refusal {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The errno of every release that does not say otherwise.
            pub const fn errno(self) -> i32 {
                match self { $(Self::$name => libc::$errno,)* }
            }

            /// What was asked for.
            pub(crate) const fn call(self) -> &'static str {
                match self { $(Self::$name => $call,)* }
            }
        }
    };
}

#[rustfmt::skip]
refusals! {
    // Machines and memory.
    /// More address bits than the host has, or fewer than 32.
    AddressBits = EINVAL, "create a virtual machine";
    /// A slot number past the last.
    SlotNumber = EINVAL, "map guest memory";
    /// Memory that does not start and end at a page.
    SlotMisaligned = EINVAL, "map guest memory";
    /// A slot that there is. The contract says so; KVM itself would move it.
    SlotTwice = EEXIST, "map guest memory";
    /// Memory over other memory.
    SlotOverlap = EEXIST, "map guest memory";
    /// Memory past the machine's address bits.
    SlotBeyond = EFAULT, "map guest memory";
    /// The log of a slot that there is not.
    NoSlot = ENOENT, "switch the log of a memory slot's written pages";
    /// What was written to a slot whose log is off, or that there is not.
    NoDirtyLog = ENOENT, "read the log of a memory slot's written pages";

    // vCPUs.
    /// A vCPU that there is.
    VcpuTwice = EEXIST, "create a vCPU";
    /// A vCPU past the last.
    VcpuNumber = EINVAL, "create a vCPU";
    /// A vCPU behind the interrupt controller's initialisation.
    VcpuLate = EBUSY, "create a vCPU";
    /// A feature that the kernel does not know.
    UnknownFeature = ENOENT, "initialise a vCPU";
    /// A feature that the host lacks, or half a pair.
    BadFeatures = EINVAL, "initialise a vCPU";
    /// Other features than another vCPU's.
    OtherFeatures = EINVAL, "initialise a vCPU";
    /// Other features than at the first initialisation.
    ChangedFeatures = EINVAL, "initialise a vCPU";
    /// A vCPU of the other register width.
    MixedWidth = EINVAL, "initialise a vCPU";
    /// Anything before initialisation.
    NotInitialised = ENOEXEC, "use a vCPU";
    /// A power state that the release does not know.
    MpState = EINVAL, "set a power state";

    // Registers.
    /// No such register.
    NoRegister = ENOENT, "reach a register";
    /// An id of another architecture.
    OtherArch = EINVAL, "reach a register";
    /// A core register that SVE hides.
    HiddenCore = EINVAL, "reach a core register";
    /// A value of another length than the register's.
    Length = EINVAL, "set a register";
    /// Not this value.
    BadValue = EINVAL, "set a register";
    /// Not any more.
    Frozen = EBUSY, "set a register";
    /// Registers before the vector lengths are final.
    SveUnfinished = EPERM, "reach the registers of an SVE vCPU";
    /// Vector lengths once they are final.
    SveFinished = EPERM, "set the vector lengths";
    /// An empty set of vector lengths, or one the host does not have.
    SveLengths = EINVAL, "set the vector lengths";
    /// Ending the choice of lengths a second time.
    FinalizedTwice = EPERM, "finalize SVE";
    /// Ending the choice of lengths on a vCPU without SVE.
    FinalizeWithout = EINVAL, "finalize SVE";

    // The interrupt controller, events.
    /// A version that the host cannot give.
    GicVersion = ENODEV, "create an interrupt controller";
    /// A second one.
    GicTwice = EEXIST, "create an interrupt controller";
    /// A machine that has run.
    GicLate = EBUSY, "create an interrupt controller";
    /// More vCPUs than the version serves.
    GicCrowded = E2BIG, "create an interrupt controller";
    /// A frame that is not aligned.
    GicMisaligned = EINVAL, "place the interrupt controller";
    /// A frame past the machine's address bits.
    GicBeyond = E2BIG, "place the interrupt controller";
    /// Too few or too many interrupts, or not a multiple of 32.
    GicLines = EINVAL, "size the interrupt controller";
    /// An edge on a machine without an interrupt controller.
    PulseWithoutGic = ENXIO, "raise an interrupt";
    /// An edge before the controller is ready.
    PulseEarly = EBUSY, "raise an interrupt";
    /// An edge of an interrupt that the controller does not have.
    PulseBeyond = EINVAL, "raise an interrupt";
    /// An event that is wired already.
    IrqTwice = EBUSY, "connect an interrupt";
    /// An interrupt that the controller does not have.
    IrqBeyond = EINVAL, "connect an interrupt";
    /// A message on a machine without an interrupt controller.
    MsiWithoutGic = EINVAL, "send a message";
    /// A message to a controller without a translation service.
    MsiWithoutIts = ENODEV, "send a message";
    /// A message to where there is no service.
    MsiElsewhere = EINVAL, "send a message";
    /// A message to a service that is off.
    MsiEarly = EBUSY, "send a message";
    /// A doorbell that there is.
    DoorbellTwice = EEXIST, "connect a doorbell";
    /// A doorbell that there is not.
    DoorbellMissing = ENOENT, "disconnect a doorbell";
    /// SYSTEM_SUSPEND on a host without it.
    SystemSuspend = EINVAL, "enable system suspend";
    /// A PMU's interrupt on a vCPU without one.
    NoPmu = ENODEV, "initialise the performance monitors";
    /// A PMU before the interrupt controller is ready.
    PmuEarly = ENODEV, "initialise the performance monitors";
    /// A PMU that is ready.
    PmuTwice = EBUSY, "initialise the performance monitors";
    /// Events of a vCPU without a PMU.
    HideWithoutPmu = ENODEV, "hide events of the performance monitors";
    /// Events that there are not.
    HideBeyond = EINVAL, "hide events of the performance monitors";
    /// Events of a PMU that is ready, or of a machine that has run.
    HideLate = EBUSY, "hide events of the performance monitors";
    /// What is no system register.
    NoSystemRegister = EINVAL, "read registers as a guest";

    // What a machine's user decides beyond registers.
    /// Writable main ID registers on a host that cannot.
    ImpIds = EINVAL, "create a virtual machine";
    /// A filter on a host without one.
    NoFilter = EINVAL, "filter calls of the firmware";
    /// A filter's range without a function id, or past the last.
    FilterRange = EINVAL, "filter calls of the firmware";
    /// A filter's range over another, or over the architecture's.
    FilterOverlap = EEXIST, "filter calls of the firmware";
    /// A filter once the machine has run.
    FilterLate = EBUSY, "filter calls of the firmware";
    /// An offset of the counters on a host without one.
    NoCounterOffset = EINVAL, "set the distance of the counters from the host's";
    /// A record of stolen time that is not aligned.
    PvTimeMisaligned = EINVAL, "place the record of stolen time";
    /// A record of stolen time that has its place.
    PvTimeTwice = EEXIST, "place the record of stolen time";
    /// A record of stolen time outside writable memory.
    PvTimeNowhere = EINVAL, "place the record of stolen time";
    /// A timer's interrupt without an interrupt controller.
    TimerWithoutGic = EINVAL, "set a timer's interrupt";
    /// A timer's interrupt once the vCPU has run.
    TimerLate = EBUSY, "set a timer's interrupt";
    /// A syndrome with more than its 25 bits, or on a host without RAS.
    SErrorSyndrome = EINVAL, "make an SError pending";
    /// A register that the controller does not have.
    NoGicRegister = ENXIO, "reach a register of the interrupt controller";
    /// A register of a controller that is not ready.
    GicRegisterEarly = EBUSY, "reach a register of the interrupt controller";
    /// A register of a vCPU that there is not.
    NoGicCpu = EINVAL, "reach a register of the interrupt controller";
    /// Anything of the controller while a vCPU runs.
    GicRunning = EBUSY, "reach the interrupt controller";
    /// A register that a CPU interface does not have.
    NoCpuRegister = ENOENT, "reach a register of the interrupt controller";
    /// Active priorities beyond the bits of a priority.
    NoActivePriorities = EINVAL, "reach a register of the interrupt controller";
    /// Levels from a number on that is no multiple of 32.
    LevelAlignment = EINVAL, "reach a register of the interrupt controller";
    /// A part of a register of the translation service.
    ItsAlignment = EINVAL, "reach a register of the interrupt controller";
    /// A change of what a distributor says it can.
    GicTyper2 = EINVAL, "write a register of the interrupt controller";
    /// A change of where commands are read, of a service that reads them.
    ItsEnabled = EBUSY, "write a register of the interrupt controller";
    /// Tables of LPIs on a GICv2.
    NoPendingTables = ENXIO, "write the pending LPIs into the guest's memory";
    /// Tables of LPIs of a controller that is not ready.
    PendingTablesEarly = ENXIO, "write the pending LPIs into the guest's memory";
    /// A table where the guest has no memory.
    TableNowhere = EFAULT, "reach a table of the interrupt translation service";
    /// Something of a translation service that there is not.
    NoIts = ENXIO, "reach the interrupt translation service";
    /// A value that the controller's register cannot have.
    GicRegisterValue = EINVAL, "write a register of the interrupt controller";

    // Running.
    /// One interrupt for two purposes.
    SharedPpi = EINVAL, "run a vCPU";
    /// Anything on a machine that a failed run has killed.
    Dead = EIO, "use a dead machine";
    /// A GICv3 that is not initialised.
    GicUnready = EBUSY, "run a vCPU";
    /// Performance monitors that are not.
    PmuUnready = EINVAL, "run a vCPU";
}

/// The refusal as the caller of a release gets it.
pub(crate) fn refuse<T>(release: &crate::Release, refusal: Refusal) -> Result<T, HvError> {
    Err(HvError::new(refusal.call(), release.errno(refusal)))
}
