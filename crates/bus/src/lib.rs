//! What a device sees: its address range, its wire, its doorbells, its
//! device-tree node, and how it pauses and is saved. It learns no interrupt
//! number, no address and no hypervisor.
#![forbid(unsafe_code)]

mod address_map;
mod device;
mod msi;
mod node;
mod stateful;
mod wire;

pub use address_map::{AddressMap, Conflict, Lookup, NotMapped};
pub use device::{Doorbell, DoorbellPost, MmioDevice, Unsuitable};
pub use msi::{Message, Messages, MsiPort};
pub use node::{Node, Value};
pub use stateful::{NotAtRest, PauseError, RestoreError, ResumeError, Stateful};
pub use wire::{IrqLine, Wire};
