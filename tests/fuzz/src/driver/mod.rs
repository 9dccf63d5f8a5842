//! A driver that does to its device whatever the fuzzer says: what the specification
//! allows, and what it does not.

mod rings;

use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use kedge_devices::virtio::change::Change;
use kedge_devices::virtio::device::VirtioDevice;
use kedge_guest_memory::{GuestMemory, GuestRange, map_anonymous};

use crate::event_loop::Loop;
use crate::front::{Front, Place, Register};
use crate::log;
use crate::tamper::tamper;
pub(crate) use rings::RAM;
use rings::{QUEUE_SIZE, Rings};

/// How much the driver does with one input.
const MOST_STEPS: usize = 200;
/// The most queues that it sets up.
const MOST_QUEUES: u32 = 16;

/// A device, and the host's side of it.
pub(crate) trait Subject {
    /// Whether the host lets it work whenever its driver is ready.
    const WORKS: bool = true;
    /// How long it may take to rest.
    const PATIENCE: Duration = Duration::from_secs(10);
    /// Whether it does by then, whatever the host does.
    const RESTS: bool = true;

    /// The guest's memory.
    fn memory(&self, ranges: &[GuestRange]) -> GuestMemory {
        map_anonymous(ranges).expect("memory")
    }

    /// Another device like the first.
    fn device(&mut self) -> Box<dyn VirtioDevice>;

    /// Something happens on the host.
    ///
    /// # Errors
    /// The input has no more bytes.
    fn happen(&mut self, from: &mut Unstructured<'_>) -> Result<()>;

    /// The queue, of so many that are set up, on which the driver sends something.
    ///
    /// # Errors
    /// The input has no more bytes.
    fn queue(&mut self, queues: usize, from: &mut Unstructured<'_>) -> Result<usize> {
        Ok(usize::from(from.arbitrary::<u8>()?) % queues)
    }

    /// Something that the driver may well send, on `queue` of so many that are set up.
    ///
    /// # Errors
    /// The input has no more bytes.
    fn request(
        &mut self,
        queue: usize,
        queues: usize,
        from: &mut Unstructured<'_>,
    ) -> Result<Request>;

    /// A change that a user asks for at run time.
    ///
    /// # Errors
    /// The input has no more bytes.
    fn change(&mut self, _from: &mut Unstructured<'_>) -> Result<Option<Change>> {
        Ok(None)
    }
}

/// What a driver sends: bytes, and room for the answer.
#[derive(Default)]
pub(crate) struct Request {
    pub(crate) readable: Vec<u8>,
    pub(crate) writable: u32,
}

/// A driver and its device.
pub(crate) struct Driver<S, F> {
    front: F,
    place: Place,
    event_loop: Loop,
    rings: Rings,
    subject: S,
    /// Whether it was restored from what it cannot be: it is of no further use.
    is_spoilt: bool,
}

impl<S: Subject, F: Front> Driver<S, F> {
    /// Does with a device of `subject` what the rest of the input says.
    pub(crate) fn drive(mut subject: S, from: &mut Unstructured<'_>) {
        log::begin();
        let memory = subject.memory(&[GuestRange::new(RAM, rings::RAM_SIZE)]);
        let device = subject.device();
        let counters = device.counters();
        let event_loop = Loop::start();
        let rings = Rings::new(memory.clone());
        let place = Place { memory, event_loop: event_loop.handle() };
        let front = F::new(device, &place);
        let is_spoilt = false;
        let mut driver = Self { front, place, event_loop, rings, subject, is_spoilt };
        driver.restart(u64::MAX);
        for _ in 0..MOST_STEPS {
            if from.is_empty() || driver.step(from).is_err() {
                break;
            }
            driver.event_loop.settle();
        }
        // Whatever was done to it: a reset leads out of it.
        driver.restart(u64::MAX);
        driver.event_loop.settle();
        driver.check();
        driver.front.shutdown();
        counters.iter().for_each(|(_, counters)| counters.each(&mut |_, _| {}));
    }

    fn step(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        match from.arbitrary::<u8>()? % 32 {
            0..=11 => self.request(from),
            12..=13 => self.rings.anything(from),
            14 => {
                self.front.ring((from.arbitrary::<u8>()? % 20).into());
                Ok(())
            }
            15..=16 => self.access(from),
            17 => self.restart_queue(from),
            18 => {
                let features = from.arbitrary::<u32>()?;
                self.restart(u64::from(features) | u64::from(from.arbitrary::<u8>()?) << 32);
                Ok(())
            }
            19 => self.rest(from),
            20..=21 => self.move_on(from),
            22..=23 => self.change(from),
            24..=26 => self.front.happen(from),
            _ => self.subject.happen(from),
        }
    }

    /// Makes available what the driver may well send, in pieces, and rings.
    fn request(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let queues = self.rings.count();
        if queues == 0 {
            return Ok(());
        }
        let queue = self.subject.queue(queues, from)?;
        let request = self.subject.request(queue, queues, from)?;
        let rings = self.rings.offer(queue, &request, from)?;
        if rings {
            self.front.ring(u32::try_from(queue).expect("there are few"));
        }
        Ok(())
    }

    /// Loads or stores anywhere, or where the device's own registers are.
    fn access(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let offset = match from.arbitrary()? {
            true => F::CONFIG + u16::from(from.arbitrary::<u8>()? & 0x3f),
            false => from.arbitrary()?,
        };
        let width = [1, 2, 4, 8][from.int_in_range(0..=3_usize)?];
        let mut data = from.arbitrary::<[u8; 8]>()?;
        match from.arbitrary()? {
            true => self.front.write(offset, &data[..width]),
            false => self.front.read(offset, &mut data[..width]),
        }
        Ok(())
    }

    /// Sets the device up as a driver does that accepts those `features` that are offered.
    fn restart(&mut self, features: u64) {
        let front = &self.front;
        front.reach();
        front.store(Register::Status, 0);
        front.store(Register::Status, 1);
        front.store(Register::Status, 3);
        for half in 0..2_u32 {
            front.store(Register::DeviceFeaturesSelect, half);
            let offered = front.load(Register::DeviceFeatures);
            front.store(Register::DriverFeaturesSelect, half);
            let wanted = (features >> (32 * half)) as u32 | u32::from(half == 1);
            front.store(Register::DriverFeatures, offered & wanted);
        }
        front.store(Register::Status, 11);
        self.rings.clear();
        for queue in 0..MOST_QUEUES {
            front.store(Register::QueueSelect, queue);
            match front.load(Register::QueueSize) {
                0 => break,
                // It was promised shorter queues, by what was changed in its saved state.
                most => self.is_spoilt |= most < QUEUE_SIZE.into(),
            }
            self.rings.add(&self.front);
        }
        self.front.store(Register::Status, 15);
    }

    /// Checks that the device works, which was just set up by all the rules.
    fn check(&self) {
        let status = self.front.load(Register::Status);
        let is_right = if S::WORKS { status == 15 } else { status & 15 == 15 };
        assert!(is_right || self.is_spoilt, "a device does not come back from a reset: {status}");
    }

    /// Resets a queue, and perhaps sets it up again, as it should be or not.
    fn restart_queue(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let queue = u32::from(from.arbitrary::<u8>()? % 18);
        self.front.store(Register::QueueSelect, queue);
        self.front.store(Register::QueueReset, 1);
        match from.int_in_range(0..=3)? {
            0 => {}
            1 => self.rings.set_up_again(&self.front, queue),
            2 => {
                self.front.store(Register::QueueSize, from.arbitrary::<u16>()?.into());
                self.front.store(Register::QueueReady, 1);
            }
            _ => {
                let area = [Register::Descriptors, Register::Available, Register::Used];
                let area = area[from.int_in_range(0..=2_usize)?];
                self.front.store(area, from.arbitrary()?);
                self.front.store(Register::QueueReady, 1);
            }
        }
        Ok(())
    }

    /// Rests, and goes on: in time, or hardly so.
    fn rest(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let in_time = from.ratio(3, 4)?;
        let patience = if in_time { S::PATIENCE } else { Duration::ZERO };
        for part in self.front.parts() {
            if let Err(error) = part.pause(Instant::now() + patience) {
                drop(kedge_diag::report(&error));
            }
        }
        if from.arbitrary()? {
            self.subject.happen(from)?;
        }
        self.resume();
        Ok(())
    }

    fn resume(&self) {
        for part in self.front.parts() {
            if let Err(error) = part.resume() {
                drop(kedge_diag::report(&error));
            }
        }
    }

    /// Saves the device, perhaps changes what was saved, and goes on with another that was
    /// restored from it.
    fn move_on(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let deadline = Instant::now() + S::PATIENCE;
        let mut saved = Vec::new();
        for part in self.front.parts() {
            drop(part.save());
            if let Err(error) = part.pause(deadline) {
                drop(kedge_diag::report(&error));
                assert!(!S::RESTS, "it does not pause in time");
                self.resume();
                return Ok(());
            }
            saved.push(part.save().expect("it is paused"));
            drop(part.name());
        }
        if from.ratio(2, 3)? {
            let which = usize::from(from.arbitrary::<u8>()?) % saved.len();
            tamper(&mut saved[which], from)?;
        }
        let Self { front, subject, place, .. } = self;
        front.exchange(|| subject.device(), place);
        for (part, saved) in self.front.parts().into_iter().zip(&saved) {
            // What was saved may be refused; the device is of no further use then.
            if let Err(error) = part.restore(saved) {
                drop(kedge_diag::report(&error));
                self.is_spoilt = true;
                return Ok(());
            }
        }
        self.is_spoilt = false;
        self.resume();
        Ok(())
    }

    /// A user changes the device.
    fn change(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let Some(change) = self.subject.change(from)? else { return Ok(()) };
        let deadline = Instant::now() + S::PATIENCE;
        if let Err(error) = self.front.target().change(&change, deadline) {
            drop(kedge_diag::report(&error));
        }
        Ok(())
    }
}
