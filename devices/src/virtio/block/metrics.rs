//! What a disk counts.

use std::sync::atomic::{AtomicU64, Ordering};

use kedge_ids::u64_from;
use kedge_metrics::{Counters, Latency, Moment, Timing};

/// A disk's counters, since it was made; another file behind it changes nothing.
#[derive(Debug, Default)]
pub struct BlockMetrics {
    /// Requests that read.
    pub reads: AtomicU64,
    /// Their bytes.
    pub read_bytes: AtomicU64,
    /// Requests that wrote.
    pub writes: AtomicU64,
    /// Their bytes.
    pub written_bytes: AtomicU64,
    /// Flushes, those for writes that last at once among them.
    pub flushes: AtomicU64,
    /// Requests that discarded or zeroed.
    pub trims: AtomicU64,
    /// Requests that the host could not do.
    pub failures: AtomicU64,
    /// Requests of the driver that it may not ask for.
    pub refusals: AtomicU64,
    /// Times a queue had to wait for the limits.
    pub throttled: AtomicU64,
    /// Times a queue had to wait for requests in flight.
    pub crowded: AtomicU64,
    /// Changes that were made while it ran.
    pub changes: AtomicU64,
    /// Changes that could not be made.
    pub failed_changes: AtomicU64,
    /// How long the host took for each request that it did, by what it was.
    took: [Latency; ACTS.len()],
}

/// What is timed, by the names in Firecracker's metrics where it has one.
#[rustfmt::skip]
const ACTS: [(Act, &str); 4] = [
    (Act::Read, "read"), (Act::Write, "write"), (Act::Flush, "flush"), (Act::Trim, "trim"),
];

/// By the names in Firecracker's metrics.
impl Counters for BlockMetrics {
    fn each(&self, to: &mut dyn FnMut(&'static str, u64)) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        to("read_count", read(&self.reads));
        to("read_bytes", read(&self.read_bytes));
        to("write_count", read(&self.writes));
        to("write_bytes", read(&self.written_bytes));
        to("flush_count", read(&self.flushes));
        to("execute_fails", read(&self.failures));
        to("invalid_reqs_count", read(&self.refusals));
        to("rate_limiter_throttled_events", read(&self.throttled));
        to("io_engine_throttled_events", read(&self.crowded));
        to("update_count", read(&self.changes));
        to("update_fails", read(&self.failed_changes));
    }

    fn each_timing(&self, to: &mut dyn FnMut(&str, &Timing)) {
        ACTS.iter().zip(&self.took).for_each(|((_, name), took)| to(name, &took.timing()));
    }
}

/// What a request does on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Read,
    Write,
    Flush,
    Trim,
}

impl Act {
    /// In the log, behind "cannot".
    pub(super) const fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Trim => "free space",
        }
    }
}

impl BlockMetrics {
    /// Counts how long the host took for a request that was done. Only the disk's worker
    /// does.
    pub(super) fn took(&self, act: Act, since: Moment) {
        let place = ACTS.iter().position(|(other, _)| *other == act);
        if let Some(latency) = place.and_then(|place| self.took.get(place)) {
            latency.record(since.elapsed());
        }
    }

    /// Counts a request that was done, with `bytes` of data.
    pub(super) fn done(&self, act: Act, bytes: usize) {
        let (requests, moved) = match act {
            Act::Read => (&self.reads, Some(&self.read_bytes)),
            Act::Write => (&self.writes, Some(&self.written_bytes)),
            Act::Flush => (&self.flushes, None),
            Act::Trim => (&self.trims, None),
        };
        count(requests);
        if let Some(moved) = moved {
            moved.fetch_add(u64_from(bytes), Ordering::Relaxed);
        }
    }
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed).saturating_add(1)
}
