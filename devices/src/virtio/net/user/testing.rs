//! A back end of network cards on a thread of the test, made of the crate
//! `vhost-user-backend`: each frame that it gets comes back on the same pair of queues.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use kedge_guest_memory::GuestMemoryMmap;
use tempfile::TempDir;
use vhost::vhost_user::{Listener, VhostUserProtocolFeatures as Protocol};
use vhost_user_backend::bitmap::BitmapMmapRegion;
use vhost_user_backend::{
    ShutdownHandle, VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT,
};
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddressSpace, GuestMemoryAtomic};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use crate::virtio::vhost::testing::Offer;

type Memory = GuestMemoryMmap<BitmapMmapRegion>;
type Vring = VringRwLock<GuestMemoryAtomic<Memory>>;

/// All that a back end of a card with so many pairs needs.
pub(super) const fn all(pairs: usize) -> Offer {
    Offer {
        // VERSION_1, PROTOCOL_FEATURES, EVENT_IDX, LOG_ALL, MRG_RXBUF, CSUM, HOST_TSO4 and
        // HOST_ECN; MQ, STATUS and GUEST_ANNOUNCE, which are kedge's to offer or not.
        features: 1 << 32
            | 1 << 30
            | 1 << 29
            | 1 << 26
            | 1 << 15
            | 1 << 0
            | 1 << 11
            | 1 << 13
            | 1 << 22
            | 1 << 16
            | 1 << 21,
        protocol: Protocol::MQ.union(Protocol::LOG_SHMFD).union(Protocol::REPLY_ACK),
        queues: 2 * pairs,
    }
}

/// A frame, its header before it, and the pair of queues by which it came.
pub(super) type Came = (u16, Vec<u8>);

/// A back end that listens, and serves one connection after the other.
pub(super) struct EchoBackEnd {
    directory: TempDir,
    came: Arc<Mutex<Vec<Came>>>,
    connection: Arc<Mutex<Option<ShutdownHandle>>>,
}

impl EchoBackEnd {
    pub(super) fn start(offer: Offer) -> Self {
        let directory = TempDir::new().unwrap();
        let (came, connection) = (Arc::<Mutex<Vec<Came>>>::default(), Arc::default());
        let back_end = Self { directory, came, connection };
        let mut listener = Listener::new(back_end.socket(), true).unwrap();
        let (came, connection) = (Arc::clone(&back_end.came), Arc::clone(&back_end.connection));
        std::thread::spawn(move || {
            loop {
                let exit = new_event_consumer_and_notifier(EventFlag::NONBLOCK).unwrap();
                let waiting = vec![Vec::new(); offer.queues / 2];
                let came = Arc::clone(&came);
                let served = Served { came, offer, memory: None, waiting, exit };
                let memory = GuestMemoryAtomic::new(Memory::new());
                let served = Arc::new(Mutex::new(served));
                let mut daemon = VhostUserDaemon::new("card".to_owned(), served, memory).unwrap();
                daemon.start(&mut listener).unwrap();
                *connection.lock().unwrap() = daemon.shutdown_handle();
                let _ = daemon.wait();
            }
        });
        back_end
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("back-end")
    }

    /// All that came so far.
    pub(super) fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    /// Hangs up.
    pub(super) fn hang_up(&self) {
        self.connection.lock().unwrap().as_ref().unwrap().shutdown();
    }
}

/// A card for one connection.
struct Served {
    came: Arc<Mutex<Vec<Came>>>,
    offer: Offer,
    memory: Option<GuestMemoryAtomic<Memory>>,
    /// Frames on their way back, of each pair.
    waiting: Vec<Vec<Vec<u8>>>,
    exit: (EventConsumer, EventNotifier),
}

impl Served {
    /// Takes what the driver of a pair sends.
    fn take(&mut self, pair: usize, vring: &Vring) {
        let memory = self.memory.as_ref().unwrap().memory();
        loop {
            let chain = vring.get_mut().get_queue_mut().pop_descriptor_chain(memory.clone());
            let Some(chain) = chain else { return };
            let (head, mut frame) = (chain.head_index(), Vec::new());
            for descriptor in chain {
                let start = frame.len();
                frame.resize(start + usize::try_from(descriptor.len()).unwrap(), 0);
                memory.read_slice(&mut frame[start..], descriptor.addr()).unwrap();
            }
            vring.add_used(head, 0).unwrap();
            vring.signal_used_queue().unwrap();
            self.came.lock().unwrap().push((u16::try_from(pair).unwrap(), frame.clone()));
            self.waiting[pair].push(frame);
        }
    }

    /// Gives the driver of a pair what waits for it, as far as it has room.
    fn give(&mut self, pair: usize, vring: &Vring) {
        let memory = self.memory.as_ref().unwrap().memory();
        while !self.waiting[pair].is_empty() {
            let chain = vring.get_mut().get_queue_mut().pop_descriptor_chain(memory.clone());
            let Some(mut chain) = chain else { return };
            let frame = self.waiting[pair].remove(0);
            let (head, room) = (chain.head_index(), chain.next().unwrap());
            memory.write_slice(&frame, room.addr()).unwrap();
            vring.add_used(head, u32::try_from(frame.len()).unwrap()).unwrap();
            vring.signal_used_queue().unwrap();
        }
    }
}

impl VhostUserBackendMut for Served {
    type Bitmap = BitmapMmapRegion;
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        self.offer.queues
    }

    fn max_queue_size(&self) -> usize {
        256
    }

    fn features(&self) -> u64 {
        self.offer.features
    }

    fn protocol_features(&self) -> Protocol {
        self.offer.protocol
    }

    fn set_event_idx(&mut self, _enabled: bool) {}

    fn update_memory(&mut self, memory: GuestMemoryAtomic<Memory>) -> io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        Some((self.exit.0.try_clone().unwrap(), self.exit.1.try_clone().unwrap()))
    }

    fn handle_event(
        &mut self,
        device_event: u16,
        _events: EventSet,
        vrings: &[Vring],
        _thread: usize,
    ) -> io::Result<()> {
        let pair = usize::from(device_event) / 2;
        if !device_event.is_multiple_of(2) {
            self.take(pair, &vrings[2 * pair + 1]);
        }
        self.give(pair, &vrings[2 * pair]);
        Ok(())
    }
}
