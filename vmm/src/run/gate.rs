//! Holding vCPUs outside guest code: how a machine stops them, how one of them
//! learns whether the others are off, and where they are while the machine does not
//! run.
//!
//! A vCPU belongs to its thread, and comes home when the machine wants it: then the
//! machine may look at it and change it, until it wants it to run again. Home is a
//! place behind the same lock as what the machine wants, rather than a channel: no
//! vCPU is ever on its way, left in a queue that nobody reads any more, or brought
//! home for a wish that was withdrawn meanwhile.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use kedge_hv::MpState;

/// What the machine wants of its vCPU threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Run guest code.
    Run,
    /// Stay outside it until told otherwise, and show whether the vCPU is on.
    Hold,
    /// Bring the vCPU home.
    Home,
    /// End.
    Stop,
}

/// What a vCPU thread is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Run guest code.
    Run,
    /// Bring its vCPU home.
    Home,
    /// End.
    Stop,
}

#[derive(Debug)]
struct State<V> {
    wanted: Wanted,
    /// Whether the machine looked for vCPUs at home, and is to hear when they all are.
    awaited: bool,
    /// The power state of each vCPU that is held; none where it runs, or is to show
    /// it anew.
    held: Vec<Option<MpState>>,
    /// Each vCPU that is at home.
    home: Vec<Option<V>>,
    /// How many threads wait for a change: to wake nobody is a system call, too.
    waiting: usize,
}

impl<V> State<V> {
    /// Shows `power` for vCPU `index`. Whether it had to be shown.
    fn show(&mut self, index: usize, power: MpState) -> bool {
        self.held[index].replace(power).is_none()
    }

    fn all_are_held(&self) -> bool {
        self.held.iter().all(Option::is_some)
    }

    fn all_are_home(&self) -> bool {
        self.wanted == Wanted::Home && self.home.iter().all(Option::is_some)
    }

    /// Each vCPU but `except`, by what it shows.
    fn others(&mut self, except: usize) -> impl Iterator<Item = &mut Option<MpState>> {
        let all = self.held.iter_mut().enumerate();
        all.filter(move |(index, _)| *index != except).map(|(_, held)| held)
    }
}

/// The gate every vCPU thread passes before it runs guest code, and the home of the
/// vCPUs, which are `V`.
#[derive(Debug)]
pub(crate) struct Gate<V> {
    state: Mutex<State<V>>,
    changed: Condvar,
}

impl<V> Gate<V> {
    /// A gate that sends `vcpus` vCPUs home until it is opened.
    pub(crate) fn new(vcpus: usize) -> Self {
        let home = (0..vcpus).map(|_| None).collect();
        let (wanted, held) = (Wanted::Home, vec![None; vcpus]);
        let state = State { wanted, awaited: false, held, home, waiting: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Says what is wanted, and returns what was before. The caller kicks vCPUs that
    /// were wanted to run, so that they come and look.
    pub(crate) fn want(&self, wanted: Wanted) -> Wanted {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.wanted, wanted);
        state.awaited = false;
        if wanted != Wanted::Hold {
            // A thread that has yet to notice is as good as gone.
            state.held.fill(None);
        }
        self.wake(&state);
        before
    }

    /// Wants vCPUs at home ahead of the machine, which is about to, if they are to run.
    /// Whether they are: then the caller kicks them.
    pub(crate) fn summon(&self) -> bool {
        let mut state = self.lock();
        let is_to_run = state.wanted == Wanted::Run;
        if is_to_run {
            state.wanted = Wanted::Home;
        }
        is_to_run
    }

    /// Called by vCPU thread `index` before it runs guest code: waits while the gate
    /// holds, showing what `power` says. What to do then.
    pub(crate) fn pass(&self, index: usize, power: impl Fn() -> MpState) -> Passed {
        let mut state = self.lock();
        let passed = loop {
            match state.wanted {
                Wanted::Run => break Passed::Run,
                Wanted::Home => break Passed::Home,
                Wanted::Stop => break Passed::Stop,
                Wanted::Hold if state.held[index].is_some() => state = self.wait(state),
                Wanted::Hold => {
                    drop(state);
                    let power = power();
                    state = self.lock();
                    if state.wanted == Wanted::Hold && state.show(index, power) {
                        self.wake(&state);
                    }
                }
            }
        };
        state.held[index] = None;
        passed
    }

    /// Called by vCPU thread `index`, outside guest code: brings its vCPU home, says so
    /// by `all_home` if it is the last one there and the machine has looked for it, and
    /// stays until it is wanted elsewhere.
    pub(crate) fn stay(&self, index: usize, vcpu: V, all_home: impl FnOnce()) -> V {
        let mut state = self.lock();
        state.home[index] = Some(vcpu);
        if state.awaited && state.all_are_home() {
            // Without the lock: the machine wakes, and looks at its vCPUs.
            drop(state);
            all_home();
            state = self.lock();
        }
        self.take_out(state, index).expect("its thread alone takes a vCPU from home")
    }

    /// Called by the machine before anything else is wanted than that vCPUs be at home:
    /// brings vCPU `index` there.
    pub(crate) fn place(&self, index: usize, vcpu: V) {
        self.lock().home[index] = Some(vcpu);
    }

    /// Called by vCPU thread `index` whose vCPU the machine brings home: waits until it
    /// is wanted elsewhere. None if the machine ends before it was brought.
    pub(crate) fn leave(&self, index: usize) -> Option<V> {
        self.take_out(self.lock(), index)
    }

    fn take_out(&self, mut state: MutexGuard<'_, State<V>>, index: usize) -> Option<V> {
        while state.wanted == Wanted::Home {
            state = self.wait(state);
        }
        state.home[index].take()
    }

    /// Whether every vCPU is at home. If so, they stay until something else is wanted; if
    /// not, the last to come says so.
    pub(crate) fn all_are_home(&self) -> bool {
        let mut state = self.lock();
        let all_are_home = state.all_are_home();
        state.awaited = !all_are_home;
        all_are_home
    }

    /// The first vCPU that is not at home.
    pub(crate) fn first_away(&self) -> Option<usize> {
        self.lock().home.iter().position(Option::is_none)
    }

    /// Does something to the vCPUs that are at home, in order.
    pub(crate) fn visit<T>(&self, act: impl FnOnce(&mut [&mut V]) -> T) -> T {
        let mut state = self.lock();
        let mut home: Vec<&mut V> = state.home.iter_mut().flatten().collect();
        act(&mut home)
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
                self.wake(&state);
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
                self.wake(&state);
                continue;
            }
            state = self.wait(state);
        };
        state.held[except] = None;
        answer
    }

    fn wait<'a>(&self, mut state: MutexGuard<'a, State<V>>) -> MutexGuard<'a, State<V>> {
        state.waiting += 1;
        state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    /// Makes who waits look at what has changed.
    fn wake(&self, state: &State<V>) {
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        // A thread that panicked leaves plain data behind, never half a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    /// A gate for two vCPUs that holds.
    fn holding() -> Arc<Gate<&'static str>> {
        let gate = Arc::new(Gate::new(2));
        gate.want(Wanted::Hold);
        gate
    }

    #[test]
    fn a_thread_waits_until_the_gate_opens() {
        let gate = holding();
        let inside = Arc::clone(&gate);
        let thread = thread::spawn(move || inside.pass(0, || MpState::Runnable));
        assert_eq!(gate.others_off(1), Some(false));
        gate.want(Wanted::Run);
        assert_eq!(thread.join().unwrap(), Passed::Run);
    }

    #[test]
    fn a_vcpu_that_was_turned_on_while_it_was_held_is_seen_on() {
        let gate = holding();
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
        assert_eq!(thread.join().unwrap(), Passed::Stop);
    }

    #[test]
    fn a_vcpu_that_may_run_is_not_held_though_it_has_yet_to_notice() {
        let gate = holding();
        gate.lock().show(0, MpState::Stopped);
        gate.want(Wanted::Run);
        assert!(!gate.lock().all_are_held());
        assert_eq!(gate.lock().held[0], None);
    }

    #[test]
    fn stopping_ends_those_who_wait() {
        let gate = holding();
        let inside = Arc::clone(&gate);
        let thread = thread::spawn(move || inside.pass(1, || MpState::Stopped));
        assert_eq!(gate.others_off(0), Some(true));
        gate.want(Wanted::Stop);
        assert_eq!(thread.join().unwrap(), Passed::Stop);
        assert_eq!(gate.others_off(0), None);
    }

    #[test]
    fn a_new_gate_sends_vcpus_home_until_they_are_to_run() {
        let gate = Arc::new(Gate::new(2));
        assert_eq!(gate.pass(0, || MpState::Runnable), Passed::Home);
        let (say, said) = channel();
        let stay = |index, name| {
            let (gate, say) = (Arc::clone(&gate), say.clone());
            thread::spawn(move || gate.stay(index, name, || say.send(()).unwrap()))
        };
        let first = stay(0, "first");
        while gate.first_away() == Some(0) {
            thread::yield_now();
        }
        assert!(!gate.all_are_home());
        let second = stay(1, "second");
        said.recv().unwrap();
        assert!(gate.all_are_home());
        assert_eq!(
            gate.visit(|home| home.iter().map(|name| **name).collect::<String>()),
            "firstsecond"
        );
        gate.want(Wanted::Run);
        assert_eq!((first.join().unwrap(), second.join().unwrap()), ("first", "second"));
        assert!(said.try_recv().is_err());
    }

    #[test]
    fn a_vcpu_that_was_brought_home_leaves_when_it_is_wanted_elsewhere() {
        let gate = Arc::new(Gate::new(1));
        let inside = Arc::clone(&gate);
        let thread = thread::spawn(move || inside.leave(0));
        gate.place(0, "brought");
        assert!(gate.all_are_home());
        gate.want(Wanted::Run);
        assert_eq!(thread.join().unwrap(), Some("brought"));
        let never_brought = Gate::<&str>::new(1);
        never_brought.want(Wanted::Stop);
        assert_eq!(never_brought.leave(0), None);
    }

    #[test]
    fn a_vcpu_that_was_sent_for_comes_home_in_silence() {
        let gate = Arc::new(Gate::new(1));
        gate.want(Wanted::Run);
        assert!(gate.summon());
        assert!(!gate.summon());
        assert_eq!(gate.pass(0, || MpState::Runnable), Passed::Home);
        let inside = Arc::clone(&gate);
        let thread = thread::spawn(move || inside.stay(0, "only", || panic!("nobody waits")));
        while gate.first_away().is_some() {
            thread::yield_now();
        }
        assert_eq!(gate.want(Wanted::Home), Wanted::Home);
        assert!(gate.all_are_home());
        gate.want(Wanted::Run);
        assert_eq!(thread.join().unwrap(), "only");
    }

    #[test]
    fn the_machine_hears_of_those_who_come_after_it_looked_for_them() {
        let gate = Gate::new(1);
        gate.want(Wanted::Run);
        assert!(gate.summon());
        gate.want(Wanted::Home);
        assert!(!gate.all_are_home());
        let (say, said) = channel();
        thread::scope(|scope| {
            scope.spawn(|| gate.stay(0, "only", || say.send(()).unwrap()));
            said.recv().unwrap();
            gate.want(Wanted::Stop);
        });
    }

    #[test]
    fn vcpus_that_are_wanted_elsewhere_cannot_be_sent_for() {
        let gate = holding();
        assert!(!gate.summon());
        gate.want(Wanted::Stop);
        assert!(!gate.summon());
        assert_eq!(gate.pass(0, || MpState::Runnable), Passed::Stop);
    }

    #[test]
    fn a_vcpu_that_comes_home_when_it_is_no_longer_wanted_there_goes_on() {
        let gate = holding();
        assert_eq!(gate.stay(0, "back", || {}), "back");
        assert_eq!(gate.first_away(), Some(0));
    }

    #[test]
    fn vcpus_that_stay_while_others_are_asked_something_are_home_again_at_once() {
        let gate = Arc::new(Gate::new(1));
        gate.lock().home[0] = Some("only");
        gate.want(Wanted::Hold);
        assert!(!gate.all_are_home());
        gate.want(Wanted::Home);
        assert!(gate.all_are_home());
    }
}
