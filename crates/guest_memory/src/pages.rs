//! How large the host's pages behind guest RAM are.
//!
//! Where the host gives huge pages to whoever touches memory first, loading a
//! small kernel would populate megabytes that the guest may never use. So the
//! blocks that an image fills only in part stay on small pages.

// UNSAFETY: madvise is unsafe since some advice discards memory; ours does not.
#![expect(unsafe_code)]

use std::ffi::c_void;

use kedge_ids::u64_from;
use rustix::mm::{Advice, madvise};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::{GuestMemory, GuestRange, RamRegion};

/// Says that `range` is about to be filled: the huge pages it would begin or end
/// within come as small ones. A hint: where the host does not take it, more
/// memory is used than need be.
pub fn about_to_fill(memory: &GuestMemory, range: GuestRange) {
    let Some(region) = memory.find_region(range.start) else { return };
    let offset = range.start.0 - region.start_addr().0;
    let block = huge_page();
    // Huge pages are aligned in the host's address space.
    let base = u64_from(region.as_ptr().addr());
    let (start, end) = (base + offset, base.saturating_add(offset).saturating_add(range.size));
    let edges = [start, end].into_iter().filter(|edge| !edge.is_multiple_of(block));
    let mut blocks: Vec<_> = edges.map(|edge| edge / block).collect();
    blocks.dedup();
    for number in blocks {
        let first = (number * block).max(base);
        let behind = (number + 1).saturating_mul(block).min(base + region.len());
        if first < behind {
            keep_small(region, first - base, behind - first);
        }
    }
}

/// How large the host's pages behind memory are to be, where it has a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageAdvice {
    /// As small as it has them.
    Small,
    /// Huge ones, where it has them at hand: for what the guest touches first in memory
    /// that is nobody's else, and for a file's pages where the file system has them.
    Huge,
}

/// Says how large the pages of `memory` are to be. A hint, which a host without huge pages
/// does not take.
pub fn advise(memory: &GuestMemory, advice: PageAdvice) {
    let advice = match advice {
        PageAdvice::Small => Advice::LinuxNoHugepage,
        PageAdvice::Huge => Advice::LinuxHugepage,
    };
    for region in memory.iter() {
        // SAFETY: the range is `region`'s mapping, and this advice changes no content.
        let advised = unsafe { madvise(region.as_ptr().cast(), region.size(), advice) };
        let _ = advised;
    }
}

/// The size of a huge page in bytes: what one table of the last level maps, at
/// eight bytes an entry.
fn huge_page() -> u64 {
    let page = u64_from(rustix::param::page_size());
    page * page / 8
}

fn keep_small(region: &RamRegion, offset: u64, length: u64) {
    let first = region.as_ptr().wrapping_add(kedge_ids::usize_from(offset)).cast::<c_void>();
    // SAFETY: the range lies within `region`'s mapping, as `about_to_fill` clips it,
    // and this advice changes no content.
    let advised = unsafe { madvise(first, kedge_ids::usize_from(length), Advice::LinuxNoHugepage) };
    // Kernels without huge pages refuse; then there is nothing to keep small.
    let _ = advised;
}

#[cfg(test)]
mod tests {
    use crate::{Bytes, GuestAddress, map_anonymous};

    use super::*;

    #[test]
    fn what_is_filled_in_part_stays_as_it_was() {
        let memory = map_anonymous(&[GuestRange::new(0x8000_0000, 16 << 20)]).unwrap();
        let at = GuestAddress(0x8020_0000);
        memory.write_obj(7_u64, at).unwrap();
        about_to_fill(&memory, GuestRange { start: at, size: 0x2000 });
        assert_eq!(memory.read_obj::<u64>(at).unwrap(), 7);
    }

    #[test]
    fn a_range_outside_memory_is_nobodys() {
        let memory = map_anonymous(&[GuestRange::new(0x1000, 0x1000)]).unwrap();
        about_to_fill(&memory, GuestRange::new(0x5000, u64::MAX));
        about_to_fill(&memory, GuestRange::new(0x1800, u64::MAX));
    }
}
