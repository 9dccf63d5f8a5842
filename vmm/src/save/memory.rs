//! Writing a guest's memory to a snapshot's memory file.

use kedge_guest_memory::{GuestMemory, GuestMemoryBackend, GuestMemoryRegion, RamRegion};
use kedge_guest_memory::{Pagemap, TakeOutError, read_all, write_all};
use kedge_saved_state::{ImageWriter, PendingPair, Region, WrittenImage};

use super::{Checksums, SaveError};

/// Writes all of `memory`, in pages of `page_size` bytes: what was never touched is not
/// read, and pages of zeroes are holes.
///
/// # Errors
/// It cannot be read, or the host cannot write.
pub(super) fn write(
    pair: &PendingPair,
    memory: &GuestMemory,
    (page_size, checksums): (u32, Checksums),
) -> Result<WrittenImage, SaveError> {
    let mut image = pair.begin_memory(&regions(memory), page_size)?;
    // Without it, all is read, and what is zero left out.
    let pagemap = Pagemap::open().ok();
    let taken = match checksums {
        Checksums::Whole => {
            read_all(memory, pagemap.as_ref(), |offset, pages| image.write(offset, pages))
        }
        Checksums::Samples => write_directly(memory, pagemap.as_ref(), &mut image),
    };
    match taken {
        Ok(()) => {}
        Err(TakeOutError::Sink(error)) => return Err(pair.memory_error(error).into()),
        Err(unread) => return Err(unread.into()),
    }
    Ok(image.finish().map_err(|error| pair.memory_error(error))?)
}

/// Writes pages from where they are.
fn write_directly(
    memory: &GuestMemory,
    pagemap: Option<&Pagemap>,
    image: &mut ImageWriter<'_>,
) -> Result<(), TakeOutError> {
    let (file, mut noted) = (image.file(), Ok(()));
    write_all(memory, pagemap, file, |extent| {
        if noted.is_ok() {
            noted = image.add(extent);
        }
    })?;
    noted.map_err(TakeOutError::Sink)
}

/// What the memory file is told of the guest's memory.
fn regions(memory: &GuestMemory) -> Vec<Region> {
    let region = |region: &RamRegion| Region { start: region.start_addr().0, size: region.len() };
    memory.iter().map(region).collect()
}
