//! How a driver finds a device and sets it up: one core that knows the rules of
//! Virtio 1.2 (2 and 3), and a thin register file per bus around it.

mod checked;
mod core;
mod line;
mod mmio;
mod pci;
pub mod saved;
mod signals;

pub use mmio::MmioTransport;
#[cfg(test)]
pub(crate) use mmio::reg;
pub use pci::{PciSite, PciTransport};

/// A virtio device behind the registers of some bus.
pub trait Transport: Send + Sync {
    /// Takes the queues back from the device's worker, once requests in flight
    /// are finished. To be called before the event loop ends, and never on its
    /// thread. A driver that goes on afterwards waits in vain.
    fn shutdown(&self);
}

#[cfg(test)]
mod rest_tests;
#[cfg(test)]
mod shown_tests;
#[cfg(test)]
mod tests;
