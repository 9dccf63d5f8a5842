//! Sending for a machine's vCPUs ahead of its own thread: who asks for a pause kicks them
//! at once, and the machine, when it comes to it, finds them on their way or at home. On a
//! host with few CPUs that is a thread less to wait for.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kedge_hv::Kick;

use super::vcpu_thread::Shared;

/// The vCPUs of a machine's present life, if one of its lives goes on.
#[derive(Clone, Default)]
pub(crate) struct Summons(Arc<Mutex<Option<Crew>>>);

/// vCPUs, seen from the threads beside theirs.
pub(crate) struct Crew {
    pub(super) shared: Arc<Shared>,
    /// One for each.
    pub(super) kicks: Vec<Arc<dyn Kick>>,
}

/// They can be sent for until this is dropped.
pub(crate) struct Reached(Summons);

impl Summons {
    /// Sends vCPUs home that are to run: the machine's own thread is to hear of it next, and
    /// waits for them. Those that it wants elsewhere stay there.
    pub(crate) fn send(&self) {
        if let Some(crew) = &*self.lock()
            && crew.shared.gate.summon()
        {
            crew.kicks.iter().for_each(|kick| kick.kick());
        }
    }

    /// Those sent for are `crew`.
    pub(super) fn reach(&self, crew: Crew) -> Reached {
        *self.lock() = Some(crew);
        Reached(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Crew>> {
        // There is nothing in it that could be half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Summons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Summons")
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}
