//! The machine against the executable model of KVM/arm64, on any host.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod devices;
mod errors;
mod guest;
mod life;
mod panic;
mod profile;
mod rom;
mod rows;
mod serial;
mod services;
mod suspend;
