//! Serial port, real-time clock, virtio devices and their transports, and what
//! tells a guest that it was restored. Nothing
//! here knows a hypervisor: devices see address ranges, wires and doorbells
//! (`bus`) and guest memory.
#![deny(unsafe_code)]

pub mod boot_timer;
pub mod generation;
pub mod pci;
pub mod rtc;
pub mod serial;
pub mod tap;
pub mod virtio;
pub mod vmclock;
