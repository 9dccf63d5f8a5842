//! The firmware that KVM/arm64 shows a guest, as state: one table of the
//! pseudo-registers that set it, and what a host offers of them.
//!
//! A row of [`TABLE`] says everything about one register; names, parsing, checks,
//! messages and the reference page follow from it. Registers of the same banks that
//! the table does not know are carried as [`Firmware::Unknown`], by id and value.
//! [`probe`] finds by trial what a host makes of them; where it disagrees with the
//! table, the host is right.
#![forbid(unsafe_code)]

mod abi;
mod birth;
mod digest;
pub mod fields;
mod fleet;
mod hex;
mod host;
mod named;
mod plan;
mod pmu;
mod probe;
mod reference;
mod register;
mod state;
mod symbols;
mod table;

pub use abi::{
    ARM64_V0, ARM64_V1, BadDocument, Contradiction, CounterPolicy, CpuAbi, CpuConfig, Difference,
    Fault, FilterAction, FilterRange, GuestAbi, HOST, IdPromise, Implementation, ImplementationIds,
    MachineAbi, OverlayError, Place, Promises, TimerPpis, UnknownFirmware, Varying, builtin,
    builtin_names,
};
pub use birth::{
    BirthError, Born, Newborn, NotHonoured, Notes, NotesOf, Outcome, ServiceRecord, VmRegisters,
    Written, settle, settle_again, settle_parts,
};
pub use fleet::{Baseline, BaselineError, Conflict, Loss, baseline};
pub use hex::{Hex, RegValue};
pub use host::{
    FoundCpu, FoundField, FoundFirmware, FoundGic, FoundIdReg, FoundScope, HostAbi, HostAbilities,
    HostLimits, Takes,
};
pub use named::{NoRegister, register_named};
pub use plan::{Plan, PlanLine, Subject, Verdict, check};
pub use pmu::PmuEventSet;
pub use probe::{ProbeError, probe, probe_firmware};
pub use reference::markdown;
pub use register::{
    Absent, ByPtp, Domain, Firmware, Freeze, FwReg, FwSpec, NoFirmwareRegister, Scope, Symbol,
};
pub use state::{
    Birth, CaptureError, Destination, Deviation, Lines, Live, Manner, MissingFeatures,
    PHYSICAL_COUNTER, PendingSError, PlanError, Planned, Power, Quirk, Recorded, RegList, RegRow,
    RegisterState, RestoreError, Restored, Rules, SavedRegister, Source, VIRTUAL_COUNTER,
    VcpuRegisters, When, Writes, as_the_guest_reads, born_profile, capture, pack, plan, unpack,
};
pub use symbols::BadFwValue;
pub use table::TABLE;
