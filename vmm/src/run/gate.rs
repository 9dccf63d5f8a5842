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
    /// The power state of each vCPU that is held; none where it runs, or is to show
    /// it anew.
    held: Vec<Option<MpState>>,
}

impl State {
    /// Shows `power` for vCPU `index`. Whether it had to be shown.
    fn show(&mut self, index: usize, power: MpState) -> bool {
        self.held[index].replace(power).is_none()
    }

    fn all_are_held(&self) -> bool {
        self.held.iter().all(Option::is_some)
    }

    /// Each vCPU but `except`, by what it shows.
    fn others(&mut self, except: usize) -> impl Iterator<Item = &mut Option<MpState>> {
        let all = self.held.iter_mut().enumerate();
        all.filter(move |(index, _)| *index != except).map(|(_, held)| held)
    }
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
        let mut state = self.lock();
        state.wanted = wanted;
        if wanted == Wanted::Run {
            // A thread that has yet to notice is as good as running.
            state.held.fill(None);
        }
        self.changed.notify_all();
    }

    /// Called by vCPU thread `index` before it runs guest code: waits while the
    /// gate holds, showing what `power` says. Whether to run.
    pub(crate) fn pass(&self, index: usize, power: impl Fn() -> MpState) -> bool {
        let mut state = self.lock();
        while state.wanted == Wanted::Hold {
            if state.held[index].is_some() {
                state = self.wait(state);
                continue;
            }
            drop(state);
            let power = power();
            state = self.lock();
            if state.wanted == Wanted::Hold && state.show(index, power) {
                self.changed.notify_all();
            }
        }
        state.held[index] = None;
        state.wanted == Wanted::Run
    }

    /// Called by vCPU thread `except`, outside guest code: waits until every other
    /// one is held, and says whether all of them are off. `None` where the machine
    /// is told to stop meanwhile.
    ///
    /// Each shows its power twice: a vCPU held late may have turned on one that was
    /// held before. The second time nobody runs that could.
    pub(crate) fn others_off(&self, except: usize) -> Option<bool> {
        let mut state = self.lock();
        let mut asked_again = false;
        let answer = loop {
            // Two vCPUs may ask at once: each sees the other here, and on.
            if state.show(except, MpState::Runnable) {
                self.changed.notify_all();
            }
            if state.wanted == Wanted::Stop {
                break None;
            }
            if state.all_are_held() && asked_again {
                break Some(state.others(except).all(|held| *held == Some(MpState::Stopped)));
            }
            if state.all_are_held() {
                asked_again = true;
                state.others(except).for_each(|held| *held = None);
                self.changed.notify_all();
                continue;
            }
            state = self.wait(state);
        };
        state.held[except] = None;
        answer
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked leaves plain data behind, never half a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
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
    fn a_vcpu_that_was_turned_on_while_it_was_held_is_seen_on() {
        let gate = Arc::new(Gate::new(2));
        let on = Arc::new(AtomicBool::new(false));
        let (inside, power) = (Arc::clone(&gate), Arc::clone(&on));
        let power = move || match power.load(Ordering::SeqCst) {
            true => MpState::Runnable,
            false => MpState::Stopped,
        };
        let thread = thread::spawn(move || inside.pass(0, power));
        assert_eq!(gate.others_off(1), Some(true));
        on.store(true, Ordering::SeqCst);
        assert_eq!(gate.others_off(1), Some(false));
        gate.want(Wanted::Stop);
        assert!(!thread.join().unwrap());
    }

    #[test]
    fn a_vcpu_that_may_run_is_not_held_though_it_has_yet_to_notice() {
        let gate = Gate::new(2);
        gate.lock().show(0, MpState::Stopped);
        gate.want(Wanted::Run);
        assert!(!gate.lock().all_are_held());
        assert_eq!(gate.lock().held[0], None);
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
