//! How a driver finds a device and sets it up: one core that knows the rules of
//! Virtio 1.2 (2 and 3), and a thin register file per bus around it.

mod checked;
mod core;
mod line;
mod mmio;
pub mod saved;
mod signals;

pub use mmio::MmioTransport;
#[cfg(test)]
pub(crate) use mmio::reg;

#[cfg(test)]
mod rest_tests;
#[cfg(test)]
mod tests;
