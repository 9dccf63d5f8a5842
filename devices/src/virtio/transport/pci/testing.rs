//! A driver of a PCI function, which reaches it as a guest does: through configuration
//! spaces and a window.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kedge_bus::{
    Doorbell, DoorbellPost, Message, MmioDevice, MsiPort, RestoreError, Stateful, Unsuitable,
};
use kedge_guest_memory::{Bytes, GuestAddress, GuestMemory, GuestRange, map_anonymous};
use kedge_saved_state::Part;
use virtio_queue::desc::split::Descriptor;

use super::place::at;
use super::{PciSite, PciTransport, reg};
use crate::pci::{Ecam, Function, FunctionNumber, Root, Window};
use crate::virtio::testing::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, Echo, FEATURES_OK, NEXT, RAM, RAM_SIZE, TestLoop, VERSION_1,
    WRITE, wait_for,
};
use crate::virtio::transport::Transport;

/// Where the window is.
pub(super) const WINDOW: GuestRange = GuestRange::new(0x1000_0000, 0x100_0000);
/// Where the driver puts the registers.
pub(super) const BAR: u64 = WINDOW.start.0 + 0x4_0000;
/// The function's configuration space.
const SPACE: u64 = 3 << 15;
/// Vectors of the echo: for the configuration, for two queues.
pub(super) const MSIX_CONTROL: u64 = 0x42;

/// The doorbells that hang, by address.
#[derive(Default)]
pub(super) struct Post(pub(super) Mutex<Vec<u64>>);

impl DoorbellPost for Post {
    fn hang(&self, address: u64, bell: &Doorbell) -> bool {
        let mut hanging = self.0.lock().unwrap();
        let address = address + bell.offset;
        let free = !hanging.contains(&address);
        free.then(|| hanging.push(address));
        free
    }

    fn take_down(&self, address: u64, bell: &Doorbell) {
        self.0.lock().unwrap().retain(|hanging| *hanging != address + bell.offset);
    }
}

pub(super) struct PciDriver {
    pub(super) transport: Arc<PciTransport>,
    pub(super) ecam: Ecam,
    pub(super) window: Window,
    pub(super) post: Arc<Post>,
    pub(super) sent: Arc<Mutex<Vec<Message>>>,
    pub(super) memory: GuestMemory,
    used: u16,
    _event_loop: Arc<TestLoop>,
}

impl Drop for PciDriver {
    fn drop(&mut self) {
        self.transport.shutdown();
    }
}

impl PciDriver {
    /// A driver that has not touched its echo yet.
    pub(super) fn new() -> Self {
        let memory = map_anonymous(&[GuestRange::new(RAM, RAM_SIZE)]).unwrap();
        let (event_loop, post) = (TestLoop::start(), Arc::<Post>::default());
        let (messages, sent) = MsiPort::observed();
        let site = PciSite {
            memory: &memory,
            event_loop: &event_loop.handle(),
            windows: &[WINDOW],
            post: Arc::<Post>::clone(&post),
            messages,
        };
        let transport = Arc::new(PciTransport::new(Box::new(Echo::default()), site).unwrap());
        let function = Arc::<PciTransport>::clone(&transport);
        let root = Root::new(vec![(FunctionNumber::device(3).unwrap(), function)]);
        let root = Arc::new(root);
        let ecam = Ecam::new(Arc::clone(&root), 0x20_0000);
        let window = Window::new(root, WINDOW.start.0, WINDOW.size);
        Self { transport, ecam, window, post, sent, memory, used: 0, _event_loop: event_loop }
    }

    /// The same, whose registers can be reached at [`BAR`].
    pub(super) fn placed() -> Self {
        let driver = Self::new();
        driver.put(BAR);
        driver
    }

    /// The same, with both queues set up, each with the vector behind its index, and running.
    pub(super) fn running() -> Self {
        let driver = Self::placed();
        driver.enable_vectors();
        driver.negotiate();
        for queue in 0..2 {
            driver.set_up(queue);
        }
        driver.store8(reg::DEVICE_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        driver
    }

    /// Puts the registers somewhere and lets them be reached.
    pub(super) fn put(&self, address: u64) {
        self.space_write(0x10, &low(address).to_le_bytes());
        self.space_write(0x14, &low(address >> 32).to_le_bytes());
        self.space_write(0x04, &6_u16.to_le_bytes());
    }

    pub(super) fn space_read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.ecam.read(SPACE + offset, &mut data).unwrap();
        data
    }

    pub(super) fn space_write(&self, offset: u64, data: &[u8]) {
        self.ecam.write(SPACE + offset, data).unwrap();
    }

    pub(super) fn try_read(&self, offset: u64, data: &mut [u8]) -> Result<(), Unsuitable> {
        self.window.read(BAR - WINDOW.start.0 + offset, data)
    }

    pub(super) fn try_write(&self, offset: u64, data: &[u8]) -> Result<(), Unsuitable> {
        self.window.write(BAR - WINDOW.start.0 + offset, data)
    }

    pub(super) fn load<const N: usize>(&self, offset: u64) -> u64 {
        let mut data = [0; 8];
        self.try_read(offset, &mut data[..N]).unwrap();
        u64::from_le_bytes(data)
    }

    pub(super) fn store8(&self, offset: u64, value: u32) {
        self.try_write(offset, &value.to_le_bytes()[..1]).unwrap();
    }

    pub(super) fn store16(&self, offset: u64, value: u16) {
        self.try_write(offset, &value.to_le_bytes()).unwrap();
    }

    pub(super) fn store32(&self, offset: u64, value: u32) {
        self.try_write(offset, &value.to_le_bytes()).unwrap();
    }

    /// Lets messages through: vector n stores 0x40 + n to 0x808_0000 + n * 0x10.
    pub(super) fn enable_vectors(&self) {
        for n in 0..3 {
            let entry = at::TABLE + 16 * u64::from(n);
            self.store32(entry, 0x808_0000 + 0x10 * n);
            self.store32(entry + 8, 0x40 + n);
            self.store32(entry + 12, 0);
        }
        self.space_write(MSIX_CONTROL, &0x8000_u16.to_le_bytes());
    }

    /// Masks or unmasks a vector.
    pub(super) fn mask(&self, vector: u64, control: u32) {
        self.store32(at::TABLE + 16 * vector + 12, control);
    }

    pub(super) fn negotiate(&self) {
        self.store8(reg::DEVICE_STATUS, 0);
        self.store8(reg::DEVICE_STATUS, ACKNOWLEDGE | DRIVER);
        self.store32(reg::DRIVER_FEATURE_SELECT, 1);
        self.store32(reg::DRIVER_FEATURE, low(VERSION_1 >> 32));
        self.store8(reg::DEVICE_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(self.load::<1>(reg::DEVICE_STATUS) & 8, 8);
        self.store16(reg::CONFIG_MSIX_VECTOR, 0);
    }

    /// Sets up a queue of 16 with the vector behind its index.
    pub(super) fn set_up(&self, queue: u16) {
        let ring = RAM + u64::from(queue) * 0x4000;
        self.memory.write_slice(&[0; 0x3000], GuestAddress(ring)).unwrap();
        self.store16(reg::QUEUE_SELECT, queue);
        self.store16(reg::QUEUE_SIZE, 16);
        self.store16(reg::QUEUE_MSIX_VECTOR, queue + 1);
        self.try_write(reg::QUEUE_DESC, &ring.to_le_bytes()).unwrap();
        self.store32(reg::QUEUE_DRIVER, low(ring + 0x1000));
        self.store32(reg::QUEUE_DEVICE, low(ring + 0x2000));
        self.store16(reg::QUEUE_ENABLE, 1);
    }

    /// Has the echo write back five bytes on queue 0. Whether it did.
    pub(super) fn echoes(&mut self) -> bool {
        let (from, to) = (RAM + 0x10_0000, RAM + 0x10_1000);
        self.memory.write_slice(b"hello", GuestAddress(from)).unwrap();
        self.memory.write_slice(&[0; 5], GuestAddress(to)).unwrap();
        for (n, descriptor) in
            [Descriptor::new(from, 5, NEXT, 1), Descriptor::new(to, 5, WRITE, 0)].iter().enumerate()
        {
            let at = GuestAddress(RAM + 16 * u64::try_from(n).unwrap());
            self.memory.write_obj(*descriptor, at).unwrap();
        }
        self.used += 1;
        self.memory.write_obj(self.used, GuestAddress(RAM + 0x1002)).unwrap();
        self.store16(at::NOTIFY, 0);
        let used = || self.memory.read_obj::<u16>(GuestAddress(RAM + 0x2002)).unwrap();
        let mut echo = [0; 5];
        let done = wait_for(|| used() == self.used);
        self.memory.read_slice(&mut echo, GuestAddress(to)).unwrap();
        done && echo == *b"hello"
    }

    /// Sets the index of the available ring of queue 0, to whatever.
    pub(super) fn memory_index(&mut self, index: u16) {
        self.memory.write_obj(index, GuestAddress(RAM + 0x1002)).unwrap();
        self.used = 0;
    }

    /// The data of the messages that were sent since the last look.
    pub(super) fn messages(&self) -> Vec<u32> {
        self.sent.lock().unwrap().drain(..).map(|message| message.data).collect()
    }

    /// Whether just one message comes.
    pub(super) fn gets(&self, data: u32) -> bool {
        wait_for(|| !self.sent.lock().unwrap().is_empty()) && self.messages() == [data]
    }

    pub(super) fn save(&self) -> Part {
        self.transport.pause(Instant::now() + Duration::from_secs(10)).unwrap();
        self.transport.save().unwrap()
    }

    /// The driver in another machine, on an echo that rests as it was `saved`.
    pub(super) fn moved(&self, saved: &Part) -> Result<Self, RestoreError> {
        let mut moved = Self::new();
        let mut ram = vec![0; usize::try_from(RAM_SIZE).unwrap()];
        self.memory.read_slice(&mut ram, GuestAddress(RAM)).unwrap();
        moved.memory.write_slice(&ram, GuestAddress(RAM)).unwrap();
        moved.used = self.used;
        moved.transport.restore(saved)?;
        Ok(moved)
    }

    /// Where the function's registers are.
    pub(super) fn start(&self) -> Option<u64> {
        self.transport.start()
    }
}

/// Bits 0 to 31.
pub(super) fn low(word: u64) -> u32 {
    u32::try_from(word & 0xffff_ffff).unwrap()
}
