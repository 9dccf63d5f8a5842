//! How long what happens often takes: counted by one thread, without a lock, and read by
//! others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::timings::{STEPS, Timing};

/// How long things of one kind took. One thread at a time records; another one may read
/// meanwhile, and see the last thing half recorded.
#[derive(Debug, Default)]
pub struct Latency {
    count: AtomicU64,
    /// In nanoseconds: many of these take less than a microsecond.
    sum: AtomicU64,
    shortest: AtomicU64,
    longest: AtomicU64,
    /// Those that took longer than the step before, by step.
    within: [AtomicU64; STEPS.len()],
}

impl Latency {
    /// One took so long.
    pub fn record(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let first = get(&self.count) == 0;
        add(&self.count, 1);
        add(&self.sum, took);
        if first || took < get(&self.shortest) {
            self.shortest.store(took, Ordering::Relaxed);
        }
        if took > get(&self.longest) {
            self.longest.store(took, Ordering::Relaxed);
        }
        let step = STEPS.iter().position(|step| took <= step.saturating_mul(1000));
        if let Some(within) = step.and_then(|step| self.within.get(step)) {
            add(within, 1);
        }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        get(&self.count)
    }

    /// What was recorded.
    pub fn timing(&self) -> Timing {
        let mut before = 0;
        let within = self.within.each_ref().map(|within| {
            before += get(within);
            before
        });
        Timing {
            count: get(&self.count),
            failed: None,
            sum_us: get(&self.sum) / 1000,
            min_us: get(&self.shortest) / 1000,
            max_us: get(&self.longest) / 1000,
            within,
        }
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Nobody else writes to it.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(get(counter).wrapping_add(more), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_the_longest_and_all_of_them_are_known() {
        let latency = Latency::default();
        assert_eq!(latency.timing(), Timing { failed: None, ..Timing::default() });
        for micros in [30, 7, 2_000_000] {
            latency.record(Duration::from_micros(micros));
        }
        let within = [1, 2, 2, 2, 2, 2, 3];
        let (sum_us, min_us, max_us) = (2_000_037, 7, 2_000_000);
        let expected = Timing { count: 3, failed: None, sum_us, min_us, max_us, within };
        assert_eq!(latency.timing(), expected);
    }

    #[test]
    fn those_of_several_are_one() {
        let (one, other) = (Latency::default(), Latency::default());
        one.record(Duration::from_micros(30));
        other.record(Duration::from_micros(7));
        let (both, none) = (one.timing() + other.timing(), Latency::default().timing());
        assert_eq!((both.count, both.min_us, both.max_us, both.sum_us), (2, 7, 30, 37));
        assert_eq!(none + both, both);
    }
}
