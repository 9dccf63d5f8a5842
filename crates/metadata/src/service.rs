//! The service: a document that its user writes and guests read, whatever card they ask on.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kedge_metrics::Counters;
use serde_json::{Map, Value};

use crate::counters::Counts;
use crate::store::{Store, StoreError};
use crate::token::Authority;
use crate::view::{self, Form, Nothing};

/// Fills a buffer with random bytes.
pub type Random = fn(&mut [u8]) -> io::Result<()>;

/// A metadata service. Its document is empty at first; its key is its own, and nobody else
/// ever has it.
#[derive(Debug)]
pub struct Service {
    store: Mutex<Store>,
    authority: Mutex<Authority>,
    counters: Counts,
    began: Instant,
}

impl Service {
    /// The service of the machine called `id`, with room for a document of `limit` bytes.
    /// Keys come from `random`.
    pub fn new(id: &str, limit: usize, random: Random) -> Self {
        Self {
            store: Mutex::new(Store::new(limit)),
            authority: Mutex::new(Authority::new(id, random)),
            counters: Counts::default(),
            began: Instant::now(),
        }
    }

    /// The document. None before somebody has put one there.
    pub fn document(&self) -> Option<Value> {
        self.store().document().cloned()
    }

    /// Puts `document` there.
    ///
    /// # Errors
    /// It is no JSON object, or too large; what was there is there still.
    pub fn put(&self, document: Value) -> Result<(), StoreError> {
        self.store().put(document)
    }

    /// Merges `patch` into the document (RFC 7396).
    ///
    /// # Errors
    /// There is none yet, or it would be no object any more, or too large; it stays as it
    /// was.
    pub fn patch(&self, patch: Value) -> Result<(), StoreError> {
        self.store().patch(patch)
    }

    /// What it has done so far.
    pub(crate) fn counters(&self) -> &Counts {
        &self.counters
    }

    /// What a guest finds at `path`: nothing anywhere while nobody has put anything there.
    pub(crate) fn look(&self, path: &str, form: Form) -> Result<String, Nothing> {
        match self.store().document() {
            Some(document) => view::look(document, path, form),
            None => view::look(&Value::Object(Map::new()), path, form),
        }
    }

    /// A token for `seconds`.
    ///
    /// # Errors
    /// There are no random numbers.
    pub(crate) fn issue(&self, seconds: u32, now: Instant) -> io::Result<String> {
        let now = self.time(now);
        self.authority().issue(seconds, now)
    }

    /// Whether a token is valid.
    pub(crate) fn is_valid(&self, token: &str, now: Instant) -> bool {
        let now = self.time(now);
        self.authority().is_valid(token, now)
    }

    fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn authority(&self) -> MutexGuard<'_, Authority> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters for Service {
    fn each(&self, to: &mut dyn FnMut(&'static str, u64)) {
        for (name, counter) in self.counters.named() {
            to(name, counter.load(Ordering::Relaxed));
        }
    }
}

/// Bytes that are hardly ever the same twice.
#[cfg(test)]
pub(crate) fn random_enough(buffer: &mut [u8]) -> io::Result<()> {
    use std::hash::{BuildHasher, RandomState};
    for byte in buffer {
        *byte = RandomState::new().hash_one(0).to_le_bytes()[0];
    }
    Ok(())
}
