//! Serial port, real-time clock, virtio devices and transports; knows no KVM.
#![forbid(unsafe_code)]
