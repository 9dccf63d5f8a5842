//! Saved machines: a snapshot is a state file and a memory file.
//!
//! | module | what |
//! |---|---|
//! | `part` | one piece of state with its kind and version |
//! | `file`, `header` | the state file: a header that can be read alone, and sections |
//! | `image` | the memory file: written, checked, merged |
//! | `pair` | both put in place, so that a kill at any moment leaves a whole snapshot |
//! | `snapshot` | both opened together; chains of differences merged |
//!
//! # Parts
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
//! # Snapshots
//!
//! ```
//! # use kedge_saved_state::{About, Contents, Durability, PendingPair, Region, Snapshot};
//! # let folder = tempfile::tempdir()?;
//! # let (state, memory) = (folder.path().join("state"), folder.path().join("memory"));
//! # let about = About {
//! #     release: "0.1.0".to_owned(),
//! #     architecture: "aarch64".to_owned(),
//! #     page_size: 4096,
//! #     kernel: "6.12.38".to_owned(),
//! #     cpu: 0x413f_d0c1,
//! #     saved_at: 0,
//! #     machine: "{}".to_owned(),
//! # };
//! let pair = PendingPair::create(&state, &memory, Contents::Full)?;
//! let ram = [Region { start: 0x8000_0000, size: 0x20_0000 }];
//! let mut writer = pair.begin_memory(&ram, about.page_size)?;
//! writer.write(0x5000, &[7; 4096]).map_err(|error| pair.memory_error(error))?;
//! let written = writer.finish().map_err(|error| pair.memory_error(error))?;
//! let sections = []; // Section::required(Part::of(&..)), one for each part
//! pair.commit(&about, &written, &sections, Durability::Cached)?;
//!
//! let snapshot = Snapshot::open(&state, &memory)?;
//! snapshot.state().header().check_sections(|entry| entry.kind == "gic")?;
//! snapshot.image().verify()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
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
pub use file::{FORMAT, FileError, StateFile};
pub use header::{About, Entry, Header, MemoryIdentity, Need, Region, Sample, Section};
pub use id::{NotAnId, SnapshotId};
pub use image::{Contents, Image, ImageError, ImageWriter, MemoryMap, WrittenImage};
pub use pair::{Durability, PendingPair, PlaceError};
pub use part::{Part, Versioned};
pub use snapshot::{OpenError, RebaseError, Snapshot, open_state, rebase, rebased_contents};
