//! How long things of several kinds took, and how many went wrong: a histogram of each kind.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::registry::Counters;

/// The upper bounds of a histogram's steps in microseconds. What took longer than the last
/// of them is counted in the sum alone.
pub(crate) const STEPS: [u64; 6] = [100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// The things of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// How many there were.
    pub count: u64,
    /// How many of them went wrong.
    pub failed: u64,
    /// How long they took in all, in microseconds.
    pub sum_us: u64,
    /// How many took as long as each of the steps, or less.
    pub(crate) within: [u64; STEPS.len()],
}

/// How one of them went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// Otherwise.
    Failed,
}

/// Things of several kinds, of which there are not many.
#[derive(Debug, Default)]
pub struct Timings(Mutex<Vec<(String, Timing)>>);

impl Timings {
    /// One of `kind` took so long.
    pub fn record(&self, kind: String, took: Duration, outcome: Outcome) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut kinds = self.lock();
        let place = kinds.iter().position(|(known, _)| *known == kind).unwrap_or_else(|| {
            kinds.push((kind, Timing::default()));
            kinds.len() - 1
        });
        let Some((_, timing)) = kinds.get_mut(place) else { return };
        timing.count += 1;
        timing.failed += u64::from(outcome == Outcome::Failed);
        timing.sum_us = timing.sum_us.saturating_add(us);
        for (within, step) in timing.within.iter_mut().zip(STEPS) {
            *within += u64::from(us <= step);
        }
    }

    /// Those of `kind`.
    pub fn of(&self, kind: &str) -> Timing {
        let kinds = self.lock();
        let known = kinds.iter().find(|(known, _)| known == kind);
        known.map(|(_, timing)| *timing).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, Timing)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters for Timings {
    fn each(&self, _to: &mut dyn FnMut(&'static str, u64)) {}

    fn each_timing(&self, to: &mut dyn FnMut(&str, &Timing)) {
        self.lock().iter().for_each(|(kind, timing)| to(kind, timing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_is_in_no_step_that_is_shorter() {
        let timings = Timings::default();
        timings.record("save".to_owned(), Duration::from_micros(1000), Outcome::Done);
        timings.record("save".to_owned(), Duration::from_secs(60), Outcome::Failed);
        let expected =
            Timing { count: 2, failed: 1, sum_us: 60_001_000, within: [0, 1, 1, 1, 1, 1] };
        assert_eq!(timings.of("save"), expected);
        assert_eq!(timings.of("load"), Timing::default());
    }
}
