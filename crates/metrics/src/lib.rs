//! Metrics: what the parts of a machine count, gathered and written down.
//!
//! Each part has counters of its own, which it hands to the machine's [`Registry`] as
//! [`Counters`]; nothing here is touched while they count. [`Lines`] has Firecracker's form,
//! a JSON object with exactly its keys (FIRECRACKER_API.md, 13), and [`prometheus`] the text
//! form of Prometheus, with all there is.
#![forbid(unsafe_code)]

mod line;
mod output;
mod prometheus;
mod registry;
mod shape;
mod tally;
mod timings;

pub use line::{Lines, Tags};
pub use output::Output;
pub use prometheus::prometheus;
pub use registry::{Counters, Registry};
pub use shape::{GROUPS, Group};
pub use tally::Tally;
pub use timings::{Outcome, Timing, Timings};
