//! PCI as a guest sees it without firmware (PCI Express Base 5.0, 7; PCI Local Bus 3.0, 6):
//! functions with their configuration spaces, what routes accesses to them, and
//! message-signalled interrupts. What a function is lies elsewhere: of virtio devices in
//! `virtio::transport::pci`.
//!
//! A machine may have root ports with slots, into which functions come while it runs.
//!
//! The guest decides where a function's registers lie. It can put them anywhere and change
//! its mind at any time: they are followed where a window leads to the bus, and are nowhere
//! outside of it. There are no I/O ports and no interrupt wires.

mod config;
mod function;
mod msix;
mod port;
mod root;
pub mod saved;
mod slot;

#[cfg(test)]
mod tests;

pub(crate) use self::config::{COMMAND, ConfigSpace, Header, Identity};
pub(crate) use self::function::Windows;
pub use self::function::{Function, FunctionNumber};
pub(crate) use self::msix::{Msix, MsixBar};
pub use self::port::{LetGo, RootPort};
pub use self::root::{Ecam, Root, Window};
