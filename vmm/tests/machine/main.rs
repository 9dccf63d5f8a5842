//! The machine against the executable model of KVM/arm64, on any host.

mod access;
mod devices;
mod errors;
mod guest;
mod life;
mod panic;
mod rom;
mod serial;
mod suspend;
