//! The machine against the executable model of KVM/arm64, on any host.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod cancel;
mod change;
mod clock;
mod devices;
mod differences;
mod errors;
mod events;
#[expect(dead_code, reason = "what it refuses is for the other test")]
#[path = "../traces/faulty.rs"]
mod faulty;
mod forecast;
mod guest;
mod life;
mod memory;
mod metadata;
mod metrics;
mod own_device;
mod own_disk;
mod panic;
mod pause;
mod plug;
mod profile;
mod refused;
mod rom;
mod rows;
mod save;
mod serial;
mod services;
mod storm;
mod suspend;
