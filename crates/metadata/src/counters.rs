//! What the service counts (FIRECRACKER_API.md, 13: `mmds`).

use std::sync::atomic::{AtomicU64, Ordering};

use kedge_ids::u64_from;

/// The service's counters, since it was made.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Frames of guests that were for the service.
    pub(crate) rx_accepted: AtomicU64,
    /// Those of them that it could not take: it has too much to send.
    pub(crate) rx_accepted_err: AtomicU64,
    /// Those of them that are neither ARP nor TCP.
    pub(crate) rx_accepted_unusual: AtomicU64,
    /// Those of them that are cut off.
    pub(crate) rx_bad_eth: AtomicU64,
    /// Those of them that it took.
    pub(crate) rx_count: AtomicU64,
    /// Requests with a token that is not valid, or not any more.
    pub(crate) rx_invalid_token: AtomicU64,
    /// Requests without a token.
    pub(crate) rx_no_token: AtomicU64,
    /// Bytes of frames to guests.
    pub(crate) tx_bytes: AtomicU64,
    /// Frames that guests were sent.
    pub(crate) tx_count: AtomicU64,
    /// Frames that guests had no room for.
    pub(crate) tx_errors: AtomicU64,
    /// Frames made for guests.
    pub(crate) tx_frames: AtomicU64,
    /// Connections that guests made.
    pub(crate) connections_created: AtomicU64,
    /// Those that are over.
    pub(crate) connections_destroyed: AtomicU64,
}

impl Counts {
    /// Each with its name in Firecracker's metrics.
    pub(crate) fn named(&self) -> [(&'static str, &AtomicU64); 13] {
        [
            ("rx_accepted", &self.rx_accepted),
            ("rx_accepted_err", &self.rx_accepted_err),
            ("rx_accepted_unusual", &self.rx_accepted_unusual),
            ("rx_bad_eth", &self.rx_bad_eth),
            ("rx_count", &self.rx_count),
            ("rx_invalid_token", &self.rx_invalid_token),
            ("rx_no_token", &self.rx_no_token),
            ("tx_bytes", &self.tx_bytes),
            ("tx_count", &self.tx_count),
            ("tx_errors", &self.tx_errors),
            ("tx_frames", &self.tx_frames),
            ("connections_created", &self.connections_created),
            ("connections_destroyed", &self.connections_destroyed),
        ]
    }
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// So many more.
pub(crate) fn count_bytes(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(u64_from(bytes), Ordering::Relaxed);
}
