//! A firmware service of a program's own: it counts the laps that a guest reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kedge_vmm::smccc::{Call, Functions, NOT_SUPPORTED, Results, Service, only};

/// Counts x1 laps more; answers in x1 how many it has counted, and in x2 the largest
/// count ever reported at once. In the range that DEN0028 leaves to who makes the
/// machine (owner 3).
pub(crate) const LAP: u32 = 0xc300_0100;

/// The counts, which the program keeps a handle of.
#[derive(Clone, Debug, Default)]
pub(crate) struct LapCounter {
    laps: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
}

impl LapCounter {
    /// How many laps it has counted.
    pub(crate) fn laps(&self) -> u64 {
        self.laps.load(Ordering::Relaxed)
    }
}

impl Service for LapCounter {
    fn name(&self) -> &str {
        "lap counter"
    }

    fn functions(&self) -> &[Functions] {
        const FUNCTIONS: &[Functions] = &[LAP..=LAP];
        FUNCTIONS
    }

    fn call(&self, call: &Call) -> Results {
        const SUCCESS: u64 = 0;
        match call.function() {
            LAP => {
                // Every vCPU may call at once, with any number.
                let new = call.argument(1);
                let laps = self.laps.fetch_add(new, Ordering::Relaxed).wrapping_add(new);
                let most = self.most.fetch_max(new, Ordering::Relaxed).max(new);
                [SUCCESS, laps, most, 0]
            }
            _ => only(NOT_SUPPORTED),
        }
    }
}
