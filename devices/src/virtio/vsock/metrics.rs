//! What a vsock device counts.

use std::sync::atomic::{AtomicU64, Ordering};

use kedge_metrics::Counters;

/// A device's counters, since it was made.
#[derive(Debug, Default)]
pub struct VsockMetrics {
    /// Connections that the guest made to the host.
    pub connected_out: AtomicU64,
    /// Connections of the host's that the guest accepted.
    pub connected_in: AtomicU64,
    /// Connections, either way, that came about not at all.
    pub refused: AtomicU64,
    /// Connections that ended.
    pub ended: AtomicU64,
    /// Bytes that the guest sent.
    pub sent_bytes: AtomicU64,
    /// Bytes that the guest received.
    pub received_bytes: AtomicU64,
    /// Packets of the guest that break the rules of the protocol.
    pub bad_packets: AtomicU64,
}

/// By the names in Firecracker's metrics.
impl Counters for VsockMetrics {
    fn each(&self, to: &mut dyn FnMut(&'static str, u64)) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        to("conns_added", read(&self.connected_out).saturating_add(read(&self.connected_in)));
        to("conns_removed", read(&self.ended));
        to("conns_refused", read(&self.refused));
        to("tx_bytes_count", read(&self.sent_bytes));
        to("rx_bytes_count", read(&self.received_bytes));
        to("bad_packets", read(&self.bad_packets));
    }
}

/// Adds `more`.
pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
