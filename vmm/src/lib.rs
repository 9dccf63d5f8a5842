//! The machine: built from a specification, run, paused, reset. A library that other
//! programs embed: it prints nothing, exits never and installs no global state.
//!
//! A machine has three kinds of threads. Its own is the one that calls
//! [`Machine::run`]; it waits for what the others report, and for what is asked of it
//! through its [`Handle`]. Each vCPU has one. The devices' workers share one more, which
//! waits for nobody (`run::event_loop`), so that the others may wait for it.
#![deny(unsafe_code)]

mod build;
mod console;
mod control;
mod events;
mod machine;
mod opened;
mod restore;
mod run;
mod save;
pub mod spec;
mod surroundings;

pub use build::{BuildError, ProfileConflict, ServicesError, usual_machine};
pub use console::{ConsoleError, SerialInput};
pub use control::{Clock, ControlError, Handle, Lifecycle};
pub use events::{MachineEvent, Mishap, MishapKind};
pub use kedge_arch::smccc;
pub use kedge_guest_memory::Lost;
pub use kedge_metadata as metadata;
pub use kedge_metrics as metrics;
pub use machine::{Ended, Machine, Reset, RunError, Stopper};
pub use opened::OpenDevices;
pub use restore::{Forecast, MemorySource, Pages, Restoration, RestoreError, WorkingSetError};
pub use run::{PlugError, VcpuFailure};
pub use save::{Checksums, SaveError, SaveKind, SaveOrder, Saved, Then};
pub use surroundings::{Entropy, MemoryGuard, PanicListener, StuckListener, Surroundings};
