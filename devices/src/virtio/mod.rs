//! Virtio devices (OASIS, Virtual I/O Device 1.2) and what they share.
//!
//! A device is a folder here and a row in [`catalog`]. It meets its transport in
//! [`device::VirtioDevice`] and does its work in a [`worker::Worker`] on an event
//! loop, which owns the queues while the device is active.

pub mod block;
pub mod body;
pub mod buffers;
pub mod catalog;
pub mod change;
pub mod detour;
pub mod device;
pub mod limits;
pub mod mishap;
pub mod net;
pub mod options;
pub mod overrides;
pub mod ring;
pub mod rng;
pub mod syscalls;
pub mod transport;
pub mod vhost;
pub mod vsock;
pub mod worker;

#[cfg(test)]
pub(crate) mod testing;
