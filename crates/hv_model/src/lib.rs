//! The hypervisor traits as an executable model of KVM/arm64, per kernel release.
//!
//! A [`Release`] is data: the rules of its registers, its errnos, its firmware.
//! A [`Recording`] is data too: what a host under that release listed and
//! accepted. A small engine makes both into the traits of `kedge-hv`. What guest
//! code would do is a [`Program`], a script that a test hands in. Kernels
//! that there are not are made by changing the data: [`invented`] has some.
//!
//! The conformance suite (`tests/conformance`) runs over this model and over real
//! kernels: where they differ, the kernel is right.
//!
//! ```
//! use kedge_hv::{Exit, Hypervisor, SystemEvent, VcpuFeatures, VmConfig};
//! use kedge_hv_model::{ModelHypervisor, Program, Step, psci, release};
//! use kedge_ids::VcpuId;
//!
//! let release = release("6.12").expect("one of the modelled releases");
//! let hypervisor = ModelHypervisor::new(release)?
//!     .with_program(VcpuId(0), Program::new(Step::call(psci::SYSTEM_OFF, [0; 3])));
//! let vm = hypervisor.create_vm(&VmConfig::new(40))?;
//! let mut vcpu = vm.create_vcpu(VcpuId(0))?;
//! vcpu.init(VcpuFeatures::PSCI_0_2)?;
//! assert!(matches!(vcpu.run()?, Exit::System(SystemEvent::Off)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod firmware;
mod gic;
mod hypervisor;
pub mod invented;
mod machine;
mod memory;
mod program;
mod recording;
mod refusal;
mod registers;
mod release;
mod releases;
mod run;
mod seen;
mod state;
mod trace;
mod vcpu;
mod vm;

pub use hypervisor::ModelHypervisor;
pub use invented::{Invented, register};
pub use program::{Program, Step, Width, psci};
pub use recording::{Accepted, BadRecording, Recording};
pub use refusal::Refusal;
pub use release::{
    Ability, AbsentMonitors, Answer, AtVcpuCreation, Birth, BitmapOrder, CounterBits, CpuOnReset,
    EmptyRange, FailedRun, FirstRun, Freeze, FrozenBy, Hiding, Ids, Istatus, PSCI_0_1, PowerOff,
    Release, Row, Rule, SErrorTaken, Scope, Service, UnreadyPmu, WidthOf,
};
pub use releases::{BITMAPS, BITMAPS_2, COMMON, RELEASES, V5_10, V6_1, V6_12, V7_2, id, release};
pub use trace::{Event, Trace};
