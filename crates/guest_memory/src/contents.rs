//! Taking guest RAM out, for a memory file: region after region, in order, and only
//! what can be anything but zero.
//!
//! Pages that were never touched are not read: reading would give the process a page
//! for each. Pages of a memory file that the guest only read, or never touched, come
//! from the file.
//!
//! There are two ways. [`read_all`] and [`read_dirty`] copy, for who looks at every
//! byte, to make checksums; [`write_all`] and [`write_dirty`] write to a file straight
//! from guest RAM, which is all that speed asks for.
//!
//! Nobody may write to the memory meanwhile: what is taken is not of one moment
//! otherwise.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use kedge_ids::{u64_from, usize_from};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _, MemoryRegionAddress};

use crate::pagemap::{all, backed};
use crate::spout::Spout;
use crate::zeroes::Pages;
use crate::{DirtySet, Extent, GuestMemory, PageSet, Pagemap, RamRegion, RamSlice};

/// Bytes that are copied at once: a file system takes them in few calls, and a CPU's
/// second-level cache holds them.
const PIECE: u64 = 256 << 10;

/// Bytes that are looked at and written in one go: whoever hears of what is written may
/// end it between two of them, and a disk takes this much in less than a second.
const STRETCH: u64 = 32 << 20;

/// Why guest RAM could not be taken out.
#[derive(Debug, thiserror::Error)]
pub enum TakeOutError {
    /// The host does not tell which pages there are.
    #[error("the host does not tell which pages of guest memory are in use")]
    Pages(#[source] io::Error),
    /// The memory file that the guest runs from cannot be read.
    #[error("the memory file that the guest runs from cannot be read")]
    File(#[source] io::Error),
    /// Whoever takes the pages does not, or the file does not.
    #[error("guest memory cannot be written out")]
    Sink(#[source] io::Error),
}

impl kedge_diag::Fix for TakeOutError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::File(_) => Some(
                "leave the memory files of snapshots alone while guests run from them".to_owned(),
            ),
            Self::Sink(source) if source.kind() == io::ErrorKind::StorageFull => {
                Some("make room, or save to another disk".to_owned())
            }
            Self::Pages(_) | Self::Sink(_) => None,
        }
    }
}

/// Gives `sink` all of `memory` that can be anything but zero: whole pages and their
/// offset in a memory file, in order. Where `pagemap` is not at hand, that is all.
///
/// # Errors
/// The host does not tell or read, or `sink` fails.
pub fn read_all(
    memory: &GuestMemory,
    pagemap: Option<&Pagemap>,
    sink: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), TakeOutError> {
    take_all(memory, pagemap, &mut Copies { sink, buffer: buffer() })
}

/// Gives `sink` the pages of `dirty`, and their offset in a memory file, in order.
///
/// # Errors
/// `sink` fails.
pub fn read_dirty(
    memory: &GuestMemory,
    dirty: &DirtySet,
    sink: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), TakeOutError> {
    take_dirty(memory, dirty, &mut Copies { sink, buffer: buffer() })
}

/// Writes all of `memory` that is not zero to the memory file `to`, which has only holes.
/// `written` hears of every extent of it, in order; those that touch may be one.
///
/// # Errors
/// The host does not tell, read or write, or `written` fails, which ends it.
pub fn write_all(
    memory: &GuestMemory,
    pagemap: Option<&Pagemap>,
    to: &File,
    written: impl FnMut(Range<u64>) -> io::Result<()>,
) -> Result<(), TakeOutError> {
    take_all(memory, pagemap, &mut Writes::new(to, written, Keeps::Data))
}

/// Writes the pages of `dirty`, zero or not, to the memory file `to`. `written` hears of
/// every extent of it, in order; those that touch may be one.
///
/// # Errors
/// The host does not write, or `written` fails, which ends it.
pub fn write_dirty(
    memory: &GuestMemory,
    dirty: &DirtySet,
    to: &File,
    written: impl FnMut(Range<u64>) -> io::Result<()>,
) -> Result<(), TakeOutError> {
    take_dirty(memory, dirty, &mut Writes::new(to, written, Keeps::All))
}

fn take_all(
    memory: &GuestMemory,
    pagemap: Option<&Pagemap>,
    taker: &mut impl Taker,
) -> Result<(), TakeOutError> {
    let mut offset = 0;
    for region in memory.iter() {
        let touched = pagemap.map_or_else(|| Ok(all(region)), |pagemap| pagemap.touched(region));
        let touched = touched.map_err(TakeOutError::Pages)?;
        let mut file = backed(region).map_err(TakeOutError::Pages)?;
        touched.extents().for_each(|extent| file.remove(extent));
        take_region(region, offset, [&touched, &file], taker)?;
        offset += region.len();
    }
    Ok(())
}

fn take_dirty(
    memory: &GuestMemory,
    dirty: &DirtySet,
    taker: &mut impl Taker,
) -> Result<(), TakeOutError> {
    let mut offset = 0;
    for (region, pages) in memory.iter().zip(dirty.regions()) {
        take_region(region, offset, [pages, &PageSet::new(region.len())], taker)?;
        offset += region.len();
    }
    Ok(())
}

/// Takes the pages that are in memory and those that are in the file behind it, which no
/// two of are the same, in order.
fn take_region(
    region: &RamRegion,
    offset: u64,
    [memory, file]: [&PageSet; 2],
    taker: &mut impl Taker,
) -> Result<(), TakeOutError> {
    let mut memory = memory.extents().peekable();
    let mut file = file.extents().peekable();
    loop {
        let next_of_file = file.peek().map_or(u64::MAX, |extent| extent.start);
        if let Some(extent) = memory.next_if(|extent| extent.start < next_of_file) {
            for stretch in stretches(extent) {
                check_backing(region).map_err(TakeOutError::File)?;
                taker.memory(offset + stretch.start, &slice(region, stretch)?)?;
            }
        } else if let Some(extent) = file.next() {
            let Some(backing) = region.get_mmap().file_offset().cloned() else { return Ok(()) };
            let at = backing.start() + extent.start..backing.start() + extent.end();
            taker.file(offset + extent.start, backing.file(), at)?;
        } else {
            return Ok(());
        }
    }
}

/// The extent in parts of at most [`STRETCH`] bytes.
fn stretches(extent: Extent) -> impl Iterator<Item = Extent> {
    let starts = (extent.start..extent.end()).step_by(usize_from(STRETCH));
    starts.map(move |start| Extent { start, length: STRETCH.min(extent.end() - start) })
}

/// A page past the file's end is gone even if it was written to. What is cut off between
/// this and the access is for who handles SIGBUS.
fn check_backing(region: &RamRegion) -> io::Result<()> {
    let mapping = region.get_mmap();
    let Some(backing) = mapping.file_offset() else { return Ok(()) };
    if backing.file().metadata()?.len() < backing.start() + region.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

fn slice(region: &RamRegion, extent: Extent) -> Result<RamSlice<'_>, TakeOutError> {
    let length = usize_from(extent.length);
    let slice = region.get_slice(MemoryRegionAddress(extent.start), length);
    slice.map_err(|error| TakeOutError::Pages(io::Error::other(error)))
}

fn buffer() -> Vec<u8> {
    vec![0; usize_from(PIECE)]
}

/// Who takes guest RAM.
trait Taker {
    /// Takes pages that are in memory; `offset` is theirs in the memory file.
    fn memory(&mut self, offset: u64, pages: &RamSlice<'_>) -> Result<(), TakeOutError>;

    /// Takes pages that `file` has in the range `at`.
    fn file(&mut self, offset: u64, file: &File, at: Range<u64>) -> Result<(), TakeOutError>;
}

/// Copies, for a sink that looks at the bytes.
struct Copies<S> {
    sink: S,
    buffer: Vec<u8>,
}

impl<S: FnMut(u64, &[u8]) -> io::Result<()>> Taker for Copies<S> {
    fn memory(&mut self, mut offset: u64, pages: &RamSlice<'_>) -> Result<(), TakeOutError> {
        let mut rest = *pages;
        while !rest.is_empty() {
            let copied = rest.copy_to(&mut self.buffer);
            (self.sink)(offset, &self.buffer[..copied]).map_err(TakeOutError::Sink)?;
            rest = rest.offset(copied).map_err(|e| TakeOutError::Pages(io::Error::other(e)))?;
            offset += u64_from(copied);
        }
        Ok(())
    }

    fn file(&mut self, offset: u64, file: &File, at: Range<u64>) -> Result<(), TakeOutError> {
        each_piece(&mut self.buffer, offset, file, at, &mut self.sink)
    }
}

/// Which pages are written.
#[derive(Clone, Copy)]
enum Keeps {
    /// Those that are not zero.
    Data,
    All,
}

/// Writes to a file, straight from where the pages are.
struct Writes<'f, W> {
    to: &'f File,
    /// Hears of what was written.
    written: W,
    keeps: Keeps,
    spout: Spout,
}

impl<'f, W> Writes<'f, W> {
    fn new(to: &'f File, written: W, keeps: Keeps) -> Self {
        Self { to, written, keeps, spout: Spout::new() }
    }
}

impl<W: FnMut(Range<u64>) -> io::Result<()>> Taker for Writes<'_, W> {
    fn memory(&mut self, offset: u64, pages: &RamSlice<'_>) -> Result<(), TakeOutError> {
        let page = rustix::param::page_size();
        let looked_at = match self.keeps {
            Keeps::Data => Pages::of(pages, page),
            Keeps::All => None,
        };
        let count = pages.len() / page;
        let run_from = |at| match &looked_at {
            Some(pages) => pages.data_from(at),
            None => Some(at..count).filter(|run| !run.is_empty()),
        };
        let mut at = 0;
        while let Some(Range { start: first, end: behind }) = run_from(at) {
            let run = pages.subslice(first * page, (behind - first) * page);
            let run = run.map_err(|error| TakeOutError::Pages(io::Error::other(error)))?;
            let start = offset + u64_from(first * page);
            self.spout.write(self.to, start, &run).map_err(TakeOutError::Sink)?;
            let written = (self.written)(start..start + u64_from(run.len()));
            written.map_err(TakeOutError::Sink)?;
            at = behind;
        }
        Ok(())
    }

    fn file(&mut self, offset: u64, file: &File, at: Range<u64>) -> Result<(), TakeOutError> {
        each_piece(&mut buffer(), offset, file, at, &mut |offset, bytes| {
            self.to.write_all_at(bytes, offset)?;
            (self.written)(offset..offset + u64_from(bytes.len()))
        })
    }
}

fn each_piece(
    buffer: &mut [u8],
    mut offset: u64,
    file: &File,
    mut at: Range<u64>,
    sink: &mut impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), TakeOutError> {
    while !at.is_empty() {
        let length = u64_from(buffer.len()).min(at.end - at.start);
        let bytes = &mut buffer[..usize_from(length)];
        file.read_exact_at(bytes, at.start).map_err(TakeOutError::File)?;
        sink(offset, bytes).map_err(TakeOutError::Sink)?;
        offset += length;
        at.start += length;
    }
    Ok(())
}
