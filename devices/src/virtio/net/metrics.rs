//! What a network card counts. Where Firecracker counts the same, the field has
//! its name; `rx` is what the guest receives.

use std::sync::atomic::{AtomicU64, Ordering};

use kedge_ids::u64_from;
use kedge_metrics::{Counters, Latency, Timing};

/// A card's counters, since it was made.
#[derive(Debug, Default)]
pub struct NetMetrics {
    /// Times that the card could not be put to work.
    pub activate_fails: AtomicU64,
    /// Times that frames waited for the guest to make buffers available.
    pub no_rx_avail_buffer: AtomicU64,
    /// Times that the guest rang for a transmit queue with nothing in it.
    pub no_tx_avail_buffer: AtomicU64,
    /// Times that the guest rang for a receive queue.
    pub rx_queue_event_count: AtomicU64,
    /// Times that receiving went on after a limit.
    pub rx_event_rate_limiter_count: AtomicU64,
    /// Times that a limit stopped the card from receiving.
    pub rx_rate_limiter_throttled: AtomicU64,
    /// Times that the tap had frames again.
    pub rx_tap_event_count: AtomicU64,
    /// Bytes the guest received, without headers.
    pub rx_bytes_count: AtomicU64,
    /// Frames the guest received.
    pub rx_packets_count: AtomicU64,
    /// Frames for the guest that no buffers of it could ever hold, or that its
    /// driver left behind when it stopped.
    pub rx_fails: AtomicU64,
    /// Frames read from the tap.
    pub rx_count: AtomicU64,
    /// Times that the tap could not be read: it is down or gone.
    pub tap_read_fails: AtomicU64,
    /// Frames that the tap did not take: it is down or full, or the frame is none.
    pub tap_write_fails: AtomicU64,
    /// Bytes the guest sent, without headers.
    pub tx_bytes_count: AtomicU64,
    /// Frames of the guest that no network takes: too long, or with a header that
    /// makes no sense.
    pub tx_malformed_frames: AtomicU64,
    /// Frames of the guest that got lost, for whatever reason.
    pub tx_fails: AtomicU64,
    /// Frames written to the tap: more than the guest sent where they were cut.
    pub tx_count: AtomicU64,
    /// Frames the guest sent.
    pub tx_packets_count: AtomicU64,
    /// Times that the guest rang for a transmit queue.
    pub tx_queue_event_count: AtomicU64,
    /// Times that sending went on after a limit.
    pub tx_rate_limiter_event_count: AtomicU64,
    /// Times that a limit stopped the card from sending.
    pub tx_rate_limiter_throttled: AtomicU64,
    /// Frames the guest sent from another address than its card's.
    pub tx_spoofed_mac_count: AtomicU64,
    /// Times that frames were left in a transmit queue for the next turn.
    pub tx_remaining_reqs_count: AtomicU64,
    /// Commands the guest gave through the control queue.
    pub control_count: AtomicU64,
    /// Those that were refused.
    pub control_fails: AtomicU64,
    /// How long the host took for each frame that was written to the tap.
    pub(super) tap_write: Latency,
}

/// By the names in Firecracker's metrics.
impl Counters for NetMetrics {
    fn each(&self, to: &mut dyn FnMut(&'static str, u64)) {
        let counters = [
            ("activate_fails", &self.activate_fails),
            ("no_rx_avail_buffer", &self.no_rx_avail_buffer),
            ("no_tx_avail_buffer", &self.no_tx_avail_buffer),
            ("rx_queue_event_count", &self.rx_queue_event_count),
            ("rx_event_rate_limiter_count", &self.rx_event_rate_limiter_count),
            ("rx_rate_limiter_throttled", &self.rx_rate_limiter_throttled),
            ("rx_tap_event_count", &self.rx_tap_event_count),
            ("rx_bytes_count", &self.rx_bytes_count),
            ("rx_packets_count", &self.rx_packets_count),
            ("rx_fails", &self.rx_fails),
            ("rx_count", &self.rx_count),
            ("tap_read_fails", &self.tap_read_fails),
            ("tap_write_fails", &self.tap_write_fails),
            ("tx_bytes_count", &self.tx_bytes_count),
            ("tx_malformed_frames", &self.tx_malformed_frames),
            ("tx_fails", &self.tx_fails),
            ("tx_count", &self.tx_count),
            ("tx_packets_count", &self.tx_packets_count),
            ("tx_queue_event_count", &self.tx_queue_event_count),
            ("tx_rate_limiter_event_count", &self.tx_rate_limiter_event_count),
            ("tx_rate_limiter_throttled", &self.tx_rate_limiter_throttled),
            ("tx_spoofed_mac_count", &self.tx_spoofed_mac_count),
            ("tx_remaining_reqs_count", &self.tx_remaining_reqs_count),
            ("control_count", &self.control_count),
            ("control_fails", &self.control_fails),
        ];
        for (name, counter) in counters {
            to(name, counter.load(Ordering::Relaxed));
        }
    }

    fn each_timing(&self, to: &mut dyn FnMut(&str, &Timing)) {
        to("tap_write", &self.tap_write.timing());
    }
}

/// Adds one to a counter.
pub(super) fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Adds one frame of `bytes` to a pair of counters.
pub(super) fn count(frames: &AtomicU64, all_bytes: &AtomicU64, bytes: usize) {
    one(frames);
    all_bytes.fetch_add(u64_from(bytes), Ordering::Relaxed);
}
