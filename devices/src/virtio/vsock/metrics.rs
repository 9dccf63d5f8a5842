//! What a vsock device counts.

use std::sync::atomic::{AtomicU64, Ordering};

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

/// Adds `more`.
pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
