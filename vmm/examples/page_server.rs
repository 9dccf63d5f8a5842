//! A page server: gives a restored guest the pages of a memory file as it touches them, as
//! Firecracker's userfaultfd handlers do. `page_server SOCKET MEMORY [PAGES]` serves one
//! guest, and ends after so many pages, if a number is given, or with the guest.

// UNSAFETY: faults are answered by an ioctl, which takes addresses.
#![expect(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};

use kedge_ids::{u64_from, usize_from};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::Deserialize;

/// A region of the guest's memory, as the message says.
#[derive(Deserialize)]
struct Region {
    base_host_virt_addr: u64,
    size: u64,
    offset: u64,
    page_size: u64,
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
/// `struct uffd_msg`: 32 bytes, of which the first is what happened, and 16 to 23 where.
const EVENT: usize = 32;
const UFFD_EVENT_PAGEFAULT: u8 = 0x12;

/// What a guest's machine says, and the descriptor beside it.
fn hear(stream: &UnixStream) -> io::Result<(Vec<Region>, OwnedFd)> {
    let mut text = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut text)];
    let received = recvmsg(stream, &mut parts, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = beside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let faults = descriptors.flatten().next();
    let faults = faults.ok_or_else(|| io::Error::other("no descriptor came with the message"))?;
    let regions = serde_json::from_slice(&text[..received.bytes]).map_err(io::Error::from)?;
    Ok((regions, faults))
}

/// Fills the page at `address` with what `memory` has of it.
fn fill(faults: &File, regions: &[Region], memory: &File, address: u64) -> io::Result<()> {
    let is_here = |region: &&Region| {
        (region.base_host_virt_addr..region.base_host_virt_addr + region.size).contains(&address)
    };
    let region = regions.iter().find(is_here);
    let region = region.ok_or_else(|| io::Error::other("a fault outside of guest memory"))?;
    let size = region.page_size;
    let dst = address / size * size;
    let mut bytes = vec![0; usize_from(size)];
    memory.read_exact_at(&mut bytes, region.offset + (dst - region.base_host_virt_addr))?;
    let src = u64_from(bytes.as_ptr().expose_provenance());
    let mut copy = UffdioCopy { dst, src, len: size, mode: 0, copy: 0 };
    // SAFETY: the opcode was made of this structure.
    let update = unsafe { Updater::<UFFDIO_COPY, _>::new(&mut copy) };
    // SAFETY: the page is another process's, which asked for it; `bytes` is as long.
    match unsafe { ioctl(faults, update) } {
        // Two of its threads touched it at once.
        Err(rustix::io::Errno::EXIST) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn serve(socket: &str, memory: &str, mut pages: u64) -> io::Result<()> {
    let (listener, memory) = (UnixListener::bind(socket)?, File::open(memory)?);
    println!("page server ready");
    let (stream, _) = listener.accept()?;
    let (regions, faults) = hear(&stream)?;
    let mut faults = File::from(faults);
    while pages > 0 {
        let mut watched =
            [PollFd::new(&faults, PollFlags::IN), PollFd::new(&stream, PollFlags::IN)];
        poll(&mut watched, None)?;
        let [_, guest] = watched;
        if guest.revents().contains(PollFlags::HUP) {
            println!("the guest has ended");
            return Ok(());
        }
        let mut event = [0; EVENT];
        match faults.read(&mut event) {
            Ok(EVENT) if event[0] == UFFD_EVENT_PAGEFAULT => {
                let (_, [a, b, c, d, e, f, g, h, ..]) = event.split_at(16) else { continue };
                let address = u64::from_ne_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                fill(&faults, &regions, &memory, address)?;
                pages -= 1;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    println!("that was the last page");
    Ok(())
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [socket, memory] => serve(socket, memory, u64::MAX),
        [socket, memory, pages] => serve(socket, memory, pages.parse().map_err(io::Error::other)?),
        _ => Err(io::Error::other("usage: page_server SOCKET MEMORY [PAGES]")),
    }
}
