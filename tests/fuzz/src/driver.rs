//! A driver that does to its device whatever the fuzzer says: what the specification
//! allows, and what it does not.

use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Result, Unstructured};
use kedge_bus::{IrqLine, MmioDevice, Stateful};
use kedge_devices::virtio::device::VirtioDevice;
use kedge_devices::virtio::transport::MmioTransport;
use kedge_guest_memory::{Bytes, GuestAddress, GuestMemory, GuestRange, map_anonymous};

use crate::event_loop::Loop;

/// Where RAM starts, and its bytes: rings in the first half, buffers in the second.
const RAM: u64 = 0x8000_0000;
const RAM_SIZE: u64 = 0x8_0000;
const BUFFERS: u64 = RAM + RAM_SIZE / 2;
/// Rings of one queue: descriptors, available and used, 4 KiB each.
const RINGS: u64 = 0x4000;
/// Entries of a ring that the driver sets up itself.
const QUEUE_SIZE: u16 = 16;
/// How much the driver does with one input.
const MOST_STEPS: usize = 200;

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

/// A device, and the host's side of it.
pub(crate) trait Subject {
    /// Another device like the first.
    fn device(&mut self) -> Box<dyn VirtioDevice>;

    /// Something happens on the host.
    ///
    /// # Errors
    /// The input has no more bytes.
    fn happen(&mut self, from: &mut Unstructured<'_>) -> Result<()>;

    /// Something that the driver may well send: the start of a request.
    ///
    /// # Errors
    /// The input has no more bytes.
    fn request(&mut self, from: &mut Unstructured<'_>) -> Result<Vec<u8>>;
}

/// What a driver does next.
#[derive(Arbitrary)]
enum Step {
    Read { offset: u16, width: Width },
    Write { offset: u16, value: u32, width: Width },
    Poke { offset: u32, bytes: [u8; 8] },
    Chain { queue: u8, indirect: bool, flags: u8 },
    Kick { queue: u32 },
    Restart { features: u64 },
    PauseAndResume,
    Move { changed: Option<(u16, u8)> },
    Happen,
}

#[derive(Arbitrary)]
enum Width {
    One,
    Two,
    Four,
    Eight,
}

impl Width {
    fn bytes(&self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

/// A driver and its device.
pub(crate) struct Driver<S: Subject> {
    /// Absent while one is exchanged for another.
    transport: Option<MmioTransport>,
    memory: GuestMemory,
    event_loop: Loop,
    subject: S,
    /// The next descriptor and the next available entry, by queue.
    next: Vec<(u16, u16)>,
}

impl<S: Subject> Driver<S> {
    /// Does with a device of `subject` what `data` says.
    pub(crate) fn drive(mut subject: S, data: &[u8]) {
        let memory = map_anonymous(&[GuestRange::new(RAM, RAM_SIZE)]).expect("memory");
        let event_loop = Loop::start();
        let transport = Some(transport(subject.device(), &memory, &event_loop));
        let mut driver = Self { transport, memory, event_loop, subject, next: Vec::new() };
        let mut from = Unstructured::new(data);
        driver.restart(u64::MAX);
        for _ in 0..MOST_STEPS {
            if from.is_empty() || driver.step(&mut from).is_err() {
                break;
            }
            driver.event_loop.settle();
        }
        driver.transport().shutdown();
    }

    fn step(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        match Step::arbitrary(from)? {
            Step::Read { offset, width } => {
                let mut data = [0; 8];
                let _ =
                    self.transport().read(u64::from(offset & 0xfff), &mut data[..width.bytes()]);
            }
            Step::Write { offset, value, width } => {
                let data = [value.to_le_bytes(), value.to_le_bytes()].concat();
                let offset = u64::from(offset & 0xfff);
                let _ = self.transport().write(offset, &data[..width.bytes()]);
            }
            Step::Poke { offset, bytes } => {
                let address = GuestAddress(RAM + u64::from(offset) % (RAM_SIZE - 8));
                self.memory.write_slice(&bytes, address).expect("it is within RAM");
            }
            Step::Chain { queue, indirect, flags } => self.chain(from, queue, indirect, flags)?,
            Step::Kick { queue } => self.write(reg::QUEUE_NOTIFY, queue % 20),
            Step::Restart { features } => self.restart(features),
            Step::PauseAndResume => {
                self.pause();
                let _ = self.transport().resume();
            }
            Step::Move { changed } => self.move_on(changed),
            Step::Happen => self.subject.happen(from)?,
        }
        Ok(())
    }

    /// Makes a chain of one to four buffers available, and rings.
    fn chain(
        &mut self,
        from: &mut Unstructured<'_>,
        queue: u8,
        indirect: bool,
        flags: u8,
    ) -> Result<()> {
        if self.next.is_empty() {
            return Ok(());
        }
        let queue = usize::from(queue) % self.next.len();
        let count = usize::from(flags & 3) + 1;
        let mut descriptors = Vec::new();
        for index in 0..count {
            let address = BUFFERS + u64::from(from.arbitrary::<u16>()?);
            let writable = flags & (0x10 << index) != 0;
            let length = match writable {
                true => u32::from(from.arbitrary::<u16>()?),
                false => {
                    let bytes = self.subject.request(from)?;
                    self.memory.write_slice(&bytes, GuestAddress(address)).expect("it is short");
                    u32::try_from(bytes.len()).expect("it is short")
                }
            };
            let more = u16::from(index + 1 < count);
            descriptors.push((address, length, more | u16::from(writable) << 1));
        }
        self.offer(queue, indirect, &descriptors);
        self.write(reg::QUEUE_NOTIFY, u32::try_from(queue).expect("there are few queues"));
        Ok(())
    }

    fn offer(&mut self, queue: usize, indirect: bool, descriptors: &[(u64, u32, u16)]) {
        let rings = RAM + queue as u64 * RINGS;
        let (mut next, available) = self.next[queue];
        let head = next % QUEUE_SIZE;
        if indirect {
            let table = rings + 0x3000;
            for (index, descriptor) in descriptors.iter().enumerate() {
                self.describe(table, index as u16, descriptor, index as u16 + 1);
            }
            let whole = (table, 16 * descriptors.len() as u32, 4);
            self.describe(rings, head, &whole, 0);
            next = next.wrapping_add(1);
        } else {
            for descriptor in descriptors {
                let index = next % QUEUE_SIZE;
                next = next.wrapping_add(1);
                self.describe(rings, index, descriptor, next % QUEUE_SIZE);
            }
        }
        let slot = rings + 0x1000 + 4 + 2 * u64::from(available % QUEUE_SIZE);
        self.store(slot, head);
        self.store(rings + 0x1002, available.wrapping_add(1));
        self.next[queue] = (next, available.wrapping_add(1));
    }

    fn describe(&self, table: u64, index: u16, of: &(u64, u32, u16), next: u16) {
        let &(address, length, flags) = of;
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        let at = GuestAddress(table + 16 * u64::from(index));
        self.memory.write_slice(&bytes, at).expect("tables are within RAM");
    }

    fn store(&self, address: u64, value: u16) {
        let at = GuestAddress(address);
        self.memory.write_slice(&value.to_le_bytes(), at).expect("rings are within RAM");
    }

    /// Sets the device up as a driver does that accepts those `features` that are offered.
    fn restart(&mut self, features: u64) {
        self.write(reg::STATUS, 0);
        self.write(reg::STATUS, 1);
        self.write(reg::STATUS, 3);
        for half in 0..2_u32 {
            self.write(reg::DEVICE_FEATURES_SEL, half);
            let offered = self.read(reg::DEVICE_FEATURES);
            self.write(reg::DRIVER_FEATURES_SEL, half);
            let wanted = (features >> (32 * half)) as u32 | u32::from(half == 1);
            self.write(reg::DRIVER_FEATURES, offered & wanted);
        }
        self.write(reg::STATUS, 11);
        self.next.clear();
        for queue in 0..16_u32 {
            self.write(reg::QUEUE_SEL, queue);
            if self.read(reg::QUEUE_NUM_MAX) == 0 {
                break;
            }
            self.set_up(queue);
        }
        self.write(reg::STATUS, 15);
    }

    fn set_up(&mut self, queue: u32) {
        let rings = RAM + u64::from(queue) * RINGS;
        let nothing = [0; RINGS as usize];
        self.memory.write_slice(&nothing, GuestAddress(rings)).expect("rings are within RAM");
        self.write(reg::QUEUE_NUM, u32::from(QUEUE_SIZE));
        let areas =
            [(reg::QUEUE_DESC, 0), (reg::QUEUE_DRIVER, 0x1000), (reg::QUEUE_DEVICE, 0x2000)];
        for (register, offset) in areas {
            self.write(register, (rings + offset) as u32);
            self.write(register + 4, 0);
        }
        self.write(reg::QUEUE_READY, 1);
        self.next.push((0, 0));
    }

    fn pause(&self) {
        self.transport()
            .pause(Instant::now() + Duration::from_secs(10))
            .expect("it pauses in time");
    }

    /// Saves the device, changes a byte of what was saved, and goes on with another that
    /// was restored from it.
    fn move_on(&mut self, changed: Option<(u16, u8)>) {
        self.pause();
        let mut saved = self.transport().save().expect("it is paused");
        if let Some((offset, value)) = changed {
            let length = saved.body.len();
            saved.body[usize::from(offset) % length] = value;
        }
        self.transport().shutdown();
        // What it holds of the host's is free for the other.
        self.transport = None;
        let device = self.subject.device();
        self.transport = Some(transport(device, &self.memory, &self.event_loop));
        // What was saved may be refused; the device is of no further use then.
        if self.transport().restore(&saved).is_ok() {
            let _ = self.transport().resume();
        }
    }

    fn transport(&self) -> &MmioTransport {
        self.transport.as_ref().expect("there is one")
    }

    fn read(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.transport().read(register, &mut data).expect("registers have 32 bits");
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u64, value: u32) {
        let written = self.transport().write(register, &value.to_le_bytes());
        written.expect("registers have 32 bits");
    }
}

fn transport(
    device: Box<dyn VirtioDevice>,
    memory: &GuestMemory,
    event_loop: &Loop,
) -> MmioTransport {
    MmioTransport::new(device, memory.clone(), IrqLine::detached(), event_loop.handle())
        .expect("file descriptors")
}
