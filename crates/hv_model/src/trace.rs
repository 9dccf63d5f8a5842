//! What model vCPUs did, for a test to look at.

use std::sync::{Arc, Mutex, PoisonError};

/// Something that happened to a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It got the answer to a load that had left the guest.
    Loaded {
        /// Which vCPU.
        vcpu: u32,
        /// From where.
        address: u64,
        /// The answer, zero-extended.
        value: u64,
    },
    /// It took an external abort.
    Aborted {
        /// Which vCPU.
        vcpu: u32,
        /// The step that it came from.
        pc: u64,
    },
}

/// The events of all machines of a hypervisor, in their order.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Vec<Event>>>);

impl Trace {
    /// What happened so far.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn push(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}
