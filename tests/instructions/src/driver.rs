//! A driver of one device behind virtio-mmio, which has one request under way at a time, as Linux does it: with all
//! features, and interrupts for each request.

use std::thread;

use anyhow::{Context, ensure};
use event_manager::EventManager;
use kedge_bus::{IrqLine, MmioDevice};
use kedge_devices::virtio::{
    device::VirtioDevice,
    transport::MmioTransport,
    worker::{EventLoop, Subscriber},
};
use kedge_guest_memory::{Bytes, GuestAddress, GuestMemory, GuestRange, map_anonymous};

/// Where RAM starts, and its bytes.
const RAM: u64 = 0x8000_0000;
const RAM_SIZE: u64 = 0x40_0000;
/// Of a queue: descriptors, available and used ring, a page each from here on.
const RINGS: u64 = 0x4000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const QUEUE_SIZE: u16 = 256;
/// Where buffers start: behind the rings of 20 queues.
pub(crate) const BUFFERS: u64 = RAM + 20 * RINGS;

/// Registers (Virtio 1.2, 4.2.2).
mod reg {
    pub(super) const DEVICE_FEATURES: u64 = 0x10;
    pub(super) const DEVICE_FEATURES_SEL: u64 = 0x14;
    pub(super) const DRIVER_FEATURES: u64 = 0x20;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub(super) const QUEUE_SEL: u64 = 0x30;
    pub(super) const QUEUE_NUM_MAX: u64 = 0x34;
    pub(super) const QUEUE_NUM: u64 = 0x38;
    pub(super) const QUEUE_READY: u64 = 0x44;
    pub(super) const QUEUE_NOTIFY: u64 = 0x50;
    pub(super) const STATUS: u64 = 0x70;
    pub(super) const QUEUE_DESC: u64 = 0x80;
    pub(super) const QUEUE_DRIVER: u64 = 0x90;
    pub(super) const QUEUE_DEVICE: u64 = 0xa0;
}

/// A buffer.
#[derive(Clone, Copy)]
pub(crate) struct Buffer {
    pub(crate) address: u64,
    pub(crate) length: u32,
    /// Whether the device writes to it.
    pub(crate) is_written: bool,
}

/// Indices of a queue.
#[derive(Clone, Copy, Default)]
struct Queue {
    available: u16,
    used: u16,
}

/// The driver, and the loop on which its device works.
pub(crate) struct Driver {
    manager: EventManager<Subscriber>,
    transport: MmioTransport,
    memory: GuestMemory,
    queues: Vec<Queue>,
}

impl Driver {
    /// Sets `device` up.
    pub(crate) fn new(device: Box<dyn VirtioDevice>) -> anyhow::Result<Self> {
        let memory = map_anonymous(&[GuestRange::new(RAM, RAM_SIZE)])?;
        let mut manager = EventManager::<Subscriber>::new().context("there is no epoll")?;
        let event_loop = EventLoop::new(manager.remote_endpoint());
        let (wire, _) = IrqLine::observed()?;
        let transport = MmioTransport::new(device, memory.clone(), wire, event_loop)?;
        // The loop has to go on while a device is handed to it.
        let queues = thread::scope(|scope| {
            let setting_up = scope.spawn(|| set_up(&transport));
            while !setting_up.is_finished() {
                manager.run_with_timeout(1).context("the loop fails")?;
            }
            setting_up.join().unwrap_or_else(|_| anyhow::bail!("the device cannot be set up"))
        })?;
        let mut driver =
            Self { manager, transport, memory, queues: vec![Queue::default(); queues] };
        driver.turn()?;
        Ok(driver)
    }

    /// Lets the device do what it has to do.
    pub(crate) fn turn(&mut self) -> anyhow::Result<()> {
        a_turn_of_the_loop(&mut self.manager)
    }

    /// Makes a chain of `buffers` available.
    pub(crate) fn offer(&mut self, queue: usize, buffers: &[Buffer]) -> anyhow::Result<()> {
        let rings = rings(queue)?;
        for (index, buffer) in (0_u16..).zip(buffers) {
            let more = usize::from(index) + 1 < buffers.len();
            let flags = u16::from(more) | u16::from(buffer.is_written) << 1;
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&buffer.address.to_le_bytes());
            bytes[8..12].copy_from_slice(&buffer.length.to_le_bytes());
            bytes[12..14].copy_from_slice(&flags.to_le_bytes());
            bytes[14..].copy_from_slice(&(index + 1).to_le_bytes());
            self.write(rings + 16 * u64::from(index), &bytes)?;
        }
        let own = &mut self.queues[queue];
        let slot = u64::from(own.available % QUEUE_SIZE);
        own.available = own.available.wrapping_add(1);
        let Queue { available, used } = *own;
        self.write(rings + AVAILABLE + 4 + 2 * slot, &[0; 2])?;
        // `used_event`: an interrupt for the next one.
        let behind = AVAILABLE + 4 + 2 * u64::from(QUEUE_SIZE);
        self.write(rings + behind, &used.to_le_bytes())?;
        self.write(rings + AVAILABLE + 2, &available.to_le_bytes())
    }

    /// Rings the doorbell.
    pub(crate) fn ring(&self, queue: usize) -> anyhow::Result<()> {
        store(&self.transport, reg::QUEUE_NOTIFY, u32::try_from(queue)?)
    }

    /// Takes the chain that the device has used.
    pub(crate) fn take(&mut self, queue: usize) -> anyhow::Result<()> {
        let count = self.take_all(queue)?;
        ensure!(count == 1, "the device has used {count} chains, and not one");
        Ok(())
    }

    /// Takes all chains that the device has used; how many there are.
    pub(crate) fn take_all(&mut self, queue: usize) -> anyhow::Result<u16> {
        let index = u16::from_le_bytes(self.read(rings(queue)? + USED + 2)?);
        let before = std::mem::replace(&mut self.queues[queue].used, index);
        Ok(index.wrapping_sub(before))
    }

    /// One request from its doorbell to its interrupt.
    pub(crate) fn request(&mut self, queue: usize, buffers: &[Buffer]) -> anyhow::Result<()> {
        self.offer(queue, buffers)?;
        self.ring(queue)?;
        self.turn()?;
        self.take(queue)
    }

    /// Writes to RAM.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.memory.write_slice(bytes, GuestAddress(address))?)
    }

    /// Loads from RAM.
    pub(crate) fn read<const N: usize>(&self, address: u64) -> anyhow::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.memory.read_slice(&mut bytes, GuestAddress(address))?;
        Ok(bytes)
    }
}

/// Lets the device do what it has to do: what is counted.
#[inline(never)]
fn a_turn_of_the_loop(manager: &mut EventManager<Subscriber>) -> anyhow::Result<()> {
    while manager.run_with_timeout(0).context("the loop fails")? > 0 {}
    Ok(())
}

/// Sets the device up with all its features; how many queues it has.
fn set_up(transport: &MmioTransport) -> anyhow::Result<usize> {
    store(transport, reg::STATUS, 1)?;
    store(transport, reg::STATUS, 3)?;
    for half in 0..2 {
        store(transport, reg::DEVICE_FEATURES_SEL, half)?;
        store(transport, reg::DRIVER_FEATURES_SEL, half)?;
        store(transport, reg::DRIVER_FEATURES, load(transport, reg::DEVICE_FEATURES)?)?;
    }
    store(transport, reg::STATUS, 11)?;
    let mut count = 0;
    loop {
        store(transport, reg::QUEUE_SEL, u32::try_from(count)?)?;
        if load(transport, reg::QUEUE_NUM_MAX)? == 0 {
            break;
        }
        store(transport, reg::QUEUE_NUM, QUEUE_SIZE.into())?;
        let rings = rings(count)?;
        let areas =
            [(reg::QUEUE_DESC, 0), (reg::QUEUE_DRIVER, AVAILABLE), (reg::QUEUE_DEVICE, USED)];
        for (register, offset) in areas {
            store(transport, register, u32::try_from(rings + offset)?)?;
        }
        store(transport, reg::QUEUE_READY, 1)?;
        count += 1;
    }
    store(transport, reg::STATUS, 15)?;
    ensure!(load(transport, reg::STATUS)? == 15, "the device is not ready");
    Ok(count)
}

fn rings(queue: usize) -> anyhow::Result<u64> {
    Ok(RAM + u64::try_from(queue)? * RINGS)
}

fn load(transport: &MmioTransport, register: u64) -> anyhow::Result<u32> {
    let mut data = [0; 4];
    transport.read(register, &mut data)?;
    Ok(u32::from_le_bytes(data))
}

fn store(transport: &MmioTransport, register: u64, value: u32) -> anyhow::Result<()> {
    Ok(transport.write(register, &value.to_le_bytes())?)
}
