//! The hypervisor traits on Linux KVM for arm64: the one crate that names KVM's
//! bindings.
//!
//! [`Kvm::open`] is the only door; what comes out of it is used through the
//! traits of [`kedge_hv`]. The kernel's documents are Documentation/virt/kvm in
//! its source: `api.rst` for the calls, `devices/` for what is set through
//! device attributes.
//!
//! What KVM does, this crate hands on: an errno is the kernel's own, and the
//! crate keeps no copy of state that the kernel holds. It adds a check of its
//! own only where the kernel would silently do something else than the traits
//! promise, and says so there. Of the process it takes one thing: the signal
//! `SIGRTMIN`, with which vCPUs are kicked out of the guest (`kick.rs` says how).
//!
//! On other architectures the crate builds, and [`Kvm::open`] says that it
//! cannot.

#[cfg(target_arch = "aarch64")]
mod attribute;
#[cfg(target_arch = "aarch64")]
mod counter;
#[cfg(target_arch = "aarch64")]
mod exit;
#[cfg(target_arch = "aarch64")]
mod gic;
#[cfg(target_arch = "aarch64")]
mod ioctl;
#[cfg(target_arch = "aarch64")]
mod kick;
#[cfg(target_arch = "aarch64")]
mod kvm;
#[cfg(target_arch = "aarch64")]
mod machine;
#[cfg(not(target_arch = "aarch64"))]
mod not_arm64;
#[cfg(target_arch = "aarch64")]
mod scratch_guest;
#[cfg(target_arch = "aarch64")]
mod vcpu;
#[cfg(target_arch = "aarch64")]
mod vm;

#[cfg(target_arch = "aarch64")]
pub use kvm::{Kvm, Ready};
#[cfg(not(target_arch = "aarch64"))]
pub use not_arm64::{Kvm, Ready};
