//! The real-time clock: Arm's PL031 behind its address range, wire and clock.
//!
//! `pl031.rs` has the registers and no clock; here are the lock and the calls to
//! the clock and the wire that a change of state asks for. vm-superio's PL031
//! has neither alarm nor interrupt, hence our own.

mod clock;
mod pl031;
pub mod saved;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kedge_bus::{
    IrqLine, MmioDevice, Node, NotAtRest, PauseError, RestoreError, ResumeError, Stateful,
    Unsuitable, Value,
};
use kedge_diag::Trouble;
use kedge_saved_state::Part;

pub use clock::{Clock, WallClock};
use pl031::Pl031;

use crate::virtio::worker::EventLoop;

/// The range in the guest's address space, in bytes (DDI 0224, 3.1).
const SIZE: u64 = 0x1000;

/// What the lock protects.
struct Inner {
    chip: Pl031,
    /// The level the wire had when the registers were last looked at.
    raised: bool,
    /// When the clock was last asked to wake us.
    wake_at: Option<u64>,
    /// Whether the machine is paused: then an alarm waits.
    rests: bool,
}

/// A real-time clock.
pub struct Rtc {
    inner: Mutex<Inner>,
    clock: Arc<dyn Clock>,
    irq: IrqLine,
}

impl Rtc {
    /// A clock that shows the time of `clock`.
    pub fn new(clock: Arc<dyn Clock>, irq: IrqLine) -> Self {
        let chip = Pl031::new(clock.now());
        let inner = Mutex::new(Inner { chip, raised: false, wake_at: None, rests: false });
        Self { inner, clock, irq }
    }

    /// A clock that shows the host's time and whose alarm `event_loop` rings.
    pub fn on_host_time(event_loop: EventLoop, irq: IrqLine) -> Arc<Self> {
        Arc::new_cyclic(|rtc| Self::new(Arc::new(WallClock::new(rtc.clone(), event_loop)), irq))
    }

    /// The time for which the clock was asked has come, or may have.
    pub fn wake(&self) {
        let mut inner = self.inner();
        if inner.rests {
            return;
        }
        self.access_locked(&mut inner, |inner, _| {
            // A timer that rang is off, even where the clock was set back since.
            inner.wake_at = inner.chip.alarm();
            self.clock.wake_at(inner.wake_at);
        });
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // The registers are consistent after each store, whoever panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the registers at the present time, then makes the wire
    /// and the clock agree with them.
    fn access<T>(&self, access: impl FnOnce(&mut Inner, u64) -> T) -> T {
        self.access_locked(&mut self.inner(), access)
    }

    fn access_locked<T>(&self, inner: &mut Inner, access: impl FnOnce(&mut Inner, u64) -> T) -> T {
        let now = self.clock.now();
        inner.chip.tick(now);
        let result = access(inner, now);
        inner.chip.tick(now);
        self.sync(inner);
        result
    }

    fn sync(&self, inner: &mut Inner) {
        let raised = inner.chip.interrupt();
        if raised && !inner.raised {
            self.irq.pulse();
        }
        inner.raised = raised;
        let wake_at = inner.chip.alarm();
        if wake_at != inner.wake_at {
            self.clock.wake_at(wake_at);
        }
        inner.wake_at = wake_at;
    }
}

impl MmioDevice for Rtc {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Unsuitable> {
        check(offset, data.len())?;
        data.copy_from_slice(&self.access(|inner, now| inner.chip.load(offset, now)).to_le_bytes());
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Unsuitable> {
        let unsuitable = Unsuitable { offset, length: data.len() };
        check(offset, data.len())?;
        let value = u32::from_le_bytes(data.try_into().map_err(|_| unsuitable)?);
        self.access(|inner, now| inner.chip.store(offset, value, now));
        Ok(())
    }

    fn node(&self) -> Node {
        Node::new("rtc", &["arm,pl031", "arm,primecell"])
            .with("clocks", Value::Clock(1))
            .with("clock-names", Value::Strings(vec!["apb_pclk".to_owned()]))
    }
}

/// All registers are 32 bits wide (DDI 0224, 3.1).
fn check(offset: u64, length: usize) -> Result<(), Unsuitable> {
    match length {
        4 if offset.is_multiple_of(4) => Ok(()),
        _ => Err(Unsuitable { offset, length }),
    }
}

const NAME: &str = "the real-time clock";

impl Stateful for Rtc {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    fn pause(&self, _deadline: Instant) -> Result<(), PauseError> {
        self.access(|inner, _| inner.rests = true);
        Ok(())
    }

    /// The clock has gone on with the host's, and an alarm that came due meanwhile
    /// rings now. Restored, one that nobody has cleared rings again.
    fn resume(&self) -> Result<(), ResumeError> {
        if std::mem::take(&mut self.inner().rests) {
            self.wake();
        }
        Ok(())
    }

    fn save(&self) -> Result<Part, NotAtRest> {
        let inner = self.inner();
        match inner.rests {
            true => Ok(Part::of(&inner.chip.save())),
            false => Err(NotAtRest { device: NAME.to_owned() }),
        }
    }

    fn restore(&self, saved: &Part) -> Result<(), RestoreError> {
        let saved = saved.read().map_err(|error| RestoreError {
            device: NAME.to_owned(),
            source: Trouble::new(error),
        })?;
        let mut inner = self.inner();
        inner.chip = Pl031::restore(&saved);
        inner.rests = true;
        Ok(())
    }
}

impl fmt::Debug for Rtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rtc")
    }
}

#[cfg(test)]
mod tests;
