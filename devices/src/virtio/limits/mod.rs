//! Limits on how fast a device may go, in bytes and in operations: Firecracker's
//! rate limiters, which are token buckets.
//!
//! [`RateLimiter`] is what a user says, [`Limits`] what a device holds of it over
//! its whole life, and a [`Throttle`] what its worker asks before each operation.

mod bucket;
mod config;
mod limiter;
pub mod saved;
mod throttle;

pub use config::{RateLimiter, TokenBucket};
pub use limiter::Limits;
pub use throttle::Throttle;

#[cfg(test)]
mod tests;
