//! Which of the card's pairs of queues are in use (Virtio 1.2, 5.1.5): each has a
//! queue of the tap behind it. The kernel steers frames among those attached, each
//! flow to the pair on which the guest sent last of it, as 5.1.6.5.5 wants it.

use std::sync::atomic::{AtomicU16, Ordering};

use rustix::io::Errno;

use super::control::Pairs;
use crate::tap::Tap;

/// The tap's queues, one for each pair of the card's.
#[derive(Debug)]
pub(super) struct Steering {
    taps: Vec<Tap>,
    /// Pairs from the first on; a driver that was just born uses one.
    in_use: AtomicU16,
}

impl Steering {
    /// `taps`, of which there is at least one.
    pub(super) fn new(taps: Vec<Tap>) -> Self {
        Self { taps, in_use: AtomicU16::new(1) }
    }

    /// How many pairs there are.
    pub(super) fn pairs(&self) -> u16 {
        u16::try_from(self.taps.len()).unwrap_or(u16::MAX)
    }

    /// How many of them are in use.
    pub(super) fn in_use(&self) -> u16 {
        self.in_use.load(Ordering::Relaxed)
    }

    /// The tap's queue of pair `index`.
    pub(super) fn tap(&self, index: usize) -> Option<&Tap> {
        self.taps.get(index)
    }

    /// All of them, by pair.
    pub(super) fn taps(&self) -> &[Tap] {
        &self.taps
    }

    /// Remembers that the first `count` pairs are to be in use, of which there are
    /// as many.
    pub(super) fn remember(&self, count: u16) {
        self.in_use.store(count, Ordering::Relaxed);
    }

    /// Has the kernel use the tap's queues that are in use, and no others.
    ///
    /// # Errors
    /// The host's, for one of them; the others are then as they should be.
    pub(super) fn apply(&self) -> Result<(), Errno> {
        let (used, unused) = self.taps.split_at(self.taps.len().min(self.in_use().into()));
        // The last ones go first, so that the kernel's numbers stay those of the
        // pairs.
        let mut result = Ok(());
        for tap in unused.iter().rev() {
            result = result.and(tap.detach());
        }
        for tap in used {
            result = result.and(tap.attach());
        }
        result
    }
}

impl Pairs for Steering {
    fn count(&self) -> u16 {
        self.pairs()
    }

    fn use_first(&self, count: u16) -> bool {
        let before = self.in_use();
        self.remember(count);
        if let Err(error) = self.apply() {
            tracing::debug!(%error, count, "the tap's queues are not attached so");
            self.remember(before);
            // What worked before works again.
            let _ = self.apply();
            return false;
        }
        true
    }
}
