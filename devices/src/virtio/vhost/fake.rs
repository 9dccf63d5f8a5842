//! A back end that does what its test tells it, on the test's thread: the kernel of hosts
//! that have no vhost-net.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};

use kedge_guest_memory::{Bytes, GuestMemory};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::answers::LOG_ALL;
use super::back_end::{BackEnd, Place, Session};
use super::{BackEndError, KernelError};

/// A queue as the back end has it.
struct Served {
    queue: Queue,
    call: EventFd,
    kick: EventFd,
    error: EventFd,
}

/// What it has, and was told.
#[derive(Default)]
struct State {
    memory: Option<GuestMemory>,
    log: Option<File>,
    features: u64,
    queues: BTreeMap<u16, Served>,
    refuses: bool,
}

/// Such a back end, and the test's hold on it.
#[derive(Clone, Default)]
pub(crate) struct FakeKernel {
    offered: u64,
    state: Arc<Mutex<State>>,
}

impl FakeKernel {
    /// One that has these features.
    pub(crate) fn new(offered: u64) -> Self {
        Self { offered, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// From now on it takes no queues, or takes them again.
    pub(crate) fn set_refuses(&self, refuses: bool) {
        self.state().refuses = refuses;
    }

    /// The queues that it serves, by index.
    pub(crate) fn served(&self) -> Vec<u16> {
        self.state().queues.keys().copied().collect()
    }

    /// What it was told that the driver accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.state().features
    }

    /// Whether its doorbell for a queue was rung since it was asked last.
    pub(crate) fn was_rung(&self, index: u16) -> bool {
        self.state().queues[&index].kick.read().is_ok()
    }

    /// Takes the next chain of a queue: `bytes` go into its first writable buffer, and what
    /// was in its readable ones comes back.
    pub(crate) fn use_next(&self, index: u16, bytes: &[u8]) -> Option<Vec<u8>> {
        let state = &mut *self.state();
        let memory = state.memory.clone()?;
        let Served { queue, call, .. } = state.queues.get_mut(&index)?;
        let chain = queue.pop_descriptor_chain(&memory)?;
        let (head, mut read) = (chain.head_index(), Vec::new());
        for descriptor in chain {
            if descriptor.is_write_only() {
                memory.write_slice(bytes, descriptor.addr()).unwrap();
                note(state.log.as_ref(), descriptor.addr().0);
            } else {
                let mut part = vec![0; usize::try_from(descriptor.len()).unwrap()];
                memory.read_slice(&mut part, descriptor.addr()).unwrap();
                read.append(&mut part);
            }
        }
        queue.add_used(&memory, head, u32::try_from(bytes.len()).unwrap()).unwrap();
        note(state.log.as_ref(), queue.used_ring());
        call.write(1).unwrap();
        Some(read)
    }

    /// Finds a queue broken.
    pub(crate) fn cannot_use(&self, index: u16) {
        self.state().queues[&index].error.write(1).unwrap();
    }
}

/// Notes the page at `address` as written.
fn note(log: Option<&File>, address: u64) {
    let Some(log) = log else { return };
    let (byte, bit) = (address / 4096 / 8, address / 4096 % 8);
    let mut noted = [0];
    log.read_exact_at(&mut noted, byte).unwrap();
    log.write_all_at(&[noted[0] | 1 << bit], byte).unwrap();
}

fn served(place: &Place<'_>) -> Served {
    let mut queue = Queue::new(place.max_size).unwrap();
    queue.set_size(place.size);
    let halves = |address: u64| {
        let half = |word: u64| Some(u32::try_from(word & 0xffff_ffff).unwrap());
        (half(address), half(address >> 32))
    };
    let (low, high) = halves(place.descriptors);
    queue.set_desc_table_address(low, high);
    let (low, high) = halves(place.available);
    queue.set_avail_ring_address(low, high);
    let (low, high) = halves(place.used);
    queue.set_used_ring_address(low, high);
    queue.set_next_avail(place.next);
    queue.set_next_used(place.next);
    queue.set_ready(true);
    let clone = |event: &EventFd| event.try_clone().unwrap();
    Served { queue, call: clone(place.call), kick: clone(place.kick), error: clone(place.error) }
}

impl BackEnd for FakeKernel {
    fn features(&self) -> u64 {
        self.offered
    }

    fn begin(&mut self, session: &Session<'_>) -> Result<(), BackEndError> {
        let mut state = self.state();
        if state.refuses {
            let source = std::io::ErrorKind::OutOfMemory.into();
            return Err(KernelError::Refused { what: "take a queue", source }.into());
        }
        let log = session.log.filter(|_| self.offered & LOG_ALL != 0);
        let log = log.and_then(|log| log.file()?.as_fd().try_clone_to_owned().ok());
        *state = State {
            memory: Some(session.memory.clone()),
            log: log.map(File::from),
            features: session.features,
            queues: session.places.iter().map(|place| (place.index, served(place))).collect(),
            refuses: false,
        };
        Ok(())
    }

    fn go_on(&mut self, session: &Session<'_>) -> Result<(), BackEndError> {
        self.begin(session)
    }

    fn stop(&mut self, queues: &[u16]) -> Result<Vec<u32>, BackEndError> {
        let mut state = self.state();
        let left = queues.iter().map(|index| state.queues.remove(index).unwrap());
        Ok(left.map(|served| served.queue.next_avail().into()).collect())
    }

    fn lingers(&self) -> bool {
        false
    }

    fn connection(&self) -> Result<Option<std::os::unix::net::UnixStream>, BackEndError> {
        Ok(None)
    }
}
