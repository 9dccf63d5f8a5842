//! Requests by `io_uring`: the host works on many at once, and the event loop on
//! others meanwhile. A completion rings an eventfd.
//!
//! What is in flight is in guest RAM, which stays mapped: [`Uring`] holds it until the
//! last request is done, and takes back all that it gave to the kernel before it goes.

// UNSAFETY: the kernel is given addresses in guest RAM, for longer than a call.
#![expect(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};
use kedge_guest_memory::GuestMemory;
use kedge_ids::u64_from;
use kedge_metrics::Moment;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::disk::{Disk, Lasting, Outcome};
use super::metrics::Act;
use super::store::wants_more;
use crate::virtio::buffers::Buffers;

/// The most requests in flight, of all queues together.
const MOST: u32 = 256;

/// The kernel's side and what it is at.
pub(super) struct Uring {
    ring: IoUring,
    completed: EventFd,
    /// By the number that the kernel knows them by; declared before the RAM that they
    /// are in.
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    /// Whether the kernel has yet to be told of a flight.
    is_unsent: bool,
    _memory: GuestMemory,
}

/// A request that the kernel is at.
struct Flight {
    tag: Tag,
    status: Buffers<'static>,
    room: usize,
    /// What the request is.
    act: Act,
    /// What the kernel is at.
    step: Step,
    data: Buffers<'static>,
    offset: u64,
    /// Bytes of all of its data.
    length: usize,
    lasting: Lasting,
    /// Whether it goes past the host's cache.
    is_direct: bool,
    /// Where its data is, for the kernel, which reads it as the request is submitted.
    iovecs: Vec<libc::iovec>,
    /// When it was taken off.
    began: Moment,
}

// SAFETY: its addresses are of guest RAM, which any thread may ask the kernel to read
// and write.
unsafe impl Send for Flight {}

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// The index of its queue.
    pub(super) queue: u16,
    /// Its first descriptor.
    pub(super) head: u16,
}

/// What the kernel does for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Fills its buffers.
    Read,
    /// Writes what they hold.
    Write,
    /// Makes what was written last.
    Sync,
}

impl Step {
    /// What a request does that begins so.
    const fn act(self) -> Act {
        match self {
            Self::Read => Act::Read,
            Self::Write => Act::Write,
            Self::Sync => Act::Flush,
        }
    }
}

/// A request for the kernel.
pub(super) struct Order<'m> {
    pub(super) tag: Tag,
    pub(super) step: Step,
    pub(super) data: Buffers<'m>,
    /// Where in the file.
    pub(super) offset: u64,
    pub(super) lasting: Lasting,
    /// The byte for the outcome.
    pub(super) status: Buffers<'m>,
    /// Writable bytes before it.
    pub(super) room: usize,
}

/// A request that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Landed {
    pub(super) tag: Tag,
    /// Bytes written to its buffers.
    pub(super) length: u32,
}

impl Uring {
    /// One for requests in `memory`.
    ///
    /// # Errors
    /// The host has none, forbids it, or is out of resources.
    pub(super) fn new(memory: GuestMemory) -> io::Result<Self> {
        let ring = IoUring::new(MOST)?;
        let completed = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        ring.submitter().register_eventfd(completed.as_raw_fd())?;
        let count = usize::try_from(MOST).unwrap_or(0);
        let flights = (0..count).map(|_| None).collect();
        Ok(Self {
            ring,
            completed,
            flights,
            free: (0..count).collect(),
            is_unsent: false,
            _memory: memory,
        })
    }

    /// Rung when requests are done.
    pub(super) fn completed(&self) -> &EventFd {
        &self.completed
    }

    /// Whether there is no room for another request.
    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.free.len() == self.flights.len()
    }

    /// Takes `order` off, whose buffers are in the RAM of this ring; it is on its way
    /// after [`Uring::submit`]. None where there is no room: then it is not done.
    pub(super) fn take_off(&mut self, order: Order<'_>, disk: &Disk) -> Option<()> {
        let slot = self.free.pop()?;
        let Order { tag, step, data, offset, lasting, status, room } = order;
        // SAFETY: `_memory` keeps the mappings and the records of what was written for
        // as long as the flight is there, see `Uring`.
        let data = unsafe { held(data) };
        // SAFETY: as above.
        let status = unsafe { held(status) };
        let is_direct = step != Step::Sync && disk.store().direct_for(&data).is_some();
        let length = data.len();
        let iovecs = data.iovecs();
        let flight = Flight {
            tag,
            status,
            room,
            act: step.act(),
            step,
            data,
            offset,
            length,
            lasting,
            is_direct,
            iovecs,
            began: Moment::now(),
        };
        self.flights[slot] = Some(flight);
        self.push(slot, disk);
        Some(())
    }

    /// Sends what was taken off on its way. Where the kernel does not take all of it, it
    /// is asked again when [`Uring::completed`] rings, which it does at once.
    pub(super) fn submit(&mut self) {
        if !self.is_unsent {
            return;
        }
        self.is_unsent = self.ring.submit().is_err() || !self.ring.submission().is_empty();
        if self.is_unsent {
            // It only fails when it was rung 2^64 - 2 times and not answered.
            let _ = self.completed.write(1);
        }
    }

    /// Hands over what is done to `landed`, and goes on with what is not, after
    /// [`Uring::submit`].
    pub(super) fn reap(&mut self, disk: &Disk, mut landed: impl FnMut(Landed)) {
        // It only fails when nobody rang.
        let _ = self.completed.read();
        loop {
            let Some(entry) = self.ring.completion().next() else { break };
            let slot = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
            let result = entry.result();
            let Some(flight) = self.flights.get_mut(slot).and_then(Option::as_mut) else {
                continue;
            };
            match flight.advance(result, disk) {
                None => self.push(slot, disk),
                Some(outcome) => {
                    if let Some(flight) = self.flights[slot].take() {
                        self.free.push(slot);
                        landed(flight.land(outcome));
                    }
                }
            }
        }
    }

    /// Waits until nothing is in flight.
    pub(super) fn finish(&mut self, disk: &Disk, mut landed: impl FnMut(Landed)) {
        while !self.is_idle() {
            // A signal may interrupt the wait, and the kernel may be short of memory:
            // then again.
            let _ = self.ring.submit_and_wait(1);
            self.reap(disk, &mut landed);
        }
    }

    /// Puts the flight in `slot` into the kernel's ring, which has room for all.
    fn push(&mut self, slot: usize, disk: &Disk) {
        let Some(flight) = &self.flights[slot] else { return };
        let entry = flight.entry(disk).user_data(u64_from(slot));
        self.is_unsent = true;
        loop {
            // SAFETY: what the entry points at is in the flight and in guest RAM, both
            // of which stay until the kernel is done with it: see `Uring`.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_ok() {
                return;
            }
            // Entries that are done with make room when they are submitted.
            let _ = self.ring.submit();
        }
    }
}

impl Drop for Uring {
    /// The kernel may write to guest RAM until it is done.
    fn drop(&mut self) {
        while !self.is_idle() {
            let _ = self.ring.submit_and_wait(1);
            let mut done = 0;
            while let Some(entry) = self.ring.completion().next() {
                let slot = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
                done += usize::from(self.flights.get_mut(slot).and_then(Option::take).is_some());
            }
            self.free.extend(std::iter::repeat_n(0, done));
        }
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let in_flight = self.flights.len() - self.free.len();
        f.debug_struct("Uring").field("in_flight", &in_flight).finish_non_exhaustive()
    }
}

impl Flight {
    /// What the kernel is to do next.
    fn entry(&self, disk: &Disk) -> squeue::Entry {
        let file = types::Fd(disk.store().descriptor(self.is_direct));
        let count = u32::try_from(self.iovecs.len()).unwrap_or(u32::MAX);
        match self.step {
            Step::Read => {
                opcode::Readv::new(file, self.iovecs.as_ptr(), count).offset(self.offset).build()
            }
            Step::Write => {
                opcode::Writev::new(file, self.iovecs.as_ptr(), count).offset(self.offset).build()
            }
            Step::Sync => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
        }
    }

    /// Takes note of what the kernel did. None where it is to do more.
    fn advance(&mut self, result: i32, disk: &Disk) -> Option<Outcome> {
        let Ok(count) = usize::try_from(result) else {
            let error = io::Error::from_raw_os_error(-result);
            let again = [libc::EINTR, libc::EAGAIN].contains(&-result);
            if self.is_direct && wants_more(&error) {
                self.is_direct = false;
            } else if !again {
                return Some(disk.outcome((self.act, self.began), Some(Err(error)), 0));
            }
            return None;
        };
        if self.step != Step::Sync {
            let moved = self.data.split_front(count);
            if let (Some(moved), Step::Read) = (moved, self.step) {
                moved.mark_written(count);
            }
            self.offset = self.offset.saturating_add(u64_from(count));
            match (self.data.is_empty(), count) {
                (true, _) => {}
                (false, 0) => {
                    let ends = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Some(disk.outcome((self.act, self.began), Some(Err(ends)), 0));
                }
                (false, _) => {
                    self.iovecs = self.data.iovecs();
                    return None;
                }
            }
        }
        if (self.step, self.lasting) == (Step::Write, Lasting::AtOnce) {
            disk.metrics().done(Act::Flush, 0);
            (self.step, self.is_direct) = (Step::Sync, false);
            return None;
        }
        Some(disk.outcome((self.act, self.began), Some(Ok(())), self.length))
    }

    /// Tells the driver.
    fn land(mut self, Outcome { status, written }: Outcome) -> Landed {
        self.status.copy_from(&[status]);
        Landed { tag: self.tag, length: super::request::used(written, self.room) }
    }
}

/// `buffers`, for longer than the borrow of the memory that they are in.
///
/// # Safety
/// A clone of that memory outlives them, and they are not handed on.
unsafe fn held(buffers: Buffers<'_>) -> Buffers<'static> {
    // SAFETY: only the lifetime changes, which the caller answers for.
    unsafe { mem::transmute::<Buffers<'_>, Buffers<'static>>(buffers) }
}
