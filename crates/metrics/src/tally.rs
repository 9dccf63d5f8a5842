//! Counters by name, for what happens seldom enough to be looked up.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::registry::Counters;

/// Counters, each with its name.
#[derive(Debug)]
pub struct Tally(Box<[(&'static str, AtomicU64)]>);

impl Tally {
    /// A counter for each of `names`.
    pub fn of(names: &[&'static str]) -> Self {
        Self(names.iter().map(|name| (*name, AtomicU64::new(0))).collect())
    }

    /// Counts one more `name`. Nothing where there is no such counter.
    pub fn count(&self, name: &str) {
        if let Some(counter) = self.counter(name) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds to the counter `name`.
    pub fn add(&self, name: &str, more: u64) {
        if let Some(counter) = self.counter(name) {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Makes `name` be `value`.
    pub fn set(&self, name: &str, value: u64) {
        if let Some(counter) = self.counter(name) {
            counter.store(value, Ordering::Relaxed);
        }
    }

    fn counter(&self, name: &str) -> Option<&AtomicU64> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, counter)| counter)
    }
}

impl Counters for Tally {
    fn each(&self, to: &mut dyn FnMut(&'static str, u64)) {
        for (name, counter) in &self.0 {
            to(name, counter.load(Ordering::Relaxed));
        }
    }
}
