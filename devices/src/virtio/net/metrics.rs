//! What a network card counts.

use std::sync::atomic::{AtomicU64, Ordering};

use kedge_ids::u64_from;
use kedge_metrics::Counters;

/// A card's counters, since it was made.
#[derive(Debug, Default)]
pub struct NetMetrics {
    /// Frames the guest received.
    pub received: AtomicU64,
    /// Their bytes, without headers.
    pub received_bytes: AtomicU64,
    /// Frames for the guest that no buffers of it could ever hold, or that its
    /// driver left behind when it stopped.
    pub receive_dropped: AtomicU64,
    /// Frames the guest sent.
    pub sent: AtomicU64,
    /// Their bytes, without headers.
    pub sent_bytes: AtomicU64,
    /// Frames of the guest that the tap did not take: it is down, full, or the
    /// frame is none.
    pub send_dropped: AtomicU64,
}

/// By the names in Firecracker's metrics.
impl Counters for NetMetrics {
    fn each(&self, to: &mut dyn FnMut(&'static str, u64)) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        to("rx_count", read(&self.received));
        to("rx_packets_count", read(&self.received));
        to("rx_bytes_count", read(&self.received_bytes));
        to("rx_fails", read(&self.receive_dropped));
        to("tx_count", read(&self.sent));
        to("tx_packets_count", read(&self.sent));
        to("tx_bytes_count", read(&self.sent_bytes));
        to("tx_fails", read(&self.send_dropped));
        to("tap_write_fails", read(&self.send_dropped));
    }
}

/// Adds one frame of `bytes` to a pair of counters.
pub(super) fn count(frames: &AtomicU64, all_bytes: &AtomicU64, bytes: usize) {
    frames.fetch_add(1, Ordering::Relaxed);
    all_bytes.fetch_add(u64_from(bytes), Ordering::Relaxed);
}

/// Adds a frame that got lost.
pub(super) fn drop_one(frames: &AtomicU64) {
    frames.fetch_add(1, Ordering::Relaxed);
}
