//! The memory file of a snapshot: exactly the guest's memory, region after region,
//! sparse, and nothing else, so that it can be mapped. What tells one from another
//! stands in the state file.

mod check;
mod map;
mod merge;
mod writer;

pub(crate) use check::check_identity;
pub use check::{Image, ImageError};
pub use map::MemoryMap;
pub(crate) use merge::{MergeError, merge};
pub use writer::{Contents, ImageWriter, WrittenImage};

use crate::{Entry, Versioned as _};

/// The sections that describe a memory file.
pub(crate) const MEMORY_KINDS: [&str; 2] = [map::MemoryMapV1::KIND, map::ChecksumsV1::KIND];

/// Whether `entry` is a section that this module reads.
pub(crate) fn knows(entry: &Entry) -> bool {
    let known = [
        (map::MemoryMapV1::KIND, map::MemoryMapV1::VERSION),
        (map::ChecksumsV1::KIND, map::ChecksumsV1::VERSION),
    ];
    known.contains(&(entry.kind.as_str(), entry.version))
}

/// How many bytes of a memory file one checksum is for.
const CHUNK: u64 = 1 << 20;

/// Whether all of `bytes` are zero.
fn is_zero(bytes: &[u8]) -> bool {
    // Words in blocks: most pages that are not zero show it in the first.
    let mut blocks = bytes.chunks_exact(64);
    let block_is_zero = |block: &[u8]| {
        let (words, _) = block.as_chunks::<8>();
        words.iter().fold(0, |all, word| all | u64::from_ne_bytes(*word)) == 0
    };
    blocks.all(block_is_zero) && blocks.remainder().iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests;
