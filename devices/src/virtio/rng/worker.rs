//! The entropy device at work. It never waits for the host's entropy and never
//! hands out bytes that are none: where the host has none yet, buffers stay in
//! the ring and are looked at again a little later.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use event_manager::{EventOps, Events};
use kedge_guest_memory::GuestMemory;
use kedge_ids::u64_from;
use rustix::rand::{GetRandomFlags, getrandom};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use super::metrics::{RngMetrics, add, one};
use crate::virtio::buffers::Buffers;
use crate::virtio::device::{Activation, ActiveQueue};
use crate::virtio::limits::{Limits, Throttle};
use crate::virtio::ring::{Chain, Corrupt, Done, Ring};
use crate::virtio::worker::Worker;

/// The most that one buffer gets, so that none holds up the loop. A driver must
/// cope with less than it asked for (5.4.6.1).
const MOST: usize = 64 * 1024;

/// How long to wait after the host had no entropy.
const PAUSE: Duration = Duration::from_millis(100);

/// The timer's event data and that of the limits; rings have their index.
const TIMER: u32 = u32::MAX;
const LIMITS: u32 = u32::MAX - 1;

/// Fills the buffer with random bytes, from its start. How many.
pub(super) type Source = Arc<dyn Fn(&mut [u8]) -> io::Result<usize> + Send + Sync>;

/// getrandom(2), which never waits here: it fails until the host's generator is
/// seeded.
pub(super) fn host_entropy(buffer: &mut [u8]) -> io::Result<usize> {
    Ok(getrandom(buffer, GetRandomFlags::NONBLOCK)?)
}

/// Fills buffers.
pub(super) struct RngWorker {
    memory: GuestMemory,
    rings: Vec<Ring>,
    source: Source,
    throttle: Throttle,
    metrics: Arc<RngMetrics>,
    /// Made when the host first had no entropy.
    timer: Option<TimerFd>,
}

impl RngWorker {
    pub(super) fn new(
        activation: Activation,
        source: Source,
        limits: &Limits,
        metrics: Arc<RngMetrics>,
    ) -> Self {
        let Activation { memory, queues, interrupt, .. } = activation;
        let rings = queues.into_iter().map(|active| Ring::new(active, interrupt.clone())).collect();
        let throttle = limits.throttle(LIMITS);
        Self { memory, rings, source, throttle, metrics, timer: None }
    }

    /// Serves every ring. Whether the host had no entropy for one of them.
    fn serve(&mut self) -> bool {
        let Self { memory, rings, source, throttle, metrics, timer: _ } = self;
        let mut starved = false;
        for ring in rings {
            ring.serve(memory, |chain| {
                let mut buffers =
                    checked(chain).inspect_err(|_| one(&metrics.entropy_event_fails))?;
                if !throttle.admits(u64_from(buffers.len().min(MOST))) {
                    one(&metrics.entropy_rate_limiter_throttled);
                    return Ok(Done::NotNow);
                }
                let filled = random(&mut buffers, source);
                if filled == 0 {
                    one(&metrics.host_rng_fails);
                    starved = true;
                    return Ok(Done::NotNow);
                }
                add(&metrics.entropy_bytes, filled);
                Ok(Done::Used(u32::try_from(filled).unwrap_or(u32::MAX)))
            });
        }
        starved
    }

    /// Comes back after a pause. Where the host has no timer either, the next
    /// notification brings it back.
    fn pause(&mut self, ops: &mut EventOps<'_>) {
        if self.timer.is_none()
            && let Ok(timer) = TimerFd::new()
            && ops.add(Events::with_data(&timer, TIMER, EventSet::IN)).is_ok()
        {
            self.timer = Some(timer);
        }
        if let Some(timer) = &mut self.timer {
            // A timer that exists can be set.
            let _ = timer.reset(PAUSE, None);
        }
    }
}

impl Worker for RngWorker {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        self.throttle.watch(ops)?;
        self.rings.iter().try_for_each(|ring| ring.watch(ops))
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            TIMER => {
                // Takes the tick, as reading would, but never waits for one.
                let _ = self.timer.as_mut().map(TimerFd::clear);
            }
            LIMITS => {
                one(&self.metrics.rate_limiter_event_count);
                self.throttle.answer();
            }
            _ => {
                one(&self.metrics.entropy_event_count);
                self.rings.iter().for_each(Ring::answer);
            }
        }
        if self.serve() {
            self.pause(ops);
        }
    }

    fn retire(self: Box<Self>) -> Vec<ActiveQueue> {
        let Self { memory, rings, .. } = *self;
        rings.into_iter().map(|ring| ring.retire(&memory)).collect()
    }
}

impl fmt::Debug for RngWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RngWorker").field("rings", &self.rings).finish_non_exhaustive()
    }
}

/// The buffers to fill.
fn checked(chain: Chain<'_>) -> Result<Buffers<'_>, Corrupt> {
    let Chain { head, readable, writable } = chain;
    if !readable.is_empty() || writable.is_empty() {
        return Err(Corrupt::Request { head, what: "all its buffers must be writable" });
    }
    Ok(writable)
}

/// Fills `buffers` from the front, up to [`MOST`] or what the host has.
fn random(buffers: &mut Buffers<'_>, source: &Source) -> usize {
    // As much as getrandom gives in one piece whatever the signals.
    let mut bounce = [0; 256];
    let mut filled = 0;
    while filled < MOST && !buffers.is_empty() {
        let wanted = bounce.len().min(buffers.len()).min(MOST - filled);
        match source(&mut bounce[..wanted]) {
            Ok(0) => break,
            Ok(count) => filled += buffers.copy_from(&bounce[..count.min(wanted)]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    filled
}
