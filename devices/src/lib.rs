//! Serial port, real-time clock, virtio devices and their transports. Nothing
//! here knows a hypervisor: devices see address ranges, wires and doorbells
//! (`bus`) and guest memory.
#![deny(unsafe_code)]

pub mod rtc;
pub mod serial;
pub mod tap;
pub mod virtio;
