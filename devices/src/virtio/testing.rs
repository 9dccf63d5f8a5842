//! What device tests need on the other side: a driver that writes registers and
//! rings as a guest does, well or badly, and an event loop on a thread.

mod echo;

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event_manager::{EventManager, RemoteEndpoint};
use kedge_bus::{IrqLine, MmioDevice, RestoreError, Stateful};
use kedge_guest_memory::{
    Bytes, GuestAddress, GuestMemory, GuestRange, is_shared, map_anonymous, map_shared,
};
use kedge_saved_state::Part;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use virtio_queue::desc::split::Descriptor;
use vmm_sys_util::eventfd::EventFd;

pub(crate) use self::echo::Echo;
use super::catalog::Kind;
use super::device::{DeviceId, VirtioDevice};
use super::mishap::{Mishap, MishapListener};
use super::syscalls::{EVENT_LOOP, Syscall};
use super::transport::{MmioTransport, reg};
use super::worker::{EventLoop, Subscriber};
use super::{block, net, rng, vsock};

/// Where a test's RAM starts.
pub(crate) const RAM: u64 = 0x8000_0000;
/// Its size in bytes.
pub(crate) const RAM_SIZE: u64 = 0x40_0000;

/// Status (2.1).
pub(crate) const ACKNOWLEDGE: u32 = 1;
pub(crate) const DRIVER: u32 = 2;
pub(crate) const DRIVER_OK: u32 = 4;
pub(crate) const FEATURES_OK: u32 = 8;
pub(crate) const NEEDS_RESET: u32 = 64;

/// Features of the transport.
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const EVENT_IDX: u64 = 1 << 29;

/// Descriptor flags (2.7.5).
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// How long a device may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An event loop on a thread of its own.
pub(crate) struct TestLoop {
    endpoint: RemoteEndpoint<Subscriber>,
    mishaps: Arc<Mutex<Vec<Mishap>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TestLoop {
    pub(crate) fn start() -> Arc<Self> {
        Self::start_with(|| ())
    }

    /// The same, whose thread is killed with its process where it makes a system call that
    /// is not in the list of `device`.
    pub(crate) fn start_for(device: &dyn VirtioDevice) -> Arc<Self> {
        let kind = kind_of(device.device_id());
        Self::start_with(|| allow_only(&[EVENT_LOOP, kind.syscalls].concat()))
    }

    fn start_with(prepare: impl FnOnce() + Send + 'static) -> Arc<Self> {
        let mut manager = EventManager::<Subscriber>::new().unwrap();
        let endpoint = manager.remote_endpoint();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            prepare();
            while !stopped.load(Ordering::SeqCst) {
                manager.run().unwrap();
            }
        };
        let thread = std::thread::Builder::new().name("event loop".to_owned()).spawn(run).unwrap();
        Arc::new(Self { endpoint, mishaps: Arc::default(), stop, thread: Some(thread) })
    }

    pub(crate) fn handle(&self) -> EventLoop {
        let mishaps = Arc::clone(&self.mishaps);
        let hear = move |mishap| mishaps.lock().unwrap().push(mishap);
        EventLoop::new(self.endpoint.clone()).heard_by(MishapListener::new(hear))
    }
}

fn kind_of(device: DeviceId) -> &'static Kind {
    match device {
        DeviceId::Net => &net::KIND,
        DeviceId::Block => &block::KIND,
        DeviceId::Rng => &rng::KIND,
        DeviceId::Vsock => &vsock::KIND,
    }
}

/// Ends the process when this thread makes a system call other than `allowed`.
fn allow_only(allowed: &[Syscall]) {
    let rules = allowed.iter().map(|&number| (number, Vec::new())).collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let (other, allowed) = (SeccompAction::KillProcess, SeccompAction::Allow);
    let filter = SeccompFilter::new(rules, other, allowed, arch).unwrap();
    let applied = seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap());
    // Where another architecture is emulated there is no seccomp.
    assert!(applied.is_ok() || arch != TargetArch::x86_64, "{applied:?}");
}

impl Drop for TestLoop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.endpoint.kick();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A ring of the driver: queue `index` has 16 KiB of RAM from its start, with
/// the descriptor table, the available and the used ring a page each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DriverQueue {
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    next_descriptor: u16,
    next_available: u16,
    next_used: u16,
}

/// A used element (2.7.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) head: u32,
    pub(crate) length: u32,
}

/// A chain the driver made available, and where its buffers are.
#[derive(Clone, Debug)]
pub(crate) struct Offered {
    pub(crate) head: u16,
    pub(crate) writable: Vec<u64>,
}

/// A driver and its device.
pub(crate) struct Driver {
    pub(crate) transport: MmioTransport,
    pub(crate) memory: GuestMemory,
    pub(crate) irq: EventFd,
    pub(crate) queues: Vec<DriverQueue>,
    next_buffer: u64,
    // Declared last: it ends after the device that works on it.
    event_loop: Arc<TestLoop>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.transport.shutdown();
    }
}

impl Driver {
    /// What went wrong with its device so far.
    pub(crate) fn mishaps(&self) -> Vec<Mishap> {
        self.event_loop.mishaps.lock().unwrap().clone()
    }

    /// A driver that has not touched `device` yet, which has a loop to itself.
    pub(crate) fn new(device: Box<dyn VirtioDevice>) -> Self {
        Self::on(&TestLoop::start_for(device.as_ref()), device)
    }

    /// The same, in memory that other processes share.
    pub(crate) fn sharing(device: Box<dyn VirtioDevice>) -> Self {
        Self::within(shared(), &TestLoop::start_for(device.as_ref()), device)
    }

    /// A driver that has not touched `device` yet, which works on `event_loop`.
    pub(crate) fn on(event_loop: &Arc<TestLoop>, device: Box<dyn VirtioDevice>) -> Self {
        let memory = map_anonymous(&[GuestRange::new(RAM, RAM_SIZE)]).unwrap();
        Self::within(memory, event_loop, device)
    }

    fn within(
        memory: GuestMemory,
        event_loop: &Arc<TestLoop>,
        device: Box<dyn VirtioDevice>,
    ) -> Self {
        let (line, irq) = IrqLine::observed().unwrap();
        let transport =
            MmioTransport::new(device, memory.clone(), line, event_loop.handle()).unwrap();
        let event_loop = Arc::clone(event_loop);
        // The rings of 20 queues fit below the buffers.
        let next_buffer = RAM + 20 * 0x4000;
        Self { transport, memory, irq, queues: Vec::new(), next_buffer, event_loop }
    }

    /// Pauses the device and says what is saved of it.
    pub(crate) fn save(&self) -> Part {
        self.transport.pause(Instant::now() + PATIENCE).unwrap();
        self.transport.save().unwrap()
    }

    /// The driver with its memory as it is now, on `device` in another machine that
    /// rests as it was `saved`.
    pub(crate) fn moved(
        &self,
        device: Box<dyn VirtioDevice>,
        saved: &Part,
    ) -> Result<Self, RestoreError> {
        let mut moved = match is_shared(&self.memory) {
            true => Self::within(shared(), &self.event_loop, device),
            false => Self::on(&self.event_loop, device),
        };
        let ram = self.bytes(RAM, usize::try_from(RAM_SIZE).unwrap());
        moved.memory.write_slice(&ram, GuestAddress(RAM)).unwrap();
        moved.queues.clone_from(&self.queues);
        moved.next_buffer = self.next_buffer;
        moved.transport.restore(saved)?;
        Ok(moved)
    }

    /// The same, and `device` goes on.
    pub(crate) fn move_to(&self, device: Box<dyn VirtioDevice>) -> Self {
        let moved = self.moved(device, &self.save()).unwrap();
        moved.transport.resume().unwrap();
        moved
    }

    /// The same, with `features` accepted and every queue set up and running.
    pub(crate) fn running(device: Box<dyn VirtioDevice>, features: u64) -> Self {
        let mut driver = Self::new(device);
        driver.run(features);
        driver
    }

    /// Loads a register.
    pub(crate) fn read(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(register, &mut data).unwrap();
        u32::from_le_bytes(data)
    }

    /// Stores to a register.
    pub(crate) fn write(&self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes()).unwrap();
    }

    /// The features the device offers.
    pub(crate) fn offered(&self) -> u64 {
        self.write(reg::DEVICE_FEATURES_SEL, 1);
        let high = self.read(reg::DEVICE_FEATURES);
        self.write(reg::DEVICE_FEATURES_SEL, 0);
        u64::from(high) << 32 | u64::from(self.read(reg::DEVICE_FEATURES))
    }

    /// Resets the device and accepts `features`. Whether it agrees.
    pub(crate) fn negotiate(&mut self, features: u64) -> bool {
        self.write(reg::STATUS, 0);
        self.queues.clear();
        self.write(reg::STATUS, ACKNOWLEDGE);
        self.write(reg::STATUS, ACKNOWLEDGE | DRIVER);
        self.write(reg::DRIVER_FEATURES_SEL, 0);
        self.write(reg::DRIVER_FEATURES, u32::try_from(features & 0xffff_ffff).unwrap());
        self.write(reg::DRIVER_FEATURES_SEL, 1);
        self.write(reg::DRIVER_FEATURES, u32::try_from(features >> 32).unwrap());
        self.write(reg::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.read(reg::STATUS) & FEATURES_OK != 0
    }

    /// Negotiates `features` and version 1, sets up every queue and starts.
    pub(crate) fn run(&mut self, features: u64) {
        assert!(self.negotiate(features | VERSION_1), "the device offers {:#x}", self.offered());
        for index in 0.. {
            self.write(reg::QUEUE_SEL, index);
            let max = self.read(reg::QUEUE_NUM_MAX);
            if max == 0 {
                break;
            }
            self.set_up_queue(index, u16::try_from(max.min(256)).unwrap());
        }
        self.start();
    }

    /// Tells the device that the driver is ready.
    pub(crate) fn start(&self) {
        self.write(reg::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// Sets up queue `index`, the next in order or one that was reset, with
    /// empty rings of `size`. At most 256: a page holds each part.
    pub(crate) fn set_up_queue(&mut self, index: u32, size: u16) {
        let descriptors = RAM + u64::from(index) * 0x4000;
        let queue = DriverQueue {
            size,
            descriptors,
            available: descriptors + 0x1000,
            used: descriptors + 0x2000,
            next_descriptor: 0,
            next_available: 0,
            next_used: 0,
        };
        self.memory.write_slice(&[0; 0x4000], GuestAddress(descriptors)).unwrap();
        self.write(reg::QUEUE_SEL, index);
        self.write(reg::QUEUE_NUM, u32::from(size));
        self.place(reg::QUEUE_DESC_LOW, queue.descriptors);
        self.place(reg::QUEUE_DRIVER_LOW, queue.available);
        self.place(reg::QUEUE_DEVICE_LOW, queue.used);
        self.write(reg::QUEUE_READY, 1);
        let index = usize::try_from(index).unwrap();
        self.queues.truncate(index);
        self.queues.push(queue);
    }

    /// Stores an address to a pair of registers.
    pub(crate) fn place(&self, register: u64, address: u64) {
        self.write(register, u32::try_from(address & 0xffff_ffff).unwrap());
        self.write(register + 4, u32::try_from(address >> 32).unwrap());
    }

    /// RAM of its own for a buffer.
    pub(crate) fn allocate(&mut self, length: usize) -> u64 {
        let address = self.next_buffer;
        self.next_buffer += u64::try_from(length.next_multiple_of(16)).unwrap();
        assert!(self.next_buffer <= RAM + RAM_SIZE, "the test uses up its RAM");
        address
    }

    /// Writes descriptor `at` of `queue`.
    pub(crate) fn describe(&self, queue: usize, at: u16, descriptor: Descriptor) {
        let table = self.queues[queue].descriptors;
        let address = GuestAddress(table + 16 * u64::from(at));
        self.memory.write_obj(descriptor, address).unwrap();
    }

    /// Adds `head` to the available ring of `queue`.
    pub(crate) fn make_available(&mut self, queue: usize, head: u16) {
        let DriverQueue { available, size, next_available, .. } = self.queues[queue];
        let slot = available + 4 + 2 * u64::from(next_available % size);
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.set_available_index(queue, next_available.wrapping_add(1));
    }

    /// The index of the available ring.
    pub(crate) fn available_index(&self, queue: usize) -> u16 {
        self.queues[queue].next_available
    }

    /// Sets the index of the available ring, to whatever.
    pub(crate) fn set_available_index(&mut self, queue: usize, index: u16) {
        self.queues[queue].next_available = index;
        let address = GuestAddress(self.queues[queue].available + 2);
        self.memory.store(index, address, Ordering::SeqCst).unwrap();
    }

    /// Makes a chain of buffers available: `readable` with their content, then
    /// `writable` of these lengths, filled with 0xaa.
    pub(crate) fn offer(
        &mut self,
        queue: usize,
        readable: &[&[u8]],
        writable: &[usize],
    ) -> Offered {
        let mut buffers = Vec::new();
        for content in readable {
            let address = self.allocate(content.len());
            self.memory.write_slice(content, GuestAddress(address)).unwrap();
            buffers.push((address, content.len(), 0));
        }
        for &length in writable {
            let address = self.allocate(length);
            self.memory.write_slice(&vec![0xaa; length], GuestAddress(address)).unwrap();
            buffers.push((address, length, WRITE));
        }
        let head = self.chain(queue, &buffers);
        self.make_available(queue, head);
        let writable = buffers[readable.len()..].iter().map(|buffer| buffer.0).collect();
        Offered { head, writable }
    }

    /// Writes a chain of (address, length, flags) into the next descriptors.
    pub(crate) fn chain(&mut self, queue: usize, buffers: &[(u64, usize, u16)]) -> u16 {
        let DriverQueue { next_descriptor: head, size, .. } = self.queues[queue];
        let mut at = head;
        for (i, &(address, length, flags)) in buffers.iter().enumerate() {
            let next = (at + 1) % size;
            let flags = if i + 1 < buffers.len() { flags | NEXT } else { flags };
            let length = u32::try_from(length).unwrap();
            self.describe(queue, at, Descriptor::new(address, length, flags, next));
            at = next;
        }
        self.queues[queue].next_descriptor = at;
        head
    }

    /// Notifies the device of the last chain added to `queue` if it asked to be
    /// (2.7.10), as drivers do.
    pub(crate) fn kick_if_asked(&self, queue: usize, event_idx: bool) {
        let DriverQueue { used, size, next_available, .. } = self.queues[queue];
        fence(Ordering::SeqCst);
        let load = |at| self.memory.load::<u16>(GuestAddress(used + at), Ordering::SeqCst).unwrap();
        let asked = match event_idx {
            true => load(4 + 8 * u64::from(size)) == next_available.wrapping_sub(1),
            false => load(0) & 1 == 0,
        };
        if asked {
            self.kick(u32::try_from(queue).unwrap());
        }
    }

    /// Notifies the device of `queue`, as where no doorbell is hung up.
    pub(crate) fn kick(&self, queue: u32) {
        self.write(reg::QUEUE_NOTIFY, queue);
    }

    /// Waits for the next used element of `queue`.
    pub(crate) fn wait_used(&mut self, queue: usize) -> Option<Used> {
        let DriverQueue { used, size, next_used, .. } = self.queues[queue];
        wait_for(|| {
            let index: u16 = self.memory.load(GuestAddress(used + 2), Ordering::SeqCst).unwrap();
            index != next_used
        })
        .then(|| {
            self.queues[queue].next_used = next_used.wrapping_add(1);
            let element = used + 4 + 8 * u64::from(next_used % size);
            let [head, length]: [u32; 2] = self.memory.read_obj(GuestAddress(element)).unwrap();
            Used { head, length }
        })
    }

    /// How many chains of `queue` were used since its set-up.
    pub(crate) fn used_index(&self, queue: usize) -> u16 {
        self.memory.load(GuestAddress(self.queues[queue].used + 2), Ordering::SeqCst).unwrap()
    }

    /// How many used chains of `queue` the driver has seen.
    pub(crate) fn taken(&self, queue: usize) -> u16 {
        self.queues[queue].next_used
    }

    /// Offers a chain, notifies, and waits until it is used.
    pub(crate) fn request(
        &mut self,
        readable: &[&[u8]],
        writable: &[usize],
    ) -> Option<(Offered, Used)> {
        let offered = self.offer(0, readable, writable);
        self.kick(0);
        self.wait_used(0).map(|used| (offered, used))
    }

    /// Waits for an interrupt since the last one waited for.
    pub(crate) fn wait_interrupt(&self) -> bool {
        wait_for(|| self.irq.read().is_ok())
    }

    /// Waits until the device says that it needs a reset.
    pub(crate) fn wait_broken(&self) -> bool {
        wait_for(|| self.read(reg::STATUS) & NEEDS_RESET != 0)
    }

    /// `length` bytes of RAM.
    pub(crate) fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}

fn shared() -> GuestMemory {
    map_shared(&[GuestRange::new(RAM, RAM_SIZE)]).unwrap()
}

/// Whether `condition` came true in good time.
pub(crate) fn wait_for(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}
