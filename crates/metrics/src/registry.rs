//! Who counts: one registry for a machine, handed to whoever makes a part of it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::timings::Timing;

/// Something that counts. It is read from another thread than counts.
pub trait Counters: Send + Sync {
    /// Hands out each of its counters: its name, and what it has counted since it was made.
    fn each(&self, to: &mut dyn FnMut(&'static str, u64));

    /// Hands out how long things of each kind took, where it knows that. Firecracker's form
    /// has a place for those of a kind that it knows, with `_agg` behind it.
    fn each_timing(&self, _to: &mut dyn FnMut(&str, &Timing)) {}
}

/// What somebody counts.
#[derive(Clone)]
pub(crate) struct Entry {
    /// What kind of thing it is: `net`.
    pub(crate) group: &'static str,
    /// Which of them, where there can be several: `eth0`.
    pub(crate) id: Option<String>,
    pub(crate) counters: Arc<dyn Counters>,
}

/// All that counts in a machine. Clones are the same one.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Vec<Entry>>>);

impl Registry {
    /// Has `counters` of the kind `group` from now on, those of `id` where there can be
    /// several; they take the place of those that were made for it before.
    pub fn add(&self, group: &'static str, id: Option<&str>, counters: Arc<dyn Counters>) {
        let entry = Entry { group, id: id.map(str::to_owned), counters };
        let mut entries = self.lock();
        match entries.iter_mut().find(|old| old.group == group && old.id.as_deref() == id) {
            Some(old) => *old = entry,
            None => entries.push(entry),
        }
    }

    /// Has those no more.
    pub fn remove(&self, group: &str, id: Option<&str>) {
        self.lock().retain(|entry| entry.group != group || entry.id.as_deref() != id);
    }

    /// All there are now.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.entries().into_iter().map(|entry| (entry.group, entry.id));
        f.debug_list().entries(names).finish()
    }
}
