//! Newtypes for numbers that must not be mixed up: interrupt numbers, CPU
//! identities, register ids. Conversions stand in one place and the range is
//! checked once.
//!
//! Guest physical addresses are `vm_memory::GuestAddress`, which every rust-vmm
//! crate speaks; `guest_memory` re-exports it.
#![forbid(unsafe_code)]

mod cpu;
mod doorbell;
mod interrupt;
mod register;
mod width;

pub use cpu::{Mpidr, VcpuId};
pub use doorbell::Ring;
pub use interrupt::{NotAPpi, NotAnSpi, Ppi, Spi};
pub use register::{RegId, RegSize};
pub use width::{u64_from, usize_from};
