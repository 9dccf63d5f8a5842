//! What the entropy device counts, under Firecracker's names.

use std::sync::atomic::{AtomicU64, Ordering};

use kedge_ids::u64_from;
use kedge_metrics::Counters;

/// The device's counters, since it was made.
#[derive(Debug, Default)]
pub struct RngMetrics {
    /// Times that the device could not be put to work.
    pub activate_fails: AtomicU64,
    /// Requests of the guest that were none.
    pub entropy_event_fails: AtomicU64,
    /// Times that the guest rang.
    pub entropy_event_count: AtomicU64,
    /// Bytes the guest got.
    pub entropy_bytes: AtomicU64,
    /// Times that the host had none.
    pub host_rng_fails: AtomicU64,
    /// Times that a limit held a request back.
    pub entropy_rate_limiter_throttled: AtomicU64,
    /// Times that the device went on after a limit.
    pub rate_limiter_event_count: AtomicU64,
}

/// By the names in Firecracker's metrics.
impl Counters for RngMetrics {
    fn each(&self, to: &mut dyn FnMut(&'static str, u64)) {
        let counters = [
            ("activate_fails", &self.activate_fails),
            ("entropy_event_fails", &self.entropy_event_fails),
            ("entropy_event_count", &self.entropy_event_count),
            ("entropy_bytes", &self.entropy_bytes),
            ("host_rng_fails", &self.host_rng_fails),
            ("entropy_rate_limiter_throttled", &self.entropy_rate_limiter_throttled),
            ("rate_limiter_event_count", &self.rate_limiter_event_count),
        ];
        for (name, counter) in counters {
            to(name, counter.load(Ordering::Relaxed));
        }
    }
}

/// Adds one to a counter.
pub(super) fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Adds bytes to a counter.
pub(super) fn add(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(u64_from(bytes), Ordering::Relaxed);
}
