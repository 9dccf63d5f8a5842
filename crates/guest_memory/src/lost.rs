//! Guest RAM that is taken away: a memory file that is shortened while a guest runs from
//! it, or a disk that cannot read it.
//!
//! Who touches a page that is gone learns of it in one of three ways:
//!
//! - a vCPU: `KVM_RUN` ends with `EFAULT`; the machine stops with that error;
//! - a system call that is handed guest RAM, as devices do: it fails with `EFAULT`, which
//!   is a failed request;
//! - kedge's own loads and stores, as in rings and headers: the kernel raises SIGBUS in
//!   the thread, with the address.
//!
//! Only the last needs a handler, and [`Lost`] is what that asks. It may run in the middle
//! of anything, so it takes no lock and no memory: it looks the address up, puts an empty
//! page there, so that the thread can go on to its next safe place, notes which address of
//! the guest it was and makes [`Lost::event`] readable. A SIGBUS elsewhere is not ours: the
//! handler gives it back to whoever had it before, which ends the process.
//!
//! The machine waits for that event among others. The guest must not run on with a page
//! of zeroes, nor may a device write one to a disk: the machine stops at once, kicking its
//! vCPUs first, and a device asks [`Lost::first`] after it has read from guest RAM and
//! before what it read leaves for a file or a network. What is lost that way is this
//! guest; its snapshot and all others of the file are no worse than the file.
//!
//! The handler itself belongs to the process, not to a machine: the binary installs one
//! that asks the [`Lost`] of the machine it runs.

// UNSAFETY: an empty page is mapped over the one that is gone.
#![expect(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::with_exposed_provenance_mut;
use std::sync::atomic::{AtomicU64, Ordering};

use kedge_ids::u64_from;
use rustix::event::{EventfdFlags, eventfd};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use crate::{GuestAddress, GuestMemory, RamRegion};

/// Which pages of a guest's RAM were taken away.
#[derive(Debug)]
pub struct Lost {
    /// Keeps the addresses that are looked up mapped as what they are.
    memory: GuestMemory,
    /// The first address that was lost; [`NONE`] before.
    first: AtomicU64,
    event: OwnedFd,
}

/// No address of a byte of RAM: no region ends there.
const NONE: u64 = u64::MAX;

impl Lost {
    /// Watches over `memory`; nothing was lost yet.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub fn new(memory: &GuestMemory) -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { memory: memory.clone(), first: AtomicU64::new(NONE), event })
    }

    /// For a handler of SIGBUS: whether the fault at `address` was one of this guest's
    /// RAM. If so there is a page of zeroes now. Does nothing that a handler may not do.
    pub fn replace(&self, address: usize) -> bool {
        let regions = self.memory.iter();
        let offset_of = |region: &RamRegion| {
            let offset = address.checked_sub(region.as_ptr().addr())?;
            (offset < region.size()).then_some((offset, region.start_addr()))
        };
        let Some((offset, start)) = regions.into_iter().find_map(offset_of) else { return false };
        let page = rustix::param::page_size();
        let first = with_exposed_provenance_mut(address / page * page);
        let (access, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED);
        // SAFETY: the page is one of a mapping of guest RAM, which `memory` keeps, and into
        // which no reference exists; it stays mapped, readable and writable.
        if unsafe { mmap_anonymous(first, page, access, flags) }.is_err() {
            return false;
        }
        let lost = start.0.saturating_add(u64_from(offset));
        // The first of several threads' is as good as any.
        let _ = self.first.compare_exchange(NONE, lost, Ordering::AcqRel, Ordering::Acquire);
        // It fails when it is readable already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        true
    }

    /// The first address whose page was found gone, if any was.
    pub fn first(&self) -> Option<GuestAddress> {
        let first = self.first.load(Ordering::Acquire);
        (first != NONE).then_some(GuestAddress(first))
    }

    /// The first address that is gone, whether anybody found out yet or not: one of those
    /// that the file is too short for by now.
    pub fn look(&self) -> Option<GuestAddress> {
        let missing = |region: &RamRegion| {
            let mapping = region.get_mmap();
            let behind = mapping.file_offset()?;
            let length = behind.file().metadata().ok()?.len();
            let there = length.saturating_sub(behind.start());
            (there < region.len()).then(|| GuestAddress(region.start_addr().0 + there))
        };
        self.first().or_else(|| self.memory.iter().find_map(missing))
    }

    /// Readable once a page was found gone.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
