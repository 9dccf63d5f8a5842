//! How long things of several kinds took, and how many went wrong: a histogram of each kind.

use std::ops::Add;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::registry::Counters;

/// The upper bounds of a histogram's steps in microseconds. What took longer than the last
/// of them is counted in the sum alone.
pub(crate) const STEPS: [u64; 7] = [10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// The things of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// How many there were.
    pub count: u64,
    /// How many of them went wrong, where that is counted here.
    pub failed: Option<u64>,
    /// How long they took in all, in microseconds.
    pub sum_us: u64,
    /// How long the quickest took, in microseconds.
    pub min_us: u64,
    /// How long the slowest took, in microseconds.
    pub max_us: u64,
    /// How many took as long as each of the steps, or less.
    pub(crate) within: [u64; STEPS.len()],
}

impl Add for Timing {
    type Output = Self;

    /// Both.
    fn add(self, other: Self) -> Self {
        let both = |one: Option<u64>, other: Option<u64>| {
            one.map_or(other, |n| Some(n + other.unwrap_or(0)))
        };
        let mut within = self.within;
        within.iter_mut().zip(other.within).for_each(|(sum, more)| *sum += more);
        Self {
            count: self.count + other.count,
            failed: both(self.failed, other.failed),
            sum_us: self.sum_us.saturating_add(other.sum_us),
            min_us: match (self.count, other.count) {
                (0, _) => other.min_us,
                (_, 0) => self.min_us,
                _ => self.min_us.min(other.min_us),
            },
            max_us: self.max_us.max(other.max_us),
            within,
        }
    }
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
        *timing = *timing
            + Timing {
                count: 1,
                failed: Some(u64::from(outcome == Outcome::Failed)),
                sum_us: us,
                min_us: us,
                max_us: us,
                within: STEPS.map(|step| u64::from(us <= step)),
            };
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
        let (count, failed, within) = (2, Some(1), [0, 0, 1, 1, 1, 1, 1]);
        let (sum_us, min_us, max_us) = (60_001_000, 1000, 60_000_000);
        let expected = Timing { count, failed, sum_us, min_us, max_us, within };
        assert_eq!(timings.of("save"), expected);
        assert_eq!(timings.of("load"), Timing::default());
    }
}
