//! A back end on a thread of the test, made of the crate `vhost-user-backend`: a disk in
//! memory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kedge_guest_memory::GuestMemoryMmap;
use tempfile::TempDir;
use vhost::vhost_user::{Listener, VhostUserProtocolFeatures as Protocol};
use vhost_user_backend::bitmap::BitmapMmapRegion;
use vhost_user_backend::{
    ShutdownHandle, VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT,
};
use virtio_queue::{DescriptorChain, QueueOwnedT};
use vm_memory::{Bytes, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

type Memory = GuestMemoryMmap<BitmapMmapRegion>;
type Chain = DescriptorChain<GuestMemoryLoadGuard<Memory>>;

/// What a back end offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) features: u64,
    pub(crate) protocol: Protocol,
    pub(crate) queues: usize,
}

/// All that a back end of a disk with two queues needs.
pub(crate) const ALL: Offer = Offer {
    // VERSION_1, PROTOCOL_FEATURES, EVENT_IDX, INDIRECT_DESC, LOG_ALL, FLUSH, MQ, SEG_MAX.
    features: 1 << 32 | 1 << 30 | 1 << 29 | 1 << 28 | 1 << 26 | 1 << 9 | 1 << 12 | 1 << 2,
    protocol: Protocol::MQ
        .union(Protocol::CONFIG)
        .union(Protocol::LOG_SHMFD)
        .union(Protocol::REPLY_ACK),
    queues: 2,
};

/// A back end that listens, and serves one connection after the other.
pub(crate) struct TestBackEnd {
    directory: TempDir,
    disk: Arc<Mutex<Vec<u8>>>,
    connection: Arc<Mutex<Option<ShutdownHandle>>>,
}

impl TestBackEnd {
    /// A back end with this disk.
    pub(crate) fn start(disk: Vec<u8>, offer: Offer) -> Self {
        let directory = TempDir::new().unwrap();
        let disk = Arc::new(Mutex::new(disk));
        let connection = Arc::new(Mutex::new(None));
        let back_end = Self { directory, disk, connection };
        let mut listener = Listener::new(back_end.socket(), true).unwrap();
        let (disk, connection) = (Arc::clone(&back_end.disk), Arc::clone(&back_end.connection));
        std::thread::spawn(move || {
            loop {
                let exit = new_event_consumer_and_notifier(EventFlag::NONBLOCK).unwrap();
                let served = Served { disk: Arc::clone(&disk), offer, memory: None, exit };
                let memory = GuestMemoryAtomic::new(Memory::new());
                let served = Arc::new(Mutex::new(served));
                let mut daemon = VhostUserDaemon::new("disk".to_owned(), served, memory).unwrap();
                daemon.start(&mut listener).unwrap();
                *connection.lock().unwrap() = daemon.shutdown_handle();
                let _ = daemon.wait();
            }
        });
        back_end
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("back-end")
    }

    /// Its disk as it is now.
    pub(crate) fn disk(&self) -> Vec<u8> {
        self.disk.lock().unwrap().clone()
    }

    pub(crate) fn resize(&self, length: usize) {
        self.disk.lock().unwrap().resize(length, 0);
    }

    /// Hangs up.
    pub(crate) fn hang_up(&self) {
        self.connection.lock().unwrap().as_ref().unwrap().shutdown();
    }
}

/// A socket at which a test plays the back end, by hand.
pub(crate) fn by_hand(
    play: impl FnOnce(std::os::unix::net::UnixStream) + Send + 'static,
) -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("back-end");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || play(listener.accept().unwrap().0));
    (directory, path)
}

/// A disk for one connection.
struct Served {
    disk: Arc<Mutex<Vec<u8>>>,
    offer: Offer,
    memory: Option<GuestMemoryAtomic<Memory>>,
    exit: (EventConsumer, EventNotifier),
}

impl VhostUserBackendMut for Served {
    type Bitmap = BitmapMmapRegion;
    type Vring = VringRwLock<GuestMemoryAtomic<Memory>>;

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

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let sectors = u64::try_from(self.disk.lock().unwrap().len() / 512).unwrap();
        let mut space = sectors.to_le_bytes().to_vec();
        // More queues than anybody has asked for.
        space.resize(34, 0x5a);
        space.resize(60, 0);
        let from = usize::try_from(offset).unwrap();
        space.resize(from + usize::try_from(size).unwrap(), 0);
        space.split_off(from)
    }

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
        vrings: &[Self::Vring],
        _thread: usize,
    ) -> io::Result<()> {
        let vring = &vrings[usize::from(device_event)];
        let memory = self.memory.clone().unwrap();
        loop {
            vring.disable_notification().unwrap();
            let chains: Vec<Chain> = match vring.get_mut().get_queue_mut().iter(memory.memory()) {
                Ok(chains) => chains.collect(),
                // The ring is not one.
                Err(_) => return Ok(()),
            };
            for chain in chains {
                let head = chain.head_index();
                let written = serve(&mut self.disk.lock().unwrap(), &memory, chain);
                vring.add_used(head, written).unwrap();
                vring.signal_used_queue().unwrap();
            }
            if !vring.enable_notification().unwrap() {
                return Ok(());
            }
        }
    }
}

/// Does what a request says, in the form that drivers of tests give it; how much was
/// written.
fn serve(disk: &mut [u8], memory: &GuestMemoryAtomic<Memory>, chain: Chain) -> u32 {
    let memory = memory.memory();
    let (mut request, mut into) = (Vec::new(), Vec::new());
    for descriptor in chain {
        let length = usize::try_from(descriptor.len()).unwrap();
        if descriptor.is_write_only() {
            into.push((descriptor.addr(), length));
        } else {
            let start = request.len();
            request.resize(start + length, 0);
            memory.read_slice(&mut request[start..], descriptor.addr()).unwrap();
        }
    }
    let sector = u64::from_le_bytes(request[8..16].try_into().unwrap());
    let mut at = usize::try_from(sector).unwrap() * 512;
    let (status, _) = into.pop().unwrap();
    match request[0] {
        1 => disk[at..][..request.len() - 16].copy_from_slice(&request[16..]),
        _ => {
            for &(address, length) in &into {
                memory.write_slice(&disk[at..][..length], address).unwrap();
                at += length;
            }
        }
    }
    memory.write_obj(0_u8, status).unwrap();
    1 + u32::try_from(into.iter().map(|(_, length)| length).sum::<usize>()).unwrap()
}

/// What is asked of a back end that is not there.
pub(crate) fn nowhere() -> &'static Path {
    Path::new("/nowhere/back-end")
}
