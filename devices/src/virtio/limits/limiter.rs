//! Limits as a device holds them, over its whole life: while its worker runs and
//! while it does not, through changes and from save to restore.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::config::RateLimiter;
use super::saved::LimitsV1;
use super::throttle::Throttle;

/// Says what time it is.
type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The limits of a device, or of one of its directions.
#[derive(Clone)]
pub struct Limits {
    // The worker's while there is one, else the device's: no two want it at once.
    buckets: Arc<Mutex<Buckets>>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Buckets {
    bandwidth: Option<Bucket>,
    ops: Option<Bucket>,
}

impl Limits {
    /// The limits that `config` describes, with full buckets.
    pub fn new(config: RateLimiter) -> Self {
        Self::with_clock(config, Instant::now)
    }

    /// The same, in the time of `clock`.
    pub fn with_clock(
        config: RateLimiter,
        clock: impl Fn() -> Instant + Send + Sync + 'static,
    ) -> Self {
        let limits = Self { buckets: Arc::default(), clock: Arc::new(clock) };
        limits.change(config);
        limits
    }

    /// Sets the buckets that `change` has, full; one of size 0 or refilled in no time
    /// is a limit lifted. Others stay as they are.
    pub fn change(&self, change: RateLimiter) {
        let now = (self.clock)();
        let mut buckets = self.lock();
        let Buckets { bandwidth, ops } = &mut *buckets;
        for (bucket, change) in [(bandwidth, change.bandwidth), (ops, change.ops)] {
            if let Some(config) = change {
                *bucket = Bucket::new(config, now);
            }
        }
    }

    /// What a worker asks before each operation. It wakes up with `event` as event
    /// data, which no other of its events may have.
    pub fn throttle(&self, event: u32) -> Throttle {
        Throttle::new(self.clone(), event)
    }

    /// Whether there is any limit.
    pub(super) fn is_limiting(&self) -> bool {
        let Buckets { bandwidth, ops } = &*self.lock();
        bandwidth.is_some() || ops.is_some()
    }

    /// Takes an operation of `bytes`, if it may be done now; else nothing, and says
    /// how long until it may.
    pub(super) fn take(&self, bytes: u64) -> Result<(), Duration> {
        let mut buckets = self.lock();
        let Buckets { bandwidth, ops } = &mut *buckets;
        if bandwidth.is_none() && ops.is_none() {
            return Ok(());
        }
        let now = (self.clock)();
        let mut wait = Duration::ZERO;
        for (bucket, tokens) in [(&mut *bandwidth, bytes), (&mut *ops, 1)] {
            if let Some(bucket) = bucket {
                bucket.refill(now);
                wait = wait.max(bucket.wait(tokens));
            }
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        for (bucket, tokens) in [(bandwidth, bytes), (ops, 1)] {
            if let Some(bucket) = bucket {
                bucket.take(tokens);
            }
        }
        Ok(())
    }

    /// What is left in the buckets; none where there are none.
    pub fn save(&self) -> Option<LimitsV1> {
        let now = (self.clock)();
        let mut buckets = self.lock();
        let save = |bucket: &mut Bucket| {
            bucket.refill(now);
            bucket.save()
        };
        let Buckets { bandwidth, ops } = &mut *buckets;
        let saved =
            LimitsV1 { bandwidth: bandwidth.as_mut().map(save), ops: ops.as_mut().map(save) };
        (saved != LimitsV1::default()).then_some(saved)
    }

    /// Takes up what was left, in those buckets that there are. Saved state is input:
    /// no budget is larger than a full bucket, and no debt than the largest operation
    /// makes.
    pub fn restore(&self, saved: Option<&LimitsV1>) {
        let Some(saved) = saved else { return };
        let mut buckets = self.lock();
        let Buckets { bandwidth, ops } = &mut *buckets;
        for (bucket, saved) in [(bandwidth, &saved.bandwidth), (ops, &saved.ops)] {
            if let (Some(bucket), Some(saved)) = (bucket, saved) {
                bucket.restore(saved);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Limits {
    /// None.
    fn default() -> Self {
        Self::new(RateLimiter::default())
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Limits").field(&*self.lock()).finish()
    }
}
