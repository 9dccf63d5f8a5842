//! What an entropy device counts.

use std::sync::atomic::{AtomicU64, Ordering};

use kedge_ids::u64_from;
use kedge_metrics::Counters;

/// A device's counters, since it was made.
#[derive(Debug, Default)]
pub struct RngMetrics {
    /// Buffers that the guest got back with random bytes.
    pub filled: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// How often the host had none.
    pub starved: AtomicU64,
}

impl RngMetrics {
    /// A buffer was given so many bytes.
    pub(super) fn gave(&self, bytes: usize) {
        match bytes {
            0 => self.starved.fetch_add(1, Ordering::Relaxed),
            bytes => {
                self.filled.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(u64_from(bytes), Ordering::Relaxed)
            }
        };
    }
}

/// By the names in Firecracker's metrics.
impl Counters for RngMetrics {
    fn each(&self, to: &mut dyn FnMut(&'static str, u64)) {
        to("entropy_event_count", self.filled.load(Ordering::Relaxed));
        to("entropy_bytes", self.bytes.load(Ordering::Relaxed));
        to("host_rng_fails", self.starved.load(Ordering::Relaxed));
    }
}
