//! What a real-time clock needs of the world: the time, and a call when it has
//! come. The host's is a timer that an event loop waits for.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::SystemTime;
use std::{fmt, io};

use event_manager::{EventOps, EventSet, Events};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::Rtc;
use crate::virtio::device::ActiveQueue;
use crate::virtio::worker::Worker;

/// A source of time.
pub trait Clock: Send + Sync {
    /// Seconds since 1970.
    fn now(&self) -> u64;

    /// From now on, [`Rtc::wake`] is to be called at `seconds` since 1970 and no
    /// longer at the time asked for before.
    fn wake_at(&self, seconds: Option<u64>);
}

/// The host's clock. It follows the host's when that is set.
#[derive(Debug)]
pub struct WallClock {
    timer: OwnedFd,
}

impl WallClock {
    /// The clock with a timer of its own.
    ///
    /// # Errors
    /// The host has no more file descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self { timer: timerfd_create(TimerfdClockId::Realtime, flags)? })
    }

    /// Takes note that the timer rang, so that it is no longer readable.
    fn acknowledge(&self) {
        // Nothing to read where the guest changed the alarm in between.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
    }
}

impl Clock for WallClock {
    fn now(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn wake_at(&self, seconds: Option<u64>) {
        const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        // At 1970 the timer would be off; it is past anyway, as is every second
        // since. A time beyond the host's reckoning is never.
        let it_value = seconds.map_or(NEVER, |seconds| Timespec {
            tv_sec: i64::try_from(seconds.max(1)).unwrap_or(0),
            tv_nsec: 0,
        });
        let time = Itimerspec { it_interval: NEVER, it_value };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &time) {
            tracing::warn!(%error, ?seconds, "the real-time clock's alarm will be late");
        }
    }
}

impl AsRawFd for WallClock {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

/// Rings a real-time clock's alarm from an event loop.
pub struct Alarm {
    clock: Arc<WallClock>,
    rtc: Arc<Rtc>,
}

impl Alarm {
    /// The alarm of `rtc`, which must show the time of `clock`.
    pub fn new(clock: Arc<WallClock>, rtc: Arc<Rtc>) -> Self {
        Self { clock, rtc }
    }
}

impl Worker for Alarm {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        ops.add(Events::new(&*self.clock, EventSet::IN))
    }

    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        self.clock.acknowledge();
        self.rtc.wake();
    }

    fn retire(self: Box<Self>) -> Vec<ActiveQueue> {
        Vec::new()
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alarm")
    }
}
