//! What a real-time clock needs of the world: the time, and a call when it has
//! come. The host's is a timer that an event loop waits for.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;
use std::{fmt, io};

use event_manager::{EventOps, EventSet, Events};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::Rtc;
use crate::virtio::device::ActiveQueue;
use crate::virtio::worker::{EventLoop, LoopError, Worker};

/// A source of time.
pub trait Clock: Send + Sync {
    /// Seconds since 1970.
    fn now(&self) -> u64;

    /// From now on, [`Rtc::wake`] is to be called at `seconds` since 1970 and no
    /// longer at the time asked for before.
    fn wake_at(&self, seconds: Option<u64>);
}

/// The host's clock. It follows the host's when that is set. Its timer and the
/// event loop behind it are there once an alarm is asked for: few guests do.
pub struct WallClock {
    timer: OnceLock<Arc<OwnedFd>>,
    event_loop: EventLoop,
    rtc: Weak<Rtc>,
}

impl WallClock {
    /// The clock of `rtc`, whose alarm `event_loop` will ring.
    pub fn new(rtc: Weak<Rtc>, event_loop: EventLoop) -> Self {
        Self { timer: OnceLock::new(), event_loop, rtc }
    }

    /// The timer, which is made for the first alarm.
    fn timer(&self) -> Result<&OwnedFd, LoopError> {
        if let Some(timer) = self.timer.get() {
            return Ok(timer);
        }
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags).map_err(io::Error::from)?;
        let timer = Arc::new(timer);
        let alarm = Alarm { timer: Arc::clone(&timer), rtc: self.rtc.clone() };
        self.event_loop.start(Box::new(alarm))?;
        Ok(self.timer.get_or_init(|| timer))
    }

    fn set(&self, time: &Itimerspec) -> Result<(), LoopError> {
        let timer = self.timer()?;
        timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, time).map_err(io::Error::from)?;
        Ok(())
    }
}

impl Clock for WallClock {
    fn now(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn wake_at(&self, seconds: Option<u64>) {
        const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        if seconds.is_none() && self.timer.get().is_none() {
            return;
        }
        // At 1970 the timer would be off; it is past anyway, as is every second
        // since. A time beyond the host's reckoning is never.
        let it_value = seconds.map_or(NEVER, |seconds| Timespec {
            tv_sec: i64::try_from(seconds.max(1)).unwrap_or(0),
            tv_nsec: 0,
        });
        if let Err(error) = self.set(&Itimerspec { it_interval: NEVER, it_value }) {
            tracing::warn!(%error, ?seconds, "the real-time clock's alarm will not ring");
        }
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WallClock").field("timer", &self.timer).finish_non_exhaustive()
    }
}

/// Rings a real-time clock's alarm from an event loop.
struct Alarm {
    timer: Arc<OwnedFd>,
    rtc: Weak<Rtc>,
}

impl Worker for Alarm {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        ops.add(Events::new(&*self.timer, EventSet::IN))
    }

    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        // So that the timer is no longer readable; nothing to read where the guest
        // changed the alarm in between.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        if let Some(rtc) = self.rtc.upgrade() {
            rtc.wake();
        }
    }

    fn retire(self: Box<Self>) -> Vec<ActiveQueue> {
        Vec::new()
    }
}
