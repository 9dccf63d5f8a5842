//! aarch64: memory layout, boot images, device tree, GIC, vCPU set-up, PSCI and SMCCC.
//!
//! Everything here is plain computation on guest memory and on the traits of
//! `hv`. A machine is built in this order: [`gic::choose`], [`Layout::new`],
//! [`image::load_kernel`], [`image::load_initrd`], [`rom::load_rom`],
//! [`fdt::build`], [`fdt::write`], [`vcpu::set_boot_state`].
#![forbid(unsafe_code)]

pub mod cache;
pub mod cmdline;
#[cfg(test)]
mod fakes;
pub mod fdt;
pub mod features;
pub mod gic;
pub mod gic_state;
pub mod image;
pub mod layout;
pub mod psci;
pub mod regs;
pub mod rom;
mod size;
pub mod smccc;
pub mod vcpu;

pub use gic::GicChoice;
pub use layout::{Layout, LayoutError, Place};
pub use psci::PsciVersion;
