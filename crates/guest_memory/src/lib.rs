//! Guest RAM: mapping and sharing. The one importer of vm-memory's mmap back
//! end; every other crate speaks of memory through the names here.
//!
//! | memory comes from | by |
//! |---|---|
//! | nowhere: zeroes, as the guest touches them | [`map_anonymous`] |
//! | a snapshot's memory file, as the guest touches it | [`map_file_private`], with [`Lost`] |
//! | the same, some pages before it touches them | [`prefetch`] |
//! | another process, as the guest touches it | [`map_served`] |
//! | nowhere, or a memory file at once, to be shared with other processes | [`map_shared`], [`fill_from`] |
//!
//! It leaves by [`write_all`] and [`read_all`], and what was written since by
//! [`write_dirty`] and [`read_dirty`], with what [`dirty`] and the hypervisor recorded.
#![deny(unsafe_code)]

mod contents;
pub mod dirty;
mod faults;
mod lost;
mod page_server;
mod pagemap;
mod pages;
mod pagescan;
mod pageset;
mod prefetch;
mod registers;
mod shared;
mod spout;
mod zeroes;

use std::fs::File;
use std::sync::Arc;

pub use contents::{TakeOutError, read_all, read_dirty, write_all, write_dirty};
pub use dirty::{DirtyPages, DirtySet, DirtySlice, RamSlice};
use kedge_diag::Fix;
pub use lost::Lost;
pub use page_server::{PageServer, PageServerError, ServedPages, map_served};
pub use pagemap::{Pagemap, backed};
pub use pages::{PageAdvice, about_to_fill, advise};
pub use pageset::{Extent, PageSet};
pub use prefetch::prefetch;
pub use registers::RegisterPages;
pub use shared::{WriteLog, fill_from, is_shared, map_shared};
pub use vm_memory::bitmap::BitmapSlice;
use vm_memory::mmap::MmapRegionBuilder;
pub use vm_memory::{
    Address, ByteValued, Bytes, GuestAddress, GuestMemory as GuestMemoryAccess, GuestMemoryBackend,
    GuestMemoryError, GuestMemoryRegion,
};
pub use vm_memory::{FileOffset, GuestMemoryMmap, MemoryRegionAddress, MmapRegion};

/// One contiguous piece of guest RAM and the host mapping behind it.
pub type RamRegion = vm_memory::GuestRegionMmap<DirtyPages>;

/// All of a guest's RAM. Cloning shares the mappings.
pub type GuestMemory = GuestMemoryMmap<DirtyPages>;

/// A range of guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestRange {
    /// The first address.
    pub start: GuestAddress,
    /// The length in bytes.
    pub size: u64,
}

impl GuestRange {
    /// The range of `size` bytes from `start`.
    pub const fn new(start: u64, size: u64) -> Self {
        Self { start: GuestAddress(start), size }
    }

    /// The first address behind the range, or the last address there is.
    pub const fn end(&self) -> u64 {
        self.start.0.saturating_add(self.size)
    }
}

/// Why guest RAM could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The host has no room in its address space or its memory limits.
    #[error("the host cannot map {} MiB of guest memory at {:#x}", size >> 20, start)]
    Map {
        /// The region's first guest address.
        start: u64,
        /// The region's length in bytes.
        size: u64,
        /// What the host said.
        source: std::io::Error,
    },
    /// The host's pool of huge pages is too small, or there is none.
    #[error("the host has no {} MiB of huge pages left for guest memory at {start:#x}", size >> 20)]
    HugePages {
        /// The region's first guest address.
        start: u64,
        /// The region's length in bytes.
        size: u64,
        /// What the host said.
        source: std::io::Error,
    },
    /// The memory does not end with a huge page.
    #[error("guest memory of {size} bytes at {start:#x} is not whole huge pages of 2 MiB")]
    Uneven {
        /// The region's first guest address.
        start: u64,
        /// The region's length in bytes.
        size: u64,
    },
    /// The file does not have that much.
    #[error("the memory file has {length} bytes, and the guest's memory has {needed}")]
    Short {
        /// The file's length in bytes.
        length: u64,
        /// The guest's memory in bytes.
        needed: u64,
    },
    /// The host cannot tell how long the file is.
    #[error("the memory file cannot be read")]
    File(#[source] std::io::Error),
    /// Two regions overlap, or one wraps the address space.
    #[error("guest memory at {start:#x} overlaps other guest memory or ends past 2^64")]
    Layout {
        /// The region's first guest address.
        start: u64,
    },
}

impl Fix for MapError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Map { .. } => {
                Some("ask for less memory, or raise the limits (ulimit -v, cgroup)".to_owned())
            }
            Self::Short { .. } => {
                Some("name the memory file that was saved with the state file".to_owned())
            }
            Self::HugePages { .. } => {
                Some("add some (sysctl vm.nr_hugepages), or do without them".to_owned())
            }
            Self::Uneven { .. } => Some("do without huge pages".to_owned()),
            Self::File(_) | Self::Layout { .. } => None,
        }
    }
}

/// Maps anonymous memory for each of `ranges`. Nothing is read, zeroed or
/// reserved before the guest touches it.
///
/// # Errors
/// The host refuses a mapping, or the ranges overlap.
pub fn map_anonymous(ranges: &[GuestRange]) -> Result<GuestMemory, MapError> {
    let region = |range: &GuestRange| map_region(range, None).map(Arc::new);
    collect(ranges, ranges.iter().map(region).collect::<Result<_, _>>()?)
}

/// The size of the pages of [`map_huge`].
pub(crate) const HUGE_PAGE: u64 = 2 << 20;

/// Maps memory for each of `ranges` on pages of 2 MiB from the host's pool (hugetlbfs),
/// which are this memory's from now on.
///
/// # Errors
/// There are not enough, or the ranges are no whole ones.
pub(crate) fn map_huge(ranges: &[GuestRange]) -> Result<GuestMemory, MapError> {
    let region = |&GuestRange { start: GuestAddress(start), size }: &GuestRange| {
        if !size.is_multiple_of(HUGE_PAGE) {
            return Err(MapError::Uneven { start, size });
        }
        let length = usize::try_from(size).map_err(|_| MapError::Layout { start })?;
        // Reserved here and now: where a page is missing later, it is SIGBUS.
        let huge = libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
        let mapping = MmapRegionBuilder::new(length)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | huge)
            .build();
        let refused = |error| MapError::HugePages { start, size, source: os_error(error) };
        let region = RamRegion::new(mapping.map_err(refused)?, GuestAddress(start));
        region.map(Arc::new).ok_or(MapError::Layout { start })
    };
    collect(ranges, ranges.iter().map(region).collect::<Result<_, _>>()?)
}

fn os_error(error: vm_memory::mmap::MmapRegionError) -> std::io::Error {
    match error {
        vm_memory::mmap::MmapRegionError::Mmap(error) => error,
        error => std::io::Error::other(error),
    }
}

/// Maps `file` for `ranges`, one after the other. Nothing is read before the guest
/// touches it, and nothing that the guest writes reaches the file: a page that is
/// written to is copied first, and any number of guests can run from one file.
///
/// Whoever shortens the file takes pages away from under the guest: the kernel raises
/// SIGBUS in who touches them.
///
/// # Errors
/// The file is shorter than the ranges, the host refuses a mapping, or the ranges
/// overlap.
pub fn map_file_private(ranges: &[GuestRange], file: &Arc<File>) -> Result<GuestMemory, MapError> {
    let length = file.metadata().map_err(MapError::File)?.len();
    let mut offset = 0_u64;
    let mut regions = Vec::with_capacity(ranges.len());
    for range in ranges {
        let start = range.start.0;
        let end = offset.checked_add(range.size).ok_or(MapError::Layout { start })?;
        if end > length {
            let needed = ranges.iter().fold(0, |sum: u64, range| sum.saturating_add(range.size));
            return Err(MapError::Short { length, needed });
        }
        let from = FileOffset::from_arc(Arc::clone(file), offset);
        regions.push(Arc::new(map_region(range, Some(from))?));
        offset = end;
    }
    collect(ranges, regions)
}

fn collect(ranges: &[GuestRange], regions: Vec<Arc<RamRegion>>) -> Result<GuestMemory, MapError> {
    let start = ranges.first().map_or(0, |range| range.start.0);
    GuestMemory::from_arc_regions(regions).map_err(|_| MapError::Layout { start })
}

/// The regions of `memory`, each sharing its mapping, in order of their addresses.
pub fn regions(memory: &GuestMemory) -> Vec<Arc<RamRegion>> {
    let shared = |region: &RamRegion| RamRegion::with_arc(region.get_mmap(), region.start_addr());
    memory.iter().filter_map(shared).map(Arc::new).collect()
}

fn map_region(range: &GuestRange, file: Option<FileOffset>) -> Result<RamRegion, MapError> {
    let (start, size) = (range.start.0, range.size);
    let refused = |source| MapError::Map { start, size, source };
    let length = usize::try_from(size).map_err(|_| MapError::Layout { start })?;
    let private = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
    let mut mapping = MmapRegionBuilder::new(length)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(private | libc::MAP_ANONYMOUS);
    if let Some(file) = file {
        mapping = mapping.with_mmap_flags(private).with_file_offset(file);
    }
    let mapping = mapping.build().map_err(|error| refused(std::io::Error::other(error)))?;
    RamRegion::new(mapping, range.start).ok_or(MapError::Layout { start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_reads_as_zero_and_keeps_what_is_written() {
        let memory = map_anonymous(&[GuestRange::new(0x8000_0000, 0x10_0000)]).unwrap();
        let at = GuestAddress(0x8000_1000);
        assert_eq!(memory.read_obj::<u64>(at).unwrap(), 0);
        memory.write_obj(7_u64, at).unwrap();
        assert_eq!(memory.read_obj::<u64>(at).unwrap(), 7);
    }

    #[test]
    fn a_region_shares_its_mapping() {
        let memory = map_anonymous(&[GuestRange::new(0x1000, 0x1000)]).unwrap();
        let shared = GuestMemory::from_arc_regions(regions(&memory)).unwrap();
        memory.write_obj(7_u64, GuestAddress(0x1008)).unwrap();
        assert_eq!(shared.read_obj::<u64>(GuestAddress(0x1008)).unwrap(), 7);
    }

    #[test]
    fn overlapping_ranges_are_refused() {
        let ranges = [GuestRange::new(0x1000, 0x2000), GuestRange::new(0x2000, 0x1000)];
        assert!(matches!(map_anonymous(&ranges), Err(MapError::Layout { .. })));
    }

    #[test]
    fn a_range_the_host_cannot_map_is_an_error_with_a_cure() {
        let error = map_anonymous(&[GuestRange::new(0, 1 << 60)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the host cannot map 1099511627776 MiB of guest memory at 0x0"
        );
        assert!(error.fix().is_some());
    }
}
