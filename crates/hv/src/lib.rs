//! What a hypervisor can do, as traits and plain enums.
//!
//! The traits follow KVM/arm64's grain (Linux, Documentation/virt/kvm/api.rst),
//! since that is what stands behind them, but name none of its types: one
//! implementation is `hv_kvm`, the other the executable model `hv_model`, and
//! one conformance suite runs over both.
//!
//! The order of calls that makes a machine: [`Hypervisor::create_vm`],
//! [`Vm::map_ram`], every [`Vm::create_vcpu`], [`Vcpu::init`] on each,
//! [`Vcpu::finalize_sve`] where SVE was asked for, [`Vm::create_gic`], then
//! [`Gic::init`], [`Vcpu::init_pmu`], registers, and [`Vcpu::run`].
#![forbid(unsafe_code)]

mod error;
mod exit;
mod features;
mod gic;
mod masks;
mod msi;
mod smccc;
mod vcpu;
mod vm;

pub use error::{HvError, OpenError};
pub use exit::{Conduit, Exit, SystemEvent};
pub use features::VcpuFeatures;
pub use gic::{Gic, GicConfig, GicReg, GicVersion};
pub use masks::WritableMasks;
pub use msi::{Msi, MsiFate};
pub use smccc::{SmcccAction, SmcccRange};
pub use vcpu::{Kick, MpState, PmuEvents, SError, Timer, Vcpu, VcpuReg};
pub use vm::{Abilities, Access, DirtyLog, Hypervisor, Limits, Vm, VmConfig};
