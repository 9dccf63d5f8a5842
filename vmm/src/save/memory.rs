//! Writing a guest's memory to a snapshot's memory file.

use std::ops::Range;

use kedge_guest_memory::{DirtySet, GuestMemory, GuestMemoryBackend, GuestMemoryRegion};
use kedge_guest_memory::{Pagemap, RamRegion, TakeOutError};
use kedge_guest_memory::{read_all, read_dirty, write_all, write_dirty};
use kedge_ids::u64_from;
use kedge_saved_state::{ImageWriter, PendingPair, Region, WrittenImage};

use super::watched::Watched;
use super::{Checksums, SaveError};

/// Writes `memory`, in pages of `page_size` bytes: those that were `changed`, or all. What
/// was never touched is not read then, and pages of zeroes are holes. `watched` is told how
/// far it is.
///
/// # Errors
/// It cannot be read, the host cannot write, or whoever watches wants no more of it.
pub(super) fn write(
    pair: &PendingPair,
    (memory, changed): (&GuestMemory, Option<&DirtySet>),
    (page_size, checksums): (u32, Checksums),
    watched: &mut Watched,
) -> Result<WrittenImage, SaveError> {
    let mut image = pair.begin_memory(&regions(memory), page_size)?;
    let taken = match checksums {
        Checksums::Whole => write_through(memory, changed, &mut image, watched),
        Checksums::Samples => write_directly(memory, changed, &mut image, watched),
    };
    match taken {
        _ if watched.is_over() => return Err(SaveError::Cancelled),
        Ok(()) => {}
        Err(TakeOutError::Sink(error)) => return Err(pair.memory_error(error).into()),
        Err(unread) => return Err(unread.into()),
    }
    Ok(image.finish().map_err(|error| pair.memory_error(error))?)
}

/// What was ever touched. Without it, all is read, and what is zero left out.
fn pagemap() -> Option<Pagemap> {
    Pagemap::open().ok()
}

/// Writes pages by way of the image, which makes checksums of them.
fn write_through(
    memory: &GuestMemory,
    changed: Option<&DirtySet>,
    image: &mut ImageWriter<'_>,
    watched: &mut Watched,
) -> Result<(), TakeOutError> {
    let sink = |offset, pages: &[u8]| {
        image.write(offset, pages)?;
        watched.reach(offset + u64_from(pages.len()))
    };
    match changed {
        Some(changed) => read_dirty(memory, changed, sink),
        None => read_all(memory, pagemap().as_ref(), sink),
    }
}

/// Writes pages from where they are.
fn write_directly(
    memory: &GuestMemory,
    changed: Option<&DirtySet>,
    image: &mut ImageWriter<'_>,
    watched: &mut Watched,
) -> Result<(), TakeOutError> {
    let file = image.file();
    let written = |extent: Range<u64>| {
        let end = extent.end;
        image.add(extent)?;
        watched.reach(end)
    };
    match changed {
        Some(changed) => write_dirty(memory, changed, file, written),
        None => write_all(memory, pagemap().as_ref(), file, written),
    }
}

/// What the memory file is told of the guest's memory.
fn regions(memory: &GuestMemory) -> Vec<Region> {
    let region = |region: &RamRegion| Region { start: region.start_addr().0, size: region.len() };
    memory.iter().map(region).collect()
}
