//! Which pages were written: what the host's side of a machine wrote to guest
//! RAM, page by page, for a differential snapshot.
//!
//! What vCPUs write is in the hypervisor's log; what devices write to memory is
//! recorded here, by vm-memory, as each write goes through it. Until somebody
//! asks for it, a write costs one load and one branch.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use kedge_ids::usize_from;
use vm_memory::bitmap::{AtomicBitmap, Bitmap, NewBitmap, RefSlice, WithBitmapSlice};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _, VolatileSlice};

use crate::pageset::PageSet;
use crate::{GuestMemory, RamRegion};

/// The written pages of one region, as its mapping keeps them. They are recorded
/// from the moment [`track`] is called for its memory.
#[derive(Debug, Default)]
pub struct DirtyPages {
    map: OnceLock<AtomicBitmap>,
    /// A page server has what nobody touched yet: see [`is_served`].
    is_served: AtomicBool,
}

/// A piece of guest RAM that can be copied from and to.
pub type RamSlice<'m> = VolatileSlice<'m, DirtySlice<'m>>;

/// What a [`RamSlice`] records its writes in.
pub type DirtySlice<'m> = RefSlice<'m, DirtyPages>;

impl<'a> WithBitmapSlice<'a> for DirtyPages {
    type S = DirtySlice<'a>;
}

impl Bitmap for DirtyPages {
    fn mark_dirty(&self, offset: usize, len: usize) {
        if let Some(map) = self.map.get() {
            map.set_addr_range(offset, len);
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.map.get().is_some_and(|map| map.is_addr_set(offset))
    }

    fn slice_at(&self, offset: usize) -> DirtySlice<'_> {
        RefSlice::new(self, offset)
    }
}

impl NewBitmap for DirtyPages {
    fn with_len(_: usize) -> Self {
        Self::default()
    }
}

/// Written pages of each region of a memory, in the order of [`crate::regions`]:
/// what one differential snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirtySet {
    regions: Vec<PageSet>,
}

impl DirtySet {
    /// The pages of each region.
    pub fn regions(&self) -> &[PageSet] {
        &self.regions
    }

    /// Adds the hypervisor's log of a region: bit `n` of word `w` stands for page
    /// `64 * w + n`. None, and nothing added, where there is no such region.
    pub fn merge(&mut self, region: usize, log: &[u64]) -> Option<()> {
        self.regions.get_mut(region)?.add_words(log);
        Some(())
    }

    /// How many bytes the pages are.
    pub fn bytes(&self) -> u64 {
        self.regions.iter().map(PageSet::bytes).sum()
    }
}

/// Records writes to `memory` from now on, until its end. Asked for again, it goes on.
pub fn track(memory: &GuestMemory) {
    for region in memory.iter() {
        let page = NonZeroUsize::new(rustix::param::page_size()).unwrap_or(NonZeroUsize::MIN);
        region.get_mmap().bitmap().map.get_or_init(|| AtomicBitmap::new(region.size(), page));
    }
}

/// Records all of `memory` as written: somebody wrote, and nobody knows where.
pub fn add_all(memory: &GuestMemory) {
    memory.iter().for_each(|region| mark(region, &crate::pagemap::all(region)));
}

/// Whether writes to `memory` are recorded.
pub fn is_tracked(memory: &GuestMemory) -> bool {
    memory.iter().all(|region| region.get_mmap().bitmap().map.get().is_some())
}

/// From here on, pages of `memory` that nobody touched are a page server's.
pub(crate) fn mark_served(memory: &GuestMemory) {
    for region in memory.iter() {
        region.get_mmap().bitmap().is_served.store(true, Ordering::Release);
    }
}

/// Whether pages of `region` that nobody touched are a page server's, and not zero.
pub(crate) fn is_served(region: &RamRegion) -> bool {
    region.get_mmap().bitmap().is_served.load(Ordering::Acquire)
}

/// Takes the pages written since the last time: from here on, writes are recorded
/// anew. What could not be saved after all is given back by [`put_back`].
pub fn take(memory: &GuestMemory) -> DirtySet {
    let regions = memory.iter().map(|region| {
        let mut pages = PageSet::new(region.len());
        if let Some(map) = region.get_mmap().bitmap().map.get() {
            pages.add_words(&map.get_and_reset());
        }
        pages
    });
    DirtySet { regions: regions.collect() }
}

/// Records the pages of `dirty` as written again, whoever wrote them: what was
/// taken from the hypervisor's log comes back through [`take`] as well.
pub fn put_back(memory: &GuestMemory, dirty: &DirtySet) {
    for (region, pages) in memory.iter().zip(&dirty.regions) {
        mark(region, pages);
    }
}

fn mark(region: &RamRegion, pages: &PageSet) {
    for extent in pages.extents() {
        region.get_mmap().bitmap().mark_dirty(usize_from(extent.start), usize_from(extent.length));
    }
}

#[cfg(test)]
mod tests {
    use crate::{Bytes, Extent, GuestAddress, GuestRange, map_anonymous};

    use super::*;

    const RAM: u64 = 0x8000_0000;

    fn page() -> u64 {
        kedge_ids::u64_from(rustix::param::page_size())
    }

    fn memory() -> GuestMemory {
        let ranges = [GuestRange::new(RAM, 64 * page()), GuestRange::new(2 * RAM, 4 * page())];
        map_anonymous(&ranges).unwrap()
    }

    fn extents(dirty: &DirtySet, region: usize) -> Vec<Extent> {
        dirty.regions()[region].extents().collect()
    }

    #[test]
    fn nothing_is_recorded_until_it_is_asked_for() {
        let memory = memory();
        memory.write_obj(7_u64, GuestAddress(RAM)).unwrap();
        assert!(!is_tracked(&memory));
        assert_eq!(take(&memory).bytes(), 0);
    }

    #[test]
    fn a_write_is_recorded_in_its_region_once() {
        let memory = memory();
        track(&memory);
        memory.write_slice(&[1; 64], GuestAddress(RAM + 3 * page() - 32)).unwrap();
        memory.write_obj(7_u64, GuestAddress(2 * RAM)).unwrap();
        let dirty = take(&memory);
        assert_eq!(extents(&dirty, 0), [Extent::new(2 * page(), 2 * page())]);
        assert_eq!(extents(&dirty, 1), [Extent::new(0, page())]);
        assert_eq!(take(&memory).bytes(), 0);
    }

    #[test]
    fn a_write_through_shared_regions_is_recorded() {
        let memory = memory();
        track(&memory);
        let shared = GuestMemory::from_arc_regions(crate::regions(&memory)).unwrap();
        shared.write_obj(7_u64, GuestAddress(RAM)).unwrap();
        assert_eq!(take(&memory).bytes(), page());
    }

    #[test]
    fn what_is_put_back_is_taken_again_with_what_came_since() {
        let memory = memory();
        track(&memory);
        memory.write_obj(7_u64, GuestAddress(RAM)).unwrap();
        let mut dirty = take(&memory);
        dirty.merge(0, &[0b1000]).unwrap();
        memory.write_obj(7_u64, GuestAddress(2 * RAM)).unwrap();
        put_back(&memory, &dirty);
        let again = take(&memory);
        assert_eq!(extents(&again, 0), [Extent::new(0, page()), Extent::new(3 * page(), page())]);
        assert_eq!(extents(&again, 1), [Extent::new(0, page())]);
    }

    #[test]
    fn a_log_of_a_region_that_is_not_there_is_refused() {
        assert_eq!(take(&memory()).merge(2, &[1]), None);
    }

    #[test]
    fn tracking_goes_on_when_asked_for_again() {
        let memory = memory();
        track(&memory);
        memory.write_obj(7_u64, GuestAddress(RAM)).unwrap();
        track(&memory);
        assert_eq!(take(&memory).bytes(), page());
    }
}
