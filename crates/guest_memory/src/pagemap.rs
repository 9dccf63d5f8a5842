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
use crate::pagescan::{self, Kind, scan};
use crate::{Extent, PageSet, RamRegion};

/// `/proc/self/pagemap`: it scans for pages where the kernel can, and has eight bytes for
/// each. Opened while there is a `/proc`, it can be asked in a jail without one.
#[derive(Debug)]
pub struct Pagemap(File);

/// What a page is, and the bit of its entry that says so. A page of a private mapping that
/// was written to is no file's.
const ENTRY_BITS: [(u64, u64); 3] =
    [(pagescan::PRESENT, 1 << 63), (pagescan::SWAPPED, 1 << 62), (pagescan::FILE, 1 << 61)];

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
        let none_of = if is_of_file { pagescan::FILE } else { 0 };
        self.pages(region, Kind { any_of: pagescan::PRESENT | pagescan::SWAPPED, none_of })
    }

    /// The pages of `region` that are in memory and mapped: accesses to them raise no
    /// fault.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn resident(&self, region: &RamRegion) -> io::Result<PageSet> {
        self.pages(region, Kind { any_of: pagescan::PRESENT, none_of: 0 })
    }

    /// Both ways tell the same, and reading works wherever scanning does not, for whatever
    /// reason: a kernel before Linux 6.7 has none of it.
    fn pages(&self, region: &RamRegion, kind: Kind) -> io::Result<PageSet> {
        self.scanned(region, kind).or_else(|_| self.read(region, kind))
    }

    fn scanned(&self, region: &RamRegion, kind: Kind) -> Result<PageSet, Errno> {
        let start = u64_from(region.as_ptr().addr());
        let mut pages = PageSet::new(region.len());
        scan(&self.0, kind, &(start..start + region.len()), |range| {
            pages.add(Extent::new(range.start - start, range.end - range.start));
        })?;
        Ok(pages)
    }

    fn read(&self, region: &RamRegion, kind: Kind) -> io::Result<PageSet> {
        let (any_of, none_of) = (entry_bits(kind.any_of), entry_bits(kind.none_of));
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
                    let entry = u64::from_ne_bytes(*entry);
                    word | u64::from(entry & any_of != 0 && entry & none_of == 0) << bit
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

/// What a page is, as the bits of its entry have it.
fn entry_bits(of: u64) -> u64 {
    let bit = |(kind, bit): (u64, u64)| if of & kind == 0 { 0 } else { bit };
    ENTRY_BITS.into_iter().map(bit).sum()
}

/// The pages of `region` of which the file behind it has data: those that are not holes.
/// None in anonymous memory.
///
/// # Errors
/// The host does not tell.
pub fn backed(region: &RamRegion) -> io::Result<PageSet> {
    match region.get_mmap().file_offset() {
        Some(offset) => backed_by(offset.file(), offset.start(), region.len()),
        None => Ok(PageSet::new(region.len())),
    }
}

/// The same of `length` bytes of `file` from `start` on.
pub(crate) fn backed_by(file: &File, start: u64, length: u64) -> io::Result<PageSet> {
    let mut pages = PageSet::new(length);
    let end = start.saturating_add(length);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vm_memory::mmap::MmapRegionBuilder;
    use vm_memory::{FileOffset, GuestMemoryBackend as _, MmapRegion};

    use crate::{
        Bytes as _, GuestAddress, GuestMemory, GuestRange, PageAdvice, advise, map_anonymous,
        map_file_private,
    };

    use super::*;

    const RAM: u64 = 0x8000_0000;
    /// More of them, by turns, than one answer of a scan has ranges.
    const PAGES: u64 = 3000;

    const KINDS: [Kind; 3] = [
        Kind { any_of: pagescan::PRESENT, none_of: 0 },
        Kind { any_of: pagescan::PRESENT | pagescan::SWAPPED, none_of: 0 },
        Kind { any_of: pagescan::PRESENT | pagescan::SWAPPED, none_of: pagescan::FILE },
    ];

    fn page() -> u64 {
        u64_from(rustix::param::page_size())
    }

    fn length() -> u64 {
        PAGES * page()
    }

    fn address(number: u64) -> GuestAddress {
        GuestAddress(RAM + number * page())
    }

    /// Reads some pages, and writes to others: both in many runs, and in a few long ones.
    fn touch(memory: &GuestMemory) {
        for number in (0..2000).step_by(3).chain(2100..2300) {
            memory.read_obj::<u8>(address(number)).unwrap();
        }
        for number in (1..2000).step_by(2).chain(2400..2600).chain([PAGES - 1]) {
            memory.write_obj(1_u8, address(number)).unwrap();
        }
    }

    /// The pages of each kind in `memory`, which is one region: as they are told, by a scan
    /// where the kernel has it, and as they are read.
    fn both_ways(memory: &GuestMemory) -> [Vec<PageSet>; 2] {
        let pagemap = Pagemap::open().unwrap();
        let region = memory.iter().next().unwrap();
        let all = |way: &dyn Fn(Kind) -> io::Result<PageSet>| {
            KINDS.into_iter().map(|kind| way(kind).unwrap()).collect()
        };
        [all(&|kind| pagemap.pages(region, kind)), all(&|kind| pagemap.read(region, kind))]
    }

    fn file() -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length()).unwrap();
        for number in 500..1500 {
            file.write_all_at(&[7; 8], number * page()).unwrap();
        }
        Arc::new(file)
    }

    #[test]
    fn a_scan_fails_on_kernels_that_have_none_only() {
        let memory = map_anonymous(&[GuestRange::new(RAM, length())]).unwrap();
        let scanned = Pagemap::open().unwrap().scanned(memory.iter().next().unwrap(), KINDS[0]);
        // The second is what user-mode emulation says.
        let is_told = matches!(scanned, Ok(_) | Err(Errno::NOTTY | Errno::NOSYS));
        assert!(is_told, "{scanned:?}");
    }

    #[test]
    fn pages_of_anonymous_memory_are_the_same_both_ways() {
        for advice in [PageAdvice::Small, PageAdvice::Huge] {
            let memory = map_anonymous(&[GuestRange::new(RAM, length())]).unwrap();
            advise(&memory, advice);
            touch(&memory);
            let [told, read] = both_ways(&memory);
            assert_eq!(told, read);
        }
    }

    #[test]
    fn pages_of_a_private_mapping_are_the_same_both_ways() {
        let memory = map_file_private(&[GuestRange::new(RAM, length())], &file()).unwrap();
        touch(&memory);
        let [told, read] = both_ways(&memory);
        assert_eq!(told, read);
    }

    #[test]
    fn pages_of_a_shared_mapping_are_the_same_both_ways() {
        let mapping: MmapRegion<_> = MmapRegionBuilder::new(usize::try_from(length()).unwrap())
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED)
            .with_file_offset(FileOffset::from_arc(file(), 0))
            .build()
            .unwrap();
        let region = RamRegion::new(mapping, GuestAddress(RAM)).unwrap();
        let memory = GuestMemory::from_regions(vec![region]).unwrap();
        touch(&memory);
        let [told, read] = both_ways(&memory);
        assert_eq!(told, read);
    }

    #[test]
    fn a_region_that_ends_within_a_page_has_that_page() {
        let memory = map_anonymous(&[GuestRange::new(RAM, 3 * page() + 0x200)]).unwrap();
        memory.write_obj(1_u8, address(3)).unwrap();
        let [told, read] = both_ways(&memory);
        assert_eq!(told[0].bytes(), page());
        assert_eq!(told, read);
    }
}
