//! Which pages of guest RAM there are: the kernel's word on each page of our own
//! mappings (Documentation/admin-guide/mm/pagemap.rst).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use kedge_ids::u64_from;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use vm_memory::GuestMemoryRegion as _;

use crate::dirty::is_served;
use crate::{Extent, PageSet, RamRegion};

/// `/proc/self/pagemap`: eight bytes for each page. Opened while there is a `/proc`,
/// it can be asked in a jail without one.
#[derive(Debug)]
pub struct Pagemap(File);

/// The page is in memory.
const PRESENT: u64 = 1 << 63;
/// The page was moved out.
const SWAPPED: u64 = 1 << 62;
/// The page is a file's, or shared: a page of a private mapping that was written to is
/// neither.
const FILE: u64 = 1 << 61;

/// Asked for in pieces: that many pages at once.
const PAGES: usize = 8192;
const ENTRY: usize = size_of::<u64>();
/// A bit for each in a word.
const WORD: usize = 64;

impl Pagemap {
    /// Opens it, for this process.
    ///
    /// # Errors
    /// There is no `/proc`.
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// The pages of `region` that may hold something else than what its mapping began
    /// with: in anonymous memory all that were ever touched, in a private mapping of a
    /// file those that were written to. All others are zero, or still the file's. Where a
    /// page server has the others, it is all pages.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn touched(&self, region: &RamRegion) -> io::Result<PageSet> {
        if is_served(region) {
            return Ok(all(region));
        }
        let is_of_file = region.get_mmap().file_offset().is_some();
        self.pages(region, |entry| {
            entry & (PRESENT | SWAPPED) != 0 && !(is_of_file && entry & FILE != 0)
        })
    }

    /// The pages of `region` that are in memory and mapped: accesses to them raise no
    /// fault.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn resident(&self, region: &RamRegion) -> io::Result<PageSet> {
        self.pages(region, |entry| entry & PRESENT != 0)
    }

    fn pages(&self, region: &RamRegion, is: impl Fn(u64) -> bool) -> io::Result<PageSet> {
        let page = rustix::param::page_size();
        let mut left = region.size().div_ceil(page);
        let mut at = u64_from(region.as_ptr().addr() / page * ENTRY);
        let mut words = Vec::with_capacity(left.div_ceil(WORD));
        let mut buffer = vec![0; PAGES.min(left) * ENTRY];
        while left > 0 {
            let count = left.min(PAGES);
            let bytes = &mut buffer[..count * ENTRY];
            self.0.read_exact_at(bytes, at)?;
            let (entries, _) = bytes.as_chunks::<ENTRY>();
            let word = |entries: &[[u8; ENTRY]]| {
                let bits = entries.iter().enumerate();
                bits.fold(0, |word, (bit, entry)| {
                    word | u64::from(is(u64::from_ne_bytes(*entry))) << bit
                })
            };
            words.extend(entries.chunks(WORD).map(word));
            at += u64_from(count * ENTRY);
            left -= count;
        }
        let mut pages = PageSet::new(region.len());
        pages.add_words(&words);
        Ok(pages)
    }
}

/// The pages of `region` of which the file behind it has data: those that are not holes.
/// None in anonymous memory.
///
/// # Errors
/// The host does not tell.
pub fn backed(region: &RamRegion) -> io::Result<PageSet> {
    let mut pages = PageSet::new(region.len());
    let mapping = region.get_mmap();
    let Some(offset) = mapping.file_offset() else { return Ok(pages) };
    let (file, start) = (offset.file(), offset.start());
    let end = start.saturating_add(region.len());
    let mut at = start;
    loop {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) if data < end => data,
            // No data behind `at` (lseek(2)).
            Ok(_) | Err(Errno::NXIO) => return Ok(pages),
            Err(error) => return Err(error.into()),
        };
        at = seek(file, SeekFrom::Hole(data))?.min(end);
        pages.add(Extent::new(data - start, at - data));
    }
}

/// All pages of `region`.
pub(crate) fn all(region: &RamRegion) -> PageSet {
    let mut pages = PageSet::new(region.len());
    pages.add(Extent::new(0, region.len()));
    pages
}
