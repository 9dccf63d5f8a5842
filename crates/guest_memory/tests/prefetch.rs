//! Pages of a memory file that are there before anybody touches them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use kedge_guest_memory::{
    Bytes, Extent, GuestAddress, GuestMemory, GuestRange, PageSet, Pagemap, map_file_private,
    prefetch, regions,
};
use kedge_ids::u64_from;

const RAM: u64 = 0x8000_0000;
const PAGES: u64 = 1024;

fn page() -> u64 {
    u64_from(rustix::param::page_size())
}

/// Memory whose pages begin with their numbers, in two regions.
fn memory() -> (Arc<File>, GuestMemory) {
    let file = tempfile::tempfile().unwrap();
    file.set_len((PAGES + 8) * page()).unwrap();
    for number in 0..PAGES + 8 {
        file.write_all_at(&number.to_le_bytes(), number * page()).unwrap();
    }
    let file = Arc::new(file);
    let ranges = [GuestRange::new(RAM, PAGES * page()), GuestRange::new(2 * RAM, 8 * page())];
    let memory = map_file_private(&ranges, &file).unwrap();
    (file, memory)
}

/// Every third page of the first region, and two of the second.
fn wanted() -> [PageSet; 2] {
    let mut sets = [PageSet::new(PAGES * page()), PageSet::new(8 * page())];
    for number in (0..PAGES).step_by(3) {
        sets[0].add(Extent::new(number * page(), page()));
    }
    sets[1].add(Extent::new(3 * page(), 2 * page()));
    sets
}

fn number(memory: &GuestMemory, at: u64) -> u64 {
    u64::from_le(memory.read_obj(GuestAddress(at)).unwrap())
}

#[test]
fn pages_are_in_place_and_are_the_files() {
    let (_file, memory) = memory();
    let wanted = wanted();
    let bytes = prefetch(&memory, &wanted).unwrap();
    assert_eq!(bytes, wanted.iter().map(PageSet::bytes).sum::<u64>());
    let pagemap = Pagemap::open().unwrap();
    for (region, wanted) in regions(&memory).iter().zip(&wanted) {
        assert_eq!(&pagemap.touched(region).unwrap(), wanted);
    }
    assert!((0..PAGES).all(|n| number(&memory, RAM + n * page()) == n));
    assert!((0..8).all(|n| number(&memory, 2 * RAM + n * page()) == PAGES + n));
}

#[test]
fn what_is_written_to_them_does_not_reach_the_file() {
    let (file, memory) = memory();
    prefetch(&memory, &wanted()).unwrap();
    memory.write_obj(7_u64, GuestAddress(RAM + 3 * page())).unwrap();
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 3 * page()).unwrap();
    assert_eq!((u64::from_le_bytes(bytes), number(&memory, RAM + 3 * page())), (3, 7));
}

#[test]
fn nothing_is_wanted_and_nothing_done() {
    let (_file, memory) = memory();
    assert_eq!(prefetch(&memory, &[]).unwrap(), 0);
    assert_eq!(number(&memory, RAM + page()), 1);
}

#[test]
fn a_file_that_is_too_short_is_an_error() {
    let (file, memory) = memory();
    file.set_len(page()).unwrap();
    prefetch(&memory, &wanted()).unwrap_err();
}
