//! Metrics: what the parts of a machine count, gathered and written down.
//!
//! Each part has counters of its own, which it hands to the machine's [`Registry`] as
//! [`Counters`]; nothing here is touched while they count. [`Lines`] has Firecracker's form,
//! a JSON object with exactly its keys (FIRECRACKER_API.md, 13), and [`prometheus`] the text
//! form of Prometheus, with all there is.
#![deny(unsafe_code)]

mod latency;
mod line;
mod moment;
mod output;
mod prometheus;
mod registry;
mod shape;
mod tally;
mod timings;

pub use latency::Latency;
pub use line::{Lines, Tags};
pub use moment::Moment;
pub use output::Output;
pub use prometheus::prometheus;
pub use registry::{Counters, Registry};
pub use shape::{GROUPS, Group};
pub use tally::Tally;
pub use timings::{Outcome, Timing, Timings};
