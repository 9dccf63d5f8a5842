//! The serial port: a 16550A (National Semiconductor PC16550D) with byte-wide
//! registers next to each other. vm-superio has the registers; this is the shell
//! around them: the lock, the wire, the output and the input's back-pressure.
//!
//! Modem lines and baud rates are for the guest's eyes only: every byte takes no
//! time, and none is lost to the rate.

mod restore;
pub mod saved;
mod watch;

use std::cell::Cell;
use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::{fmt, mem};

use kedge_bus::{
    IrqLine, MmioDevice, Node, NotAtRest, PauseError, RestoreError, ResumeError, Stateful,
    Unsuitable, Value,
};
use kedge_diag::Trouble;
use kedge_ids::u64_from;
use kedge_metrics::Counters;
use kedge_saved_state::{Part, StateError};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

pub use watch::LineWatch;

/// The range in the guest's address space, in bytes: a 4 KiB page, although only
/// its first eight bytes are registers.
const SIZE: u64 = 0x1000;

/// The rate of the clock behind the baud rate in Hz: that of the PC's UART, for
/// which the reset value of the divisor means 9600 baud.
const CLOCK_HZ: u32 = 1_843_200;

/// Registers with names in this file (PC16550D, table II).
mod reg {
    pub(super) const FIRST: u8 = 0;
    pub(super) const MCR: u8 = 4;
    pub(super) const LAST: u8 = 7;
    /// `MCR`: what is transmitted is received, and nothing from outside.
    pub(super) const MCR_LOOP: u8 = 1 << 4;
}

/// Whether the access under way raised an interrupt.
#[derive(Default)]
struct Raised(Cell<bool>);

impl Trigger for Raised {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.set(true);
        Ok(())
    }
}

/// What the access under way transmitted.
#[derive(Default)]
struct Transmitted(Option<u8>);

impl Write for Transmitted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = bytes.last().copied().or(self.0);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Registers = Serial<Raised, NoEvents, Transmitted>;

/// The registers and who waits for room in them.
struct Uart {
    serial: Registers,
    /// The size of the receive FIFO in bytes.
    fifo: usize,
    /// Whether input was turned away since the doorbell last rang.
    turned_away: bool,
    /// Whether the machine is paused: then all input is turned away.
    rests: bool,
}

impl Uart {
    fn loops_back(&mut self) -> bool {
        self.serial.read(reg::MCR) & reg::MCR_LOOP != 0
    }

    /// Whether it is time to tell the sender that there is room again. Waiting
    /// for the whole FIFO saves the sender a wake-up per byte.
    fn has_drained(&mut self) -> bool {
        let drained = self.turned_away
            && !self.rests
            && self.serial.fifo_capacity() == self.fifo
            && !self.loops_back();
        self.turned_away &= !drained;
        drained
    }
}

/// What a serial port has done since it was made.
#[derive(Debug, Default)]
pub struct SerialCounters {
    /// Bytes the guest sent.
    pub sent: AtomicU64,
    /// Bytes the guest sent that the output did not take.
    pub lost: AtomicU64,
    /// Bytes the guest was given to receive.
    pub received: AtomicU64,
}

/// By the names in Firecracker's metrics.
impl Counters for SerialCounters {
    fn each(&self, to: &mut dyn FnMut(&'static str, u64)) {
        to("write_count", self.sent.load(Ordering::Relaxed));
        to("missed_write_count", self.lost.load(Ordering::Relaxed));
        to("read_count", self.received.load(Ordering::Relaxed));
    }
}

/// A serial port between a guest and any writer.
pub struct SerialPort {
    uart: Mutex<Uart>,
    out: Mutex<Box<dyn Write + Send>>,
    irq: IrqLine,
    drained: EventFd,
    counters: Arc<SerialCounters>,
}

impl SerialPort {
    /// A port that writes what the guest sends to `out`, each byte as it comes.
    /// An error there costs the byte and nothing else; a writer that blocks
    /// blocks the sending vCPU. `drained` is rung when [`Self::receive`] is worth
    /// another try.
    pub fn new(out: Box<dyn Write + Send>, irq: IrqLine, drained: EventFd) -> Self {
        let serial = Serial::new(Raised::default(), Transmitted::default());
        let fifo = serial.fifo_capacity();
        Self {
            uart: Mutex::new(Uart { serial, fifo, turned_away: false, rests: false }),
            out: Mutex::new(out),
            irq,
            drained,
            counters: Arc::default(),
        }
    }

    /// Gives the guest the first bytes of `input` to receive and says how many.
    /// The caller keeps the others until `drained` rings. Never blocks on the
    /// output.
    #[must_use]
    pub fn receive(&self, input: &[u8]) -> usize {
        self.access(|uart| {
            // A full FIFO is the only error.
            let taken = match uart.rests {
                true => 0,
                false => uart.serial.enqueue_raw_bytes(input).unwrap_or(0),
            };
            uart.turned_away |= taken < input.len();
            self.counters.received.fetch_add(u64_from(taken), Ordering::Relaxed);
            taken
        })
    }

    /// What the port has done so far.
    pub fn counters(&self) -> &Arc<SerialCounters> {
        &self.counters
    }

    fn uart(&self) -> MutexGuard<'_, Uart> {
        // The registers are consistent after each store, whoever panicked.
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transmit(&self, byte: u8) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        if out.write_all(&[byte]).and_then(|()| out.flush()).is_err() {
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Does something to the registers, then to the host what it caused.
    ///
    /// The registers are unlocked by then, so that an output that blocks keeps
    /// nobody from sending input. The interrupt comes last: a driver that sends
    /// its next byte from there finds this one gone.
    fn access<T>(&self, access: impl FnOnce(&mut Uart) -> T) -> T {
        let mut uart = self.uart();
        let result = access(&mut uart);
        let transmitted = mem::take(uart.serial.writer_mut()).0;
        let raised = uart.serial.interrupt_evt().0.take();
        let drained = uart.has_drained();
        if let Some(byte) = transmitted {
            drop(uart);
            self.transmit(byte);
            raised.then(|| self.irq.pulse());
        } else {
            // Still locked: a port that came to rest is quiet.
            raised.then(|| self.irq.pulse());
            drop(uart);
        }
        if drained {
            // The event can only be full with rings that nobody answered yet.
            let _ = self.drained.write(1);
        }
        result
    }
}

/// The register at `offset`, if an access of `length` bytes suits it.
fn register(offset: u64, length: usize) -> Result<u8, Unsuitable> {
    match u8::try_from(offset) {
        Ok(register @ reg::FIRST..=reg::LAST) if length == 1 => Ok(register),
        _ => Err(Unsuitable { offset, length }),
    }
}

impl MmioDevice for SerialPort {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Unsuitable> {
        let register = register(offset, data.len())?;
        data.fill(self.access(|uart| uart.serial.read(register)));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Unsuitable> {
        let register = register(offset, data.len())?;
        let &[value] = data else { return Err(Unsuitable { offset, length: data.len() }) };
        // Neither the interrupt nor the output is reached from there: no errors.
        let _ = self.access(|uart| uart.serial.write(register, value));
        Ok(())
    }

    fn node(&self) -> Node {
        Node::new("serial", &["ns16550a"]).with("clock-frequency", Value::Cells(vec![CLOCK_HZ]))
    }
}

const NAME: &str = "the serial port";

impl Stateful for SerialPort {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    /// Each byte was written out before the guest's store was over.
    fn pause(&self, _deadline: Instant) -> Result<(), PauseError> {
        self.uart().rests = true;
        Ok(())
    }

    fn resume(&self) -> Result<(), ResumeError> {
        // Input that was turned away is asked for again where there is room for it.
        self.access(|uart| uart.rests = false);
        Ok(())
    }

    fn save(&self) -> Result<Part, NotAtRest> {
        let uart = self.uart();
        match uart.rests {
            true => Ok(Part::of(&restore::save(uart.serial.state()))),
            false => Err(NotAtRest { device: NAME.to_owned() }),
        }
    }

    fn restore(&self, saved: &Part) -> Result<(), RestoreError> {
        let mut uart = self.uart();
        let state = saved.read().and_then(|saved| restore::restore(saved, uart.fifo));
        let restored = state.and_then(|state| {
            Serial::from_state(&state, Raised::default(), NoEvents, Transmitted::default())
                .map_err(|_| StateError::field::<saved::SerialV1>("received", "is too long"))
        });
        uart.serial = restored.map_err(|error| RestoreError {
            device: NAME.to_owned(),
            source: Trouble::new(error),
        })?;
        uart.rests = true;
        Ok(())
    }
}

impl fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SerialPort").field("counters", &self.counters).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
