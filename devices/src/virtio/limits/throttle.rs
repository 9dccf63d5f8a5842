//! Limits in a worker's hands: they let an operation through, or wake the worker up
//! when it may try again.

use std::time::Duration;

use event_manager::{EventOps, Events};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use super::limiter::Limits;

/// The shortest wait: what may go within it goes at once after it. No bucket fills
/// sooner, so none overflows meanwhile.
const SHORTEST: Duration = Duration::from_millis(1);

/// What a worker asks before each operation.
///
/// The worker calls [`Throttle::watch`] when it starts and [`Throttle::answer`] on
/// its event; what it was told to hold back it then tries again.
#[derive(Debug)]
pub struct Throttle {
    limits: Limits,
    event: u32,
    /// Absent where nothing is limited.
    timer: Option<TimerFd>,
    is_waiting: bool,
}

impl Throttle {
    pub(super) fn new(limits: Limits, event: u32) -> Self {
        Self { limits, event, timer: None, is_waiting: false }
    }

    /// Prepares to wake the worker up.
    ///
    /// # Errors
    /// The host is out of resources.
    pub fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        if !self.limits.is_limiting() {
            return Ok(());
        }
        let timer = TimerFd::new().map_err(event_manager::Error::Epoll)?;
        ops.add(Events::with_data(&timer, self.event, EventSet::IN))?;
        self.timer = Some(timer);
        Ok(())
    }

    /// Takes an operation of `bytes`. False: not yet, and the event will come when
    /// it is worth another try.
    pub fn admits(&mut self, bytes: u64) -> bool {
        let Some(timer) = &mut self.timer else { return true };
        if self.is_waiting {
            return false;
        }
        let Err(wait) = self.limits.take(bytes) else { return true };
        // A timer that exists can be set.
        let _ = timer.reset(wait.max(SHORTEST), None);
        self.is_waiting = true;
        false
    }

    /// The event came.
    pub fn answer(&mut self) {
        // Takes the tick, as reading would, but never waits for one.
        let _ = self.timer.as_mut().map(TimerFd::clear);
        self.is_waiting = false;
    }
}
