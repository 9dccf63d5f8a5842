//! A memory file that is shortened under a guest, and what a handler of SIGBUS makes of
//! it. The handler is left out: it is called as one would call it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use kedge_guest_memory::{
    Bytes, GuestAddress, GuestMemory, GuestRange, Lost, map_file_private, regions,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const RAM: u64 = 0x8000_0000;

fn page() -> u64 {
    kedge_ids::u64_from(rustix::param::page_size())
}

/// Memory of four pages that lost its last two.
fn shortened() -> GuestMemory {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4 * page()).unwrap();
    let file = Arc::new(file);
    let memory = map_file_private(&[GuestRange::new(RAM, 4 * page())], &file).unwrap();
    memory.write_obj(7_u8, GuestAddress(RAM)).unwrap();
    file.set_len(2 * page()).unwrap();
    memory
}

fn is_readable(lost: &Lost) -> bool {
    let (event, now) = (lost.event(), Timespec { tv_sec: 0, tv_nsec: 0 });
    poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&now)).unwrap() == 1
}

#[test]
fn a_page_that_is_gone_is_replaced_and_told() {
    let memory = shortened();
    let lost = Lost::new(&memory).unwrap();
    let offset = usize::try_from(3 * page() + 8).unwrap();
    let address = regions(&memory)[0].as_ptr().addr() + offset;
    assert!((lost.first().is_none(), is_readable(&lost)) == (true, false));

    assert!(lost.replace(address));

    assert_eq!(memory.read_obj::<u64>(GuestAddress(RAM + 3 * page() + 8)).unwrap(), 0);
    assert_eq!(memory.read_obj::<u8>(GuestAddress(RAM)).unwrap(), 7);
    assert_eq!(lost.first(), Some(GuestAddress(RAM + 3 * page() + 8)));
    assert!(is_readable(&lost));
}

#[test]
fn the_first_page_that_was_gone_stays_the_first() {
    let memory = shortened();
    let lost = Lost::new(&memory).unwrap();
    let base = regions(&memory)[0].as_ptr().addr();
    let page_size = rustix::param::page_size();
    assert!(lost.replace(base + 2 * page_size));
    assert!(lost.replace(base + 3 * page_size));
    assert_eq!(lost.first(), Some(GuestAddress(RAM + 2 * page())));
}

#[test]
fn a_fault_elsewhere_is_somebody_elses() {
    let memory = shortened();
    let lost = Lost::new(&memory).unwrap();
    let base = regions(&memory)[0].as_ptr().addr();
    for address in [0, base - 1, base + 4 * rustix::param::page_size(), usize::MAX] {
        assert!(!lost.replace(address));
    }
    assert!(!is_readable(&lost));
    assert_eq!(lost.first(), None);
}
