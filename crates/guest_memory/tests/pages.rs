//! What the kernel says of guest RAM's pages, and what is read out of it. Not among the
//! unit tests, which also run where processes are emulated and the kernel is not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use kedge_guest_memory::{
    Bytes, Extent, GuestAddress, GuestMemory, GuestRange, MapError, PageSet, Pagemap, TakeOutError,
    backed, dirty, map_anonymous, map_file_private, read_all, read_dirty, regions, write_all,
    write_dirty,
};
use kedge_ids::u64_from;

const RAM: u64 = 0x8000_0000;
const PAGES: u64 = 64;

fn page() -> u64 {
    u64_from(rustix::param::page_size())
}

fn ranges() -> [GuestRange; 2] {
    [GuestRange::new(RAM, PAGES * page()), GuestRange::new(2 * RAM, 8 * page())]
}

/// A memory file with these pages, each filled with its byte.
fn memory_file(pages: &[(u64, u8)]) -> Arc<File> {
    let file = tempfile::tempfile().unwrap();
    file.set_len((PAGES + 8) * page()).unwrap();
    for &(number, byte) in pages {
        let bytes = vec![byte; rustix::param::page_size()];
        file.write_all_at(&bytes, number * page()).unwrap();
    }
    Arc::new(file)
}

fn runs(pages: &PageSet) -> Vec<(u64, u64)> {
    pages.extents().map(|Extent { start, length }| (start / page(), length / page())).collect()
}

fn write(memory: &GuestMemory, number: u64, byte: u8) {
    memory.write_obj(byte, GuestAddress(RAM + number * page())).unwrap();
}

fn read(memory: &GuestMemory, number: u64) -> u8 {
    memory.read_obj(GuestAddress(RAM + number * page())).unwrap()
}

/// The pages that are read out, with the first byte of each.
fn read_out(memory: &GuestMemory, pagemap: Option<&Pagemap>) -> Vec<(u64, u8)> {
    let mut pages = Vec::new();
    read_all(memory, pagemap, |offset, bytes| {
        let page_size = rustix::param::page_size();
        let firsts = bytes.chunks(page_size).map(|page| page[0]);
        pages.extend((offset / page()..).zip(firsts));
        Ok(())
    })
    .unwrap();
    pages
}

#[test]
fn untouched_memory_has_no_pages() {
    let memory = map_anonymous(&ranges()).unwrap();
    let region = &regions(&memory)[0];
    assert!(Pagemap::open().unwrap().touched(region).unwrap().is_empty());
    assert!(backed(region).unwrap().is_empty());
    assert_eq!(read_out(&memory, Some(&Pagemap::open().unwrap())), []);
}

#[test]
fn touched_pages_of_each_region_are_read_out_in_order() {
    let memory = map_anonymous(&ranges()).unwrap();
    write(&memory, 3, 7);
    write(&memory, 4, 8);
    memory.write_obj(9_u8, GuestAddress(2 * RAM + 7 * page())).unwrap();
    let pagemap = Pagemap::open().unwrap();
    assert_eq!(runs(&pagemap.touched(&regions(&memory)[0]).unwrap()), [(3, 2)]);
    assert_eq!(read_out(&memory, Some(&pagemap)), [(3, 7), (4, 8), (PAGES + 7, 9)]);
}

#[test]
fn without_the_kernels_word_all_pages_are_read_out() {
    let memory = map_anonymous(&ranges()).unwrap();
    write(&memory, 3, 7);
    let pages = read_out(&memory, None);
    assert_eq!(u64_from(pages.len()), PAGES + 8);
    assert_eq!(pages[3], (3, 7));
}

#[test]
fn more_pages_than_are_asked_for_at_once_are_told_apart() {
    let length = 20_000 * page();
    let memory = map_anonymous(&[GuestRange::new(RAM, length)]).unwrap();
    for number in [0, 8191, 8192, 16_500, 19_999] {
        write(&memory, number, 1);
    }
    let touched = Pagemap::open().unwrap().touched(&regions(&memory)[0]).unwrap();
    // Huge pages come in whole.
    let is_there = |number: &u64| {
        let byte = number * page();
        touched.extents().any(|extent| (extent.start..extent.end()).contains(&byte))
    };
    assert!([0, 8191, 8192, 16_500, 19_999].iter().all(is_there));
}

#[test]
fn a_guest_reads_the_file_and_writes_beside_it() {
    let file = memory_file(&[(1, 5), (2, 6)]);
    let memory = map_file_private(&ranges(), &file).unwrap();
    let other = map_file_private(&ranges(), &file).unwrap();
    write(&memory, 2, 7);
    assert_eq!((read(&memory, 1), read(&memory, 2), read(&memory, 3)), (5, 7, 0));
    assert_eq!(read(&other, 2), 6);
    let mut byte = [0];
    file.read_exact_at(&mut byte, 2 * page()).unwrap();
    assert_eq!(byte, [6]);
}

#[test]
fn the_second_region_begins_in_the_file_where_the_first_ends() {
    let memory = map_file_private(&ranges(), &memory_file(&[(PAGES + 1, 5)])).unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(2 * RAM + page())).unwrap(), 5);
}

#[test]
fn only_written_pages_of_a_file_count_as_touched() {
    let memory = map_file_private(&ranges(), &memory_file(&[(1, 5), (2, 6)])).unwrap();
    let pagemap = Pagemap::open().unwrap();
    let region = &regions(&memory)[0];
    assert_eq!((read(&memory, 1), read(&memory, 9)), (5, 0));
    assert!(pagemap.touched(region).unwrap().is_empty());
    assert!(!pagemap.resident(region).unwrap().is_empty());
    write(&memory, 2, 7);
    write(&memory, 20, 8);
    assert_eq!(runs(&pagemap.touched(region).unwrap()), [(2, 1), (20, 1)]);
}

#[test]
fn what_a_guest_did_not_write_is_read_out_of_its_file() {
    let file = memory_file(&[(1, 5), (2, 6), (30, 9), (PAGES, 4)]);
    let memory = map_file_private(&ranges(), &file).unwrap();
    write(&memory, 2, 7);
    write(&memory, 31, 8);
    let pagemap = Pagemap::open().unwrap();
    let pages = read_out(&memory, Some(&pagemap));
    assert!([(1, 5), (2, 7), (30, 9), (31, 8), (PAGES, 4)].iter().all(|page| pages.contains(page)));
    assert!(pages.is_sorted());
    assert!(pages.len() < 60);
    // Nothing of it became the process's by being read out.
    assert_eq!(runs(&pagemap.resident(&regions(&memory)[1]).unwrap()), []);
}

#[test]
fn written_pages_alone_are_read_out_for_a_difference() {
    let memory = map_anonymous(&ranges()).unwrap();
    write(&memory, 1, 1);
    dirty::track(&memory);
    write(&memory, 2, 2);
    let mut pages = dirty::take(&memory);
    pages.merge(1, &[0b100]).unwrap();
    let mut offsets = Vec::new();
    read_dirty(&memory, &pages, |offset, bytes| {
        offsets.push((offset / page(), bytes[0], u64_from(bytes.len()) / page()));
        Ok(())
    })
    .unwrap();
    assert_eq!(offsets, [(2, 2, 1), (PAGES + 2, 0, 1)]);
}

/// What a memory file holds: each page's number and first byte, but for zeroes.
fn held(file: &File) -> Vec<(u64, u8)> {
    let mut byte = [0];
    let mut first = |number: u64| {
        file.read_exact_at(&mut byte, number * page()).unwrap();
        (number, byte[0])
    };
    (0..PAGES + 8).map(&mut first).filter(|&(_, byte)| byte != 0).collect()
}

#[test]
fn memory_is_written_to_a_file_but_for_zeroes() {
    let from = memory_file(&[(1, 5), (2, 6), (30, 9), (PAGES, 4)]);
    let memory = map_file_private(&ranges(), &from).unwrap();
    for (number, byte) in [(2, 7), (3, 0), (4, 1), (5, 0), (40, 8), (41, 8)] {
        write(&memory, number, byte);
    }
    let to = memory_file(&[]);
    let mut written = Vec::new();
    write_all(&memory, Some(&Pagemap::open().unwrap()), &to, |extent| {
        written.push((extent.start / page(), extent.end / page()));
        Ok(())
    })
    .unwrap();
    let expected = [(1, 5), (2, 7), (4, 1), (30, 9), (40, 8), (41, 8), (PAGES, 4)];
    assert_eq!(held(&to), expected);
    assert!(written.is_sorted_by(|before, next| before.1 <= next.0));
    assert!(expected.iter().all(|(n, _)| written.iter().any(|(s, e)| (s..e).contains(&n))));
    assert!(written.contains(&(40, 42)) && written.contains(&(4, 5)));
}

#[test]
fn a_difference_is_written_with_its_zeroes() {
    let memory = map_anonymous(&ranges()).unwrap();
    write(&memory, 1, 1);
    dirty::track(&memory);
    write(&memory, 2, 2);
    write(&memory, 3, 0);
    let (to, mut written) = (memory_file(&[]), Vec::new());
    write_dirty(&memory, &dirty::take(&memory), &to, |extent| {
        written.push(extent);
        Ok(())
    })
    .unwrap();
    assert_eq!(held(&to), [(2, 2)]);
    assert_eq!(written, std::slice::from_ref(&(2 * page()..4 * page())));
}

#[test]
fn a_file_that_takes_no_more_is_an_error_of_the_sink() {
    let memory = map_anonymous(&ranges()).unwrap();
    write(&memory, 1, 1);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let refused = write_all(&memory, Some(&Pagemap::open().unwrap()), &full, |_| Ok(()));
    assert!(matches!(
        refused,
        Err(TakeOutError::Sink(error)) if error.kind() == std::io::ErrorKind::StorageFull
    ));
}

#[test]
fn much_is_written_in_stretches_between_which_it_may_end() {
    let size = 80 << 20;
    let memory = map_anonymous(&[GuestRange::new(RAM, size)]).unwrap();
    for offset in (0..size).step_by(rustix::param::page_size()) {
        memory.write_obj(1_u8, GuestAddress(RAM + offset)).unwrap();
    }
    let (to, mut written) = (memory_file(&[]), Vec::new());
    let ended = write_all(&memory, None, &to, |extent| {
        written.push(extent.end >> 20);
        if written.len() == 2 { Err(std::io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    });
    assert!(matches!(ended, Err(TakeOutError::Sink(_))));
    assert_eq!(written, [32, 64]);
}

#[test]
fn a_file_too_short_is_refused() {
    let file = memory_file(&[]);
    file.set_len(page()).unwrap();
    let refused = map_file_private(&ranges(), &file).unwrap_err();
    assert!(matches!(refused, MapError::Short { length, .. } if length == page()));
}

#[test]
fn a_file_shortened_under_a_guest_is_an_error_of_reading_out() {
    let file = memory_file(&[(1, 5), (2, 6)]);
    let memory = map_file_private(&ranges(), &file).unwrap();
    write(&memory, 30, 7);
    let mut calls = 0;
    let refused = read_all(&memory, Some(&Pagemap::open().unwrap()), |_, _| {
        calls += 1;
        file.set_len(0)
    });
    assert!(matches!(refused, Err(TakeOutError::File(_))));
    assert_eq!(calls, 1);
}

#[test]
fn the_sinks_failure_ends_the_reading() {
    let memory = map_anonymous(&ranges()).unwrap();
    write(&memory, 1, 1);
    write(&memory, 9, 1);
    let mut calls = 0;
    let refused = read_all(&memory, Some(&Pagemap::open().unwrap()), |_, _| {
        calls += 1;
        Err(std::io::ErrorKind::StorageFull.into())
    });
    assert!(matches!(refused, Err(TakeOutError::Sink(_))));
    assert_eq!(calls, 1);
}
