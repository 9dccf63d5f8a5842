//! Holding vCPUs outside guest code: how a machine stops them, and how one of
//! them learns whether the others are off.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use kedge_hv::MpState;

/// What the machine wants of its vCPU threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Run guest code.
    Run,
    /// Stay outside it until told otherwise.
    Hold,
    /// End.
    Stop,
}

#[derive(Debug)]
struct State {
    wanted: Wanted,
    /// The power state of each vCPU that is held.
    held: Vec<Option<MpState>>,
}

/// The gate every vCPU thread passes before it runs guest code.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    /// A gate that holds `vcpus` threads until it is opened.
    pub(crate) fn new(vcpus: usize) -> Self {
        let state = State { wanted: Wanted::Hold, held: vec![None; vcpus] };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Says what is wanted. The caller kicks the vCPUs, so that they come and look.
    pub(crate) fn want(&self, wanted: Wanted) {
        self.lock().wanted = wanted;
        self.changed.notify_all();
    }

    /// Called by vCPU thread `index` before it runs guest code: waits while the
    /// gate holds, showing `power`. Whether to run.
    pub(crate) fn pass(&self, index: usize, power: impl FnOnce() -> MpState) -> bool {
        let mut state = self.lock();
        if state.wanted == Wanted::Hold {
            drop(state);
            let power = power();
            state = self.lock();
            state.held[index] = Some(power);
            self.changed.notify_all();
            while state.wanted == Wanted::Hold {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.held[index] = None;
        }
        state.wanted == Wanted::Run
    }

    /// Called by vCPU thread `except`, outside guest code: waits until every other
    /// one is held, and says whether all of them are off. `None` where the machine
    /// is told to stop meanwhile.
    pub(crate) fn others_off(&self, except: usize) -> Option<bool> {
        let mut state = self.lock();
        // Two vCPUs may ask at once: each sees the other here, and on.
        state.held[except] = Some(MpState::Runnable);
        self.changed.notify_all();
        let answer = loop {
            if state.wanted == Wanted::Stop {
                break None;
            }
            if state.held.iter().all(Option::is_some) {
                let mut others = state.held.iter().enumerate().filter(|(i, _)| *i != except);
                break Some(others.all(|(_, held)| *held == Some(MpState::Stopped)));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.held[except] = None;
        answer
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked leaves plain data behind, never half a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_waits_until_the_gate_opens() {
        let gate = Arc::new(Gate::new(2));
        let inside = Arc::clone(&gate);
        let thread = thread::spawn(move || inside.pass(0, || MpState::Runnable));
        assert_eq!(gate.others_off(1), Some(false));
        gate.want(Wanted::Run);
        assert!(thread.join().unwrap());
    }

    #[test]
    fn stopping_ends_those_who_wait() {
        let gate = Arc::new(Gate::new(2));
        let inside = Arc::clone(&gate);
        let thread = thread::spawn(move || inside.pass(1, || MpState::Stopped));
        assert_eq!(gate.others_off(0), Some(true));
        gate.want(Wanted::Stop);
        assert!(!thread.join().unwrap());
        assert_eq!(gate.others_off(0), None);
    }
}
