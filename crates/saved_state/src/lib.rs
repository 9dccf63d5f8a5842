//! Saved machines: what a part of one is.
//!
//! Whoever has state to save keeps it in a frozen struct of its own, `…V1`, with
//! `#[serde(deny_unknown_fields)]`, and makes a [`Part`] of it. A change is a new
//! struct with the next version and a conversion from the one before:
//!
//! ```
//! # use kedge_saved_state::{Part, StateError, Versioned};
//! # use serde::{Deserialize, Serialize};
//! #[derive(Serialize, Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct ClockV1 {
//!     offset: u64,
//! }
//!
//! impl Versioned for ClockV1 {
//!     const KIND: &'static str = "pl031";
//!     const VERSION: u16 = 1;
//! }
//!
//! let part = Part::of(&ClockV1 { offset: 7 });
//! assert_eq!(part.read::<ClockV1>()?.offset, 7);
//! # Ok::<(), StateError>(())
//! ```
//!
//! Saved state is input: whoever reads a part checks lengths, indices and addresses,
//! and answers a bad one with [`StateError::field`].
#![forbid(unsafe_code)]

mod bytes;
mod error;
mod file;
mod header;
mod id;
mod image;
mod pair;
mod part;
mod snapshot;
#[cfg(test)]
mod testing;

pub use bytes::Bytes;
pub use error::StateError;
pub use file::{FileError, StateFile};
pub use header::{About, Entry, Header, MemoryIdentity, Need, Region, Sample, Section};
pub use id::{NotAnId, SnapshotId};
pub use image::{Contents, Image, ImageError, ImageWriter, MemoryMap, WrittenImage};
pub use pair::{Durability, PendingPair, PlaceError};
pub use part::{Part, Versioned};
pub use snapshot::{OpenError, RebaseError, Snapshot, rebase, rebased_contents};
