//! Reading guest RAM out, for a memory file: region after region, in order, and only
//! what can be anything but zero.
//!
//! Pages that were never touched are not read: reading would give the process a page
//! for each. Pages of a memory file that the guest only read, or never touched, come
//! from the file.

use std::io;
use std::os::unix::fs::FileExt;

use kedge_ids::usize_from;
use vm_memory::{Bytes as _, GuestMemoryBackend as _, GuestMemoryRegion as _, MemoryRegionAddress};

use crate::pagemap::{all, backed};
use crate::{DirtySet, Extent, GuestMemory, PageSet, Pagemap, RamRegion};

/// Bytes that are copied at once: a file system takes them in few calls, and a CPU's
/// second-level cache holds them.
const PIECE: u64 = 256 << 10;

/// Why guest RAM could not be read out.
#[derive(Debug, thiserror::Error)]
pub enum ReadOutError {
    /// The host does not tell which pages there are.
    #[error("the host does not tell which pages of guest memory are in use")]
    Pages(#[source] io::Error),
    /// The memory file that the guest runs from cannot be read.
    #[error("the memory file that the guest runs from cannot be read")]
    File(#[source] io::Error),
    /// Whoever takes the pages does not.
    #[error("guest memory cannot be written out")]
    Sink(#[source] io::Error),
}

impl kedge_diag::Fix for ReadOutError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::File(_) => Some(
                "leave the memory files of snapshots alone while guests run from them".to_owned(),
            ),
            Self::Pages(_) | Self::Sink(_) => None,
        }
    }
}

/// Gives `sink` all of `memory` that can be anything but zero: whole pages and their
/// offset in a memory file, in order. Where `pagemap` is not at hand, that is all.
///
/// Nobody may write to `memory` meanwhile: what is read is not of one moment otherwise.
///
/// # Errors
/// The host does not tell or read, or `sink` fails.
pub fn read_all(
    memory: &GuestMemory,
    pagemap: Option<&Pagemap>,
    mut sink: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), ReadOutError> {
    each_region(memory, |region, copy| {
        let touched = pagemap.map_or_else(|| Ok(all(region)), |pagemap| pagemap.touched(region));
        let touched = touched.map_err(ReadOutError::Pages)?;
        let mut file = backed(region).map_err(ReadOutError::Pages)?;
        touched.extents().for_each(|extent| file.remove(extent));
        copy.pages(&touched, &file, &mut sink)
    })
}

/// Gives `sink` the pages of `dirty`, and their offset in a memory file, in order.
///
/// # Errors
/// `sink` fails.
pub fn read_dirty(
    memory: &GuestMemory,
    dirty: &DirtySet,
    mut sink: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), ReadOutError> {
    let mut regions = dirty.regions().iter();
    each_region(memory, |region, copy| match regions.next() {
        Some(pages) => copy.pages(pages, &PageSet::new(region.len()), &mut sink),
        None => Ok(()),
    })
}

fn each_region(
    memory: &GuestMemory,
    mut read: impl FnMut(&RamRegion, &mut Copy<'_>) -> Result<(), ReadOutError>,
) -> Result<(), ReadOutError> {
    let mut buffer = vec![0; usize_from(PIECE)];
    let mut offset = 0;
    for region in memory.iter() {
        read(region, &mut Copy { region, offset, buffer: &mut buffer })?;
        offset += region.len();
    }
    Ok(())
}

/// A region on its way out.
struct Copy<'c> {
    region: &'c RamRegion,
    /// Where the region begins in a memory file.
    offset: u64,
    buffer: &'c mut [u8],
}

impl Copy<'_> {
    /// Hands on the pages of `memory` and those of `file`, which no two of are the same,
    /// in order.
    fn pages(
        &mut self,
        memory: &PageSet,
        file: &PageSet,
        sink: &mut impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), ReadOutError> {
        let mut memory = memory.extents().peekable();
        let mut file = file.extents().peekable();
        loop {
            let next_of_file = file.peek().map_or(u64::MAX, |extent| extent.start);
            if let Some(extent) = memory.next_if(|extent| extent.start < next_of_file) {
                self.extent(extent, sink, Self::read_memory)?;
            } else if let Some(extent) = file.next() {
                self.extent(extent, sink, Self::read_file)?;
            } else {
                return Ok(());
            }
        }
    }

    fn extent(
        &mut self,
        extent: Extent,
        sink: &mut impl FnMut(u64, &[u8]) -> io::Result<()>,
        read: fn(&RamRegion, u64, &mut [u8]) -> io::Result<()>,
    ) -> Result<(), ReadOutError> {
        let mut at = extent.start;
        while at < extent.end() {
            let length = PIECE.min(extent.end() - at);
            let bytes = &mut self.buffer[..usize_from(length)];
            read(self.region, at, bytes).map_err(ReadOutError::File)?;
            sink(self.offset + at, bytes).map_err(ReadOutError::Sink)?;
            at += length;
        }
        Ok(())
    }

    fn read_memory(region: &RamRegion, at: u64, to: &mut [u8]) -> io::Result<()> {
        if let Some(backing) = region.get_mmap().file_offset() {
            // A page past the file's end is gone even if it was written to. What is cut
            // off between this and the copy is for who handles SIGBUS.
            let needed = backing.start() + region.len();
            if backing.file().metadata()?.len() < needed {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        region.read_slice(to, MemoryRegionAddress(at)).map_err(io::Error::other)
    }

    fn read_file(region: &RamRegion, at: u64, to: &mut [u8]) -> io::Result<()> {
        let mapping = region.get_mmap();
        let backing = mapping.file_offset().ok_or(io::ErrorKind::NotFound)?;
        backing.file().read_exact_at(to, backing.start() + at)
    }
}
