//! Memory that another process fills, as its pages are touched: here it is a thread, and
//! the kernel is the real one.

// UNSAFETY: a page server answers faults by ioctls, which take addresses.
#![expect(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use kedge_diag::report;
use kedge_guest_memory::{
    Bytes, GuestAddress, GuestMemory, GuestRange, PageServer, Pagemap, ServedPages, map_served,
    read_all,
};
use kedge_ids::u64_from;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

const RAM: u64 = 0x8000_0000;

fn page() -> u64 {
    u64_from(rustix::param::page_size())
}

fn ranges() -> [GuestRange; 2] {
    [GuestRange::new(RAM, 16 * page()), GuestRange::new(2 * RAM, 4 * page())]
}

/// `struct uffdio_copy` (include/uapi/linux/userfaultfd.h).
#[repr(C)]
struct UffdioCopy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

const UFFDIO_COPY: Opcode = opcode::read_write::<UffdioCopy>(0xaa, 0x03);
const _: () = assert!(UFFDIO_COPY == 0xc028_aa03);

/// Takes one connection: what it says, and the descriptor beside it.
fn accept(listener: &UnixListener) -> (UnixStream, String, OwnedFd) {
    let (stream, _) = listener.accept().unwrap();
    let mut text = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut text)];
    let received = recvmsg(&stream, &mut parts, &mut beside, RecvFlags::CMSG_CLOEXEC).unwrap();
    text.truncate(received.bytes);
    let descriptors = beside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.flatten().next().unwrap();
    (stream, String::from_utf8(text).unwrap(), descriptor)
}

/// Fills so many pages, each with the low byte of its number in the host's memory.
fn serve(faults: OwnedFd, count: usize) {
    let mut faults = File::from(faults);
    for _ in 0..count {
        poll(&mut [PollFd::new(&faults, PollFlags::IN)], None).unwrap();
        let mut fault = [0; 32];
        faults.read_exact(&mut fault).unwrap();
        let address = u64::from_ne_bytes(fault[16..24].try_into().unwrap()) / page() * page();
        let bytes = vec![address.to_ne_bytes()[2]; rustix::param::page_size()];
        let src = u64_from(bytes.as_ptr().expose_provenance());
        let mut copy = UffdioCopy { dst: address, src, len: page(), mode: 0, copy: 0 };
        // SAFETY: the opcode was made of this structure.
        let update = unsafe { Updater::<UFFDIO_COPY, _>::new(&mut copy) };
        // SAFETY: the page is guest memory that nobody has touched, as long as `bytes`.
        unsafe { ioctl(&faults, update) }.unwrap();
    }
}

/// Memory whose first `count` faults are served, and what its server was told; None,
/// with the reason said, where this process may not have its faults served.
fn served(socket: &Path, count: usize) -> Option<(GuestMemory, PageServer, String)> {
    let listener = UnixListener::bind(socket).unwrap();
    let server = thread::spawn(move || {
        let (stream, text, faults) = accept(&listener);
        thread::spawn(move || {
            serve(faults, count);
            drop(stream);
        });
        text
    });
    match map_served(&ranges(), ServedPages::Small, socket) {
        Ok((memory, connection)) => Some((memory, connection, server.join().unwrap())),
        Err(error) => {
            eprintln!("skipped: {}", report(&error));
            None
        }
    }
}

#[test]
fn pages_come_from_the_server_as_they_are_touched() {
    let folder = tempfile::tempdir().unwrap();
    let Some((memory, _server, _)) = served(&folder.path().join("s"), 3) else { return };
    let start = kedge_guest_memory::regions(&memory)[0].as_ptr().addr();
    let byte = |number: u64| {
        let bytes: [u8; 1] = memory.read_obj(GuestAddress(RAM + number * page())).unwrap();
        let expected = (u64_from(start) + number * page()).to_ne_bytes()[2];
        (bytes[0], expected)
    };
    for number in [3, 9, 3] {
        let (found, expected) = byte(number);
        assert_eq!(found, expected);
    }
    memory.write_obj(7_u8, GuestAddress(RAM + 5 * page())).unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(RAM + 5 * page())).unwrap(), 7);
}

#[test]
fn what_nobody_touched_is_read_out_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let Some((memory, _server, _)) = served(&folder.path().join("s"), 20) else { return };
    let mut pages = 0;
    read_all(&memory, Some(&Pagemap::open().unwrap()), |_, bytes| {
        pages += u64_from(bytes.len()) / page();
        Ok(())
    })
    .unwrap();
    assert_eq!(pages, 20);
}

#[test]
fn the_server_is_told_of_each_region_as_firecrackers_are() {
    let folder = tempfile::tempdir().unwrap();
    let Some((memory, _server, text)) = served(&folder.path().join("s"), 0) else { return };
    let [first, second] =
        [0, 1].map(|index| kedge_guest_memory::regions(&memory)[index].as_ptr().addr());
    let page = page();
    let (low, high) = (16 * page, 4 * page);
    assert_eq!(
        text,
        format!(
            "[{{\"base_host_virt_addr\":{first},\"size\":{low},\"offset\":0,\"page_size\":{page},\
             \"page_size_kib\":{page}}},{{\"base_host_virt_addr\":{second},\"size\":{high},\
             \"offset\":{low},\"page_size\":{page},\"page_size_kib\":{page}}}]"
        )
    );
}

#[test]
fn a_server_that_lives_has_not_ended() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_memory, server, _)) = served(&folder.path().join("s"), 0) else { return };
    let ended = server.ended();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&now)).unwrap(), 0);
}

#[test]
fn a_socket_without_a_server_is_an_error_with_a_cure() {
    let folder = tempfile::tempdir().unwrap();
    let refused = map_served(&ranges(), ServedPages::Small, &folder.path().join("s"));
    let text = report(&refused.unwrap_err());
    assert!(text.contains("no page server answers on") || text.contains("does not let"), "{text}");
    assert!(text.contains("fix: "), "{text}");
}
