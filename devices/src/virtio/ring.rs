//! A virtqueue at work (Virtio 1.2, 2.7), over virtio-queue: descriptor chains
//! come out checked, used buffers go back, and notifications both ways are
//! suppressed as was negotiated.
//!
//! Whatever a guest does to its rings is found here, and every device treats it
//! the same way: the device needs a reset and the ring is left alone until then.

use std::fmt;
use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use event_manager::{EventOps, Events};
use kedge_guest_memory::{Address, Bytes, GuestAddress, GuestMemory, GuestMemoryAccess};
use kedge_ids::usize_from;
use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::Permissions;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::buffers::Buffers;
use super::device::{ActiveQueue, Interrupt};

/// What is wrong with a ring.
#[derive(Debug, thiserror::Error)]
pub enum Corrupt {
    /// virtio-queue met it: an index that jumped, an address outside RAM.
    #[error("{0}")]
    Ring(virtio_queue::Error),
    /// A chain of descriptors that loops, ends in nothing, points out of the
    /// table, or totals over 4 GiB.
    #[error("the descriptor chain at {head} loops or is broken")]
    Chain {
        /// The chain's first descriptor.
        head: u16,
    },
    /// A chain with more descriptors than the device takes (2.7.5.3.1).
    #[error("the descriptor chain at {head} is longer than the queue")]
    TooLong {
        /// The chain's first descriptor.
        head: u16,
    },
    /// A descriptor for nothing.
    #[error("the descriptor chain at {head} has a buffer of length 0")]
    Empty {
        /// The chain's first descriptor.
        head: u16,
    },
    /// A buffer to read behind one to write (2.7.4.2).
    #[error("the descriptor chain at {head} has a readable buffer after a writable one")]
    Order {
        /// The chain's first descriptor.
        head: u16,
    },
    /// A buffer that is not RAM.
    #[error("the descriptor chain at {head} has a buffer outside RAM: {length:#x} at {start:#x}")]
    OutsideRam {
        /// The chain's first descriptor.
        head: u16,
        /// The buffer's address.
        start: u64,
        /// Its length in bytes.
        length: u32,
    },
    /// Too short, or in the wrong direction, for any request of the device.
    #[error("the descriptor chain at {head} is no request: {what}")]
    Request {
        /// The chain's first descriptor.
        head: u16,
        /// What it lacks.
        what: &'static str,
    },
}

/// A chain of buffers that the driver made available.
#[derive(Debug)]
pub struct Chain<'m> {
    /// Its first descriptor: what goes into the used ring.
    pub head: u16,
    /// What the device reads.
    pub readable: Buffers<'m>,
    /// What the device writes.
    pub writable: Buffers<'m>,
}

/// What a device made of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It is used, with this many bytes written from the start of its writable
    /// buffers.
    Used(u32),
    /// It will be used later, by [`Ring::add_used`].
    Later,
    /// It cannot be used now: it goes back to where it came from, and so do
    /// those behind it.
    NotNow,
}

/// A chain on its way back to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Its first descriptor.
    pub head: u16,
    /// The bytes written from the start of its writable buffers.
    pub length: u32,
}

/// A queue in a worker's hands.
pub struct Ring {
    index: u16,
    queue: Queue,
    doorbell: EventFd,
    interrupt: Arc<dyn Interrupt>,
    state: State,
    /// The used index of which the driver has been told.
    told: Wrapping<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// Buffers were used that the driver has not been told of.
    Used,
    /// Corrupt: not touched until the driver resets the device.
    Broken,
}

impl Ring {
    /// `active`, whose driver listens on `interrupt`.
    pub fn new(active: ActiveQueue, interrupt: Arc<dyn Interrupt>) -> Self {
        let ActiveQueue { index, queue, doorbell } = active;
        let told = Wrapping(queue.next_used());
        Self { index, queue, doorbell, interrupt, state: State::Idle, told }
    }

    /// The queue's index on its device.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The queue again. The driver is told of what it has not been told yet.
    pub fn retire(mut self, memory: &GuestMemory) -> ActiveQueue {
        self.flush(memory);
        ActiveQueue { index: self.index, queue: self.queue, doorbell: self.doorbell }
    }

    /// Waits for the doorbell, under the ring's index as event data: each time it rings,
    /// whether it was answered or not.
    ///
    /// # Errors
    /// The host is out of resources.
    pub fn watch(&self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        let rings = EventSet::IN | EventSet::EDGE_TRIGGERED;
        ops.add(Events::with_data(&self.doorbell, u32::from(self.index), rings))
    }

    /// Takes the doorbell's rings so far. The next one is an event without that, too.
    pub fn answer(&self) {
        // It only fails when nobody rang, and then there is nothing to take.
        let _ = self.doorbell.read();
    }

    /// Rings the doorbell: the worker is called again, after others had a turn.
    pub fn come_back(&self) {
        // It only fails when the doorbell has not been answered 2^64 - 2 times.
        let _ = self.doorbell.write(1);
    }

    /// Handles what is available, up to one queue full: then others have a turn.
    /// Tells the driver at the end.
    pub fn serve<'m>(
        &mut self,
        memory: &'m GuestMemory,
        mut handle: impl FnMut(Chain<'m>) -> Result<Done, Corrupt>,
    ) {
        let mut budget = self.queue.size();
        self.suspend(memory);
        while let Some(chain) = self.pop_or_wait(memory) {
            let head = chain.head;
            match handle(chain) {
                Ok(Done::Used(length)) => self.add_used(memory, head, length),
                Ok(Done::Later) => {}
                Ok(Done::NotNow) => {
                    self.put_back();
                    break;
                }
                Err(corrupt) => self.fail(&corrupt),
            }
            budget = budget.saturating_sub(1);
            if budget == 0 {
                self.come_back();
                break;
            }
        }
        self.flush(memory);
    }

    /// The next chain, or none where nothing is available or the ring is broken.
    pub fn pop<'m>(&mut self, memory: &'m GuestMemory) -> Option<Chain<'m>> {
        if self.state == State::Broken {
            return None;
        }
        self.try_pop(memory).unwrap_or_else(|corrupt| {
            self.fail(&corrupt);
            None
        })
    }

    /// The next chain; where there is none, asks the driver to ring when there
    /// is.
    pub fn pop_or_wait<'m>(&mut self, memory: &'m GuestMemory) -> Option<Chain<'m>> {
        if let Some(chain) = self.pop(memory) {
            return Some(chain);
        }
        // One more look: the driver may have added a chain before it saw that it
        // is to ring.
        if self.resume(memory) { self.pop(memory) } else { None }
    }

    /// Puts the last chain taken back to where it was.
    pub fn put_back(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Asks the driver not to ring: the worker is at it anyway.
    pub fn suspend(&mut self, memory: &GuestMemory) {
        if self.state != State::Broken
            && let Err(error) = self.queue.disable_notification(memory)
        {
            self.fail(&Corrupt::Ring(error));
        }
    }

    /// Asks the driver to ring. Whether there already is something available.
    fn resume(&mut self, memory: &GuestMemory) -> bool {
        if self.state == State::Broken {
            return false;
        }
        self.queue.enable_notification(memory).unwrap_or_else(|error| {
            self.fail(&Corrupt::Ring(error));
            false
        })
    }

    /// Gives the chain at `head` back to the driver, with `length` bytes written
    /// from the start of its writable buffers.
    pub fn add_used(&mut self, memory: &GuestMemory, head: u16, length: u32) {
        if self.state == State::Broken {
            return;
        }
        match self.queue.add_used(memory, head, length) {
            Ok(()) => self.state = State::Used,
            Err(error) => self.fail(&Corrupt::Ring(error)),
        }
    }

    /// Gives chains back all at once: the driver sees either none of them or
    /// all, as it must the buffers of one frame (5.1.6.4).
    pub fn add_all_used(&mut self, memory: &GuestMemory, used: &[Used]) {
        let Some((last, others)) = used.split_last() else { return };
        if self.state == State::Broken {
            return;
        }
        for &used in others {
            // virtio-queue publishes each element as it adds it: these are put
            // where it then skips them, and the last one publishes all.
            if let Err(error) = self.put_used(memory, used) {
                return self.fail(&Corrupt::Ring(error));
            }
            self.queue.set_next_used(self.queue.next_used().wrapping_add(1));
        }
        self.add_used(memory, last.head, last.length);
    }

    /// Writes the next used element, unpublished (2.7.8).
    fn put_used(&self, memory: &GuestMemory, used: Used) -> Result<(), virtio_queue::Error> {
        let slot = self.queue.next_used() % self.queue.size();
        let element = [u32::from(used.head).to_le(), used.length.to_le()];
        let address = GuestAddress(self.queue.used_ring())
            .checked_add(4 + 8 * u64::from(slot))
            .ok_or(virtio_queue::Error::AddressOverflow)?;
        memory.write_obj(element, address).map_err(virtio_queue::Error::GuestMemory)
    }

    /// Tells the driver what was used since the last time, if it wants to know.
    pub fn flush(&mut self, memory: &GuestMemory) {
        if self.state != State::Used {
            return;
        }
        self.state = State::Idle;
        match self.wants_interrupt(memory) {
            Ok(true) => self.interrupt.used(self.index),
            Ok(false) => {}
            Err(corrupt) => self.fail(&corrupt),
        }
    }

    /// Leaves the ring alone from now on: the device needs a reset.
    pub fn fail(&mut self, corrupt: &Corrupt) {
        self.state = State::Broken;
        self.interrupt.needs_reset(&format_args!("queue {}: {corrupt}", self.index));
    }

    /// Whether the driver wants to be told of what was used since it was last
    /// told (2.7.7.2). virtio-queue knows neither the flag of rings without event
    /// index nor chains given back together.
    fn wants_interrupt(&mut self, memory: &GuestMemory) -> Result<bool, Corrupt> {
        const FLAGS: u64 = 0;
        let used_event = 4 + 2 * u64::from(self.queue.size());
        let used = Wrapping(self.queue.next_used());
        let told = std::mem::replace(&mut self.told, used);
        // The driver sees what was used before we see whether it wants to know.
        fence(Ordering::SeqCst);
        if self.queue.event_idx_enabled() {
            let event = Wrapping(self.load_available(memory, used_event)?);
            Ok(used - event - Wrapping(1) < used - told)
        } else {
            let flags = self.load_available(memory, FLAGS)?;
            Ok(u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0)
        }
    }

    /// Loads from the available ring (2.7.6).
    fn load_available(&self, memory: &GuestMemory, offset: u64) -> Result<u16, Corrupt> {
        let address = GuestAddress(self.queue.avail_ring())
            .checked_add(offset)
            .ok_or(Corrupt::Ring(virtio_queue::Error::AddressOverflow))?;
        memory
            .load(address, Ordering::Relaxed)
            .map(u16::from_le)
            .map_err(|error| Corrupt::Ring(virtio_queue::Error::GuestMemory(error)))
    }

    fn try_pop<'m>(&mut self, memory: &'m GuestMemory) -> Result<Option<Chain<'m>>, Corrupt> {
        let longest = self.queue.max_size();
        let mut available = self.queue.iter(memory).map_err(Corrupt::Ring)?;
        available.next().map(|chain| resolve(chain, memory, longest)).transpose()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("index", &self.index)
            .field("queue", &self.queue)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// The buffers of a chain of at most `longest` descriptors.
fn resolve<'m>(
    chain: DescriptorChain<&'m GuestMemory>,
    memory: &'m GuestMemory,
    longest: u16,
) -> Result<Chain<'m>, Corrupt> {
    let head = chain.head_index();
    let mut readable = Buffers::default();
    let mut writable = Buffers::default();
    let mut count = 0;
    // virtio-queue ends a chain in silence where it finds it broken: then the
    // last descriptor promised another, or there is none.
    let mut expects_more = true;
    for descriptor in chain {
        expects_more = descriptor.has_next();
        count += 1;
        if count > longest {
            return Err(Corrupt::TooLong { head });
        }
        if descriptor.is_write_only() {
            add(&mut writable, descriptor, memory, head)?;
        } else if writable.is_empty() {
            add(&mut readable, descriptor, memory, head)?;
        } else {
            return Err(Corrupt::Order { head });
        }
    }
    if expects_more { Err(Corrupt::Chain { head }) } else { Ok(Chain { head, readable, writable }) }
}

fn add<'m>(
    buffers: &mut Buffers<'m>,
    descriptor: Descriptor,
    memory: &'m GuestMemory,
    head: u16,
) -> Result<(), Corrupt> {
    let (start, length) = (descriptor.addr(), descriptor.len());
    let outside = || Corrupt::OutsideRam { head, start: start.0, length };
    let access = if descriptor.is_write_only() { Permissions::Write } else { Permissions::Read };
    if length == 0 {
        return Err(Corrupt::Empty { head });
    }
    let slices =
        memory.get_slices(start, usize_from(u64::from(length)), access).map_err(|_| outside())?;
    for slice in slices {
        buffers.push(slice.map_err(|_| outside())?);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
