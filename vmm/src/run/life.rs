//! One life of a machine, on its own thread: from the first instruction to what ends it,
//! and the pauses between. The one place where what is asked of a machine meets what it
//! is at.

use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::plug::{Guest, Plugging};
use super::requests::Requests;
use super::slots::Slots;
use super::{Event, Halt, Report, VcpuFailure, Wanted};
use crate::build::{Backing, Built};
use crate::control::{Clock, Control, ControlError, Lifecycle, Reply};
use crate::events::MachineEvent;
use crate::save::{Captured, SaveOrder, Saved, Saving, Subject, Then, Watched};

/// How long a guest that panics may go on with its report.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long a vCPU may take to come home: it does so at once, unless a device keeps it
/// waiting for what it does on the host.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a machine begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// It runs.
    Run,
    /// It was restored and is paused.
    Paused,
    /// It was restored and goes on, and this is what the pause is to its guest's time.
    GoOn(Clock),
}

/// What a machine is at.
enum State {
    Running,
    /// The vCPUs are asked to come home, and who asks for the pause waits.
    Pausing {
        reply: Reply<()>,
        /// Set when something else is heard before they all are: to look at the clock is a
        /// system call on many hosts, and pauses are to be quick.
        until: Option<Instant>,
    },
    Paused(Since),
    /// Paused, and a worker writes what was read of the machine.
    Saving {
        since: Since,
        saving: Saving,
    },
}

/// When a pause began, where a guest that panics has its last words after it.
type Since = Option<Instant>;

/// A life.
pub(crate) struct Life<'a> {
    built: &'a mut Built,
    subject: Subject<'a>,
    requests: &'a mut Requests,
    events: &'a Sender<Event>,
    state: State,
    /// vCPUs that wait to learn whether the others are off.
    suspending: u32,
    /// When the report of a guest that panics ends.
    last_words: Option<Instant>,
}

impl<'a> Life<'a> {
    /// The life of a machine that was built, as `subject` describes it.
    pub(crate) fn new(
        built: &'a mut Built,
        subject: Subject<'a>,
        (requests, events): (&'a mut Requests, &'a Sender<Event>),
    ) -> Self {
        let state = State::Running;
        Self { built, subject, requests, events, state, suspending: 0, last_words: None }
    }

    /// Lets the guest run until something ends this life; calls `begun` once nothing can
    /// keep it from that.
    pub(crate) fn live(mut self, begun: impl FnOnce()) -> Halt {
        let _reached = self.requests.reach(self.built.threads.crew());
        if let Err(error) = self.begin(begun) {
            return Halt::NotResumed(error);
        }
        let halt = loop {
            if let Some(halt) = self.take_next() {
                break halt;
            }
        };
        self.plugging().end();
        // One that is paused has been since its last record, or has never gone on.
        if matches!(self.state, State::Running | State::Pausing { .. }) {
            self.record_working_set();
        }
        match self.state {
            State::Running | State::Paused(_) => {}
            // Should another life follow, that one is paused.
            State::Pausing { reply, .. } => self.requests.put_back(Control::Pause(reply)),
            // What it reads does not come any more.
            State::Saving { saving, .. } if matches!(halt, Halt::PageServerEnded) => {
                saving.abandon();
            }
            State::Saving { saving, .. } => {
                let (_, reply, saved) = saving.finish();
                reply.answer(saved);
            }
        }
        halt
    }

    fn begin(&mut self, begun: impl FnOnce()) -> Result<(), ControlError> {
        match self.built.start {
            Start::Paused => {
                self.state = State::Paused(None);
                self.requests.show(Lifecycle::Paused);
                begun();
                self.tell(|| MachineEvent::Loaded { runs: false });
                self.built.saved = None;
                return Ok(());
            }
            Start::GoOn(clock) => self.go_on(clock)?,
            Start::Run => {}
        }
        self.requests.show(Lifecycle::Running);
        // First, as in `resume`: who waits for it would else wait for the guest's share.
        begun();
        self.tell(|| match self.built.start {
            Start::Run => MachineEvent::Started,
            Start::Paused | Start::GoOn(_) => MachineEvent::Loaded { runs: true },
        });
        self.direct_vcpus();
        self.built.saved = None;
        Ok(())
    }

    fn take_next(&mut self) -> Option<Halt> {
        if matches!(self.state, State::Running | State::Paused(_))
            && let Some(control) = self.requests.next_waiting()
        {
            return self.obey(control);
        }
        let is_waiting = matches!(self.state, State::Pausing { .. });
        let event = self.requests.receive(self.patience());
        let halt = self.handle(event);
        if is_waiting && let State::Pausing { until, .. } = &mut self.state {
            until.get_or_insert_with(|| Instant::now() + PATIENCE);
        }
        halt
    }

    fn handle(&mut self, event: Option<Event>) -> Option<Halt> {
        match event {
            Some(Event::Vcpu(report)) => self.hear(report),
            Some(Event::Control(control)) => self.obey(control),
            Some(Event::Panicking) => {
                self.begin_last_words();
                None
            }
            Some(Event::Panicked) => Some(Halt::Panicked),
            Some(Event::MemoryLost(address)) => Some(Halt::MemoryLost(address)),
            Some(Event::PageServerEnded) => Some(Halt::PageServerEnded),
            Some(Event::LetGo(slot)) => {
                self.plugging().let_go(slot);
                None
            }
            Some(Event::Written) => {
                self.finish_save();
                None
            }
            None => self.be_late(),
        }
    }

    fn begin_last_words(&mut self) {
        let now = Instant::now();
        self.last_words.get_or_insert(now + LAST_WORDS);
        if let State::Paused(since) | State::Saving { since, .. } = &mut self.state {
            since.get_or_insert(now);
        }
    }

    /// How long to wait at most.
    fn patience(&self) -> Option<Duration> {
        let left = |end: Instant| end.saturating_duration_since(Instant::now());
        let leaves = self.built.slots.as_ref().and_then(Slots::until).map(left);
        let sooner = |other: Option<Duration>| leaves.into_iter().chain(other).min();
        match self.state {
            State::Running => sooner(self.last_words.map(left)),
            State::Pausing { until, .. } => {
                let patience = until.map_or(PATIENCE, left);
                Some(self.last_words.map_or(patience, |end| patience.min(left(end))))
            }
            // Who stands still says nothing.
            State::Paused(_) => leaves,
            State::Saving { .. } => None,
        }
    }

    fn be_late(&mut self) -> Option<Halt> {
        if self.last_words.is_some_and(|end| end <= Instant::now()) {
            return Some(Halt::Panicked);
        }
        if let State::Pausing { until, .. } = self.state
            && until.is_none_or(|until| until <= Instant::now())
        {
            self.give_up();
        }
        self.plugging().give_up(Instant::now());
        None
    }

    /// What comes and goes.
    fn plugging(&mut self) -> Plugging<'_, 'a> {
        let guest = match self.state {
            State::Running | State::Pausing { .. } => Guest::Runs,
            State::Paused(_) | State::Saving { .. } => Guest::StandsStill,
        };
        Plugging { built: &mut *self.built, subject: &mut self.subject, guest }
    }

    fn hear(&mut self, report: Report) -> Option<Halt> {
        match report {
            Report::System(_) if self.last_words.is_some() => return Some(Halt::Panicked),
            Report::System(request) => return Some(Halt::System(request)),
            Report::Failed(failure) => return Some(self.failed(failure)),
            Report::Suspending => {
                self.suspending += 1;
                self.direct_vcpus();
            }
            Report::Suspended => {
                self.suspending = self.suspending.saturating_sub(1);
                self.direct_vcpus();
            }
            Report::AllHome => self.look_home(),
        }
        None
    }

    /// What a vCPU's failure is to the machine: those that touch memory which is gone say
    /// nothing of that.
    fn failed(&self, failure: VcpuFailure) -> Halt {
        match &self.built.backing {
            Backing::File(lost) => lost.look().map_or(Halt::Failed(failure), Halt::MemoryLost),
            Backing::None | Backing::Served(_) => Halt::Failed(failure),
        }
    }

    fn obey(&mut self, control: Control) -> Option<Halt> {
        match (control, &self.state) {
            (Control::Stop, _) => return Some(Halt::Stopped),
            (later, State::Pausing { .. } | State::Saving { .. }) => self.requests.defer(later),
            (Control::Pause(reply), State::Running) => {
                self.state = State::Pausing { reply, until: None };
                self.direct_vcpus();
            }
            (Control::Resume(clock, reply), &State::Paused(since)) => {
                self.resume(clock, since, |done| reply.answer(done));
            }
            (Control::Save(order, watched, reply), &State::Paused(since)) => {
                self.save((order, watched), since, reply);
            }
            (Control::Change(change, reply), State::Running | State::Paused(_)) => {
                let configured = &mut self.subject.spec.devices;
                let changed = self.built.devices.change(configured, &change);
                reply.answer(changed.map_err(ControlError::from));
            }
            (Control::Plug(device, reply), State::Running | State::Paused(_)) => {
                let plugged = self.plugging().plug(device);
                reply.answer(plugged.map_err(ControlError::from));
            }
            (Control::Unplug(kind, id, reply), State::Running | State::Paused(_)) => {
                self.plugging().unplug((kind, &id), reply);
            }
            (Control::Save(_, _, reply), State::Running) => {
                reply.answer(Err(ControlError::NotPaused));
            }
            (Control::Pause(reply), State::Paused(_))
            | (Control::Resume(_, reply), State::Running) => reply.answer(Ok(())),
        }
        None
    }

    /// Tells the vCPUs where to be. One that asks whether the others are off comes
    /// before a pause: it would be saved in the middle of its call.
    fn direct_vcpus(&mut self) {
        self.built.threads.want(match (&self.state, self.suspending) {
            (_, 1..) => Wanted::Hold,
            (State::Running, 0) => Wanted::Run,
            (State::Pausing { .. } | State::Paused(_) | State::Saving { .. }, 0) => Wanted::Home,
        });
        if matches!(self.state, State::Pausing { .. }) {
            // On a host with few CPUs they come home now, and need not be waited for.
            thread::yield_now();
        }
        self.look_home();
    }

    /// Goes on with a pause once all vCPUs are at home.
    fn look_home(&mut self) {
        if !matches!(self.state, State::Pausing { .. }) || !self.built.threads.gate().all_are_home()
        {
            return;
        }
        match self.stand_still() {
            Ok(()) => {
                self.record_working_set();
                self.requests.show(Lifecycle::Paused);
                let since = self.last_words.map(|_| Instant::now());
                let before = std::mem::replace(&mut self.state, State::Paused(since));
                answer(before, Ok(()));
                self.tell(|| MachineEvent::Paused);
            }
            Err(error) => self.run_on(error),
        }
    }

    /// Writes down which pages the guest has needed so far, if it is to be.
    fn record_working_set(&mut self) {
        if let Some(recorder) = self.built.recorder.take() {
            recorder.record(&self.built.memory);
        }
    }

    /// Stops what goes on beside the vCPUs.
    fn stand_still(&mut self) -> Result<(), ControlError> {
        let Built { threads, time, devices, .. } = &mut *self.built;
        threads.with_first(|first| time.stop(first)).map_err(ControlError::Time)?;
        Ok(devices.pause()?)
    }

    /// Lets go on what goes on beside the vCPUs, or nothing of it.
    fn go_on(&mut self, clock: Clock) -> Result<(), ControlError> {
        let Built { threads, time, vm, devices, clock_page, .. } = &mut *self.built;
        if time.passes(clock) {
            clock_page.disrupt();
        }
        // Time last: it passes from then on.
        devices.resume()?;
        let set = threads.with_first(|first| time.go_on(vm.as_ref(), first, clock));
        if let Err(source) = set {
            devices.pause()?;
            return Err(ControlError::Time(source));
        }
        Ok(())
    }

    /// Ends a pause that has not come about.
    fn give_up(&mut self) {
        // Had they all come home, that would have been noticed.
        let index = self.built.threads.gate().first_away().unwrap_or(0);
        self.run_on(ControlError::Busy { index, seconds: PATIENCE.as_secs() });
    }

    fn run_on(&mut self, error: ControlError) {
        let before = std::mem::replace(&mut self.state, State::Running);
        self.direct_vcpus();
        answer(before, Err(error));
    }

    /// Reads what there is to save and starts to write it.
    fn save(&mut self, (order, watched): (SaveOrder, Watched), since: Since, reply: Reply<Saved>) {
        let captured = match Captured::read(self.built, &self.subject, order.kind) {
            Ok(captured) => captured,
            Err(error) => return self.end_save(order.then, since, (reply, Err(error.into()))),
        };
        let then = order.then;
        match Saving::begin(captured, (order, watched), reply, self.events) {
            Ok(saving) => self.state = State::Saving { since, saving },
            Err((reply, error)) => self.end_save(then, since, (reply, Err(error.into()))),
        }
    }

    fn finish_save(&mut self) {
        match std::mem::replace(&mut self.state, State::Running) {
            State::Saving { since, saving } => {
                let (is_base, state) = (saving.kind().is_base(), saving.state().to_owned());
                let (then, reply, saved) = saving.finish();
                if let (true, Ok(saved)) = (is_base, &saved) {
                    self.built.changes.saved_as(saved.id);
                }
                if saved.is_ok() {
                    self.tell(|| MachineEvent::Saved(state));
                }
                self.end_save(then, since, (reply, saved));
            }
            other => self.state = other,
        }
    }

    fn end_save(
        &mut self,
        then: Then,
        since: Since,
        (reply, saved): (Reply<Saved>, Result<Saved, ControlError>),
    ) {
        self.state = State::Paused(since);
        match then {
            Then::StayPaused => reply.answer(saved),
            Then::Resume(clock) => {
                self.resume(clock, since, |gone_on| {
                    reply.answer(saved.and_then(|saved| gone_on.map(|()| saved)));
                });
            }
        }
    }

    /// Lets the guest go on, and says whether it does by `tell`.
    fn resume(&mut self, clock: Clock, since: Since, tell: impl FnOnce(Result<(), ControlError>)) {
        if let Err(error) = self.go_on(clock) {
            return tell(Err(error));
        }
        let passed = since.map_or(Duration::ZERO, |since| since.elapsed());
        self.last_words = self.last_words.map(|end| end + passed);
        self.state = State::Running;
        self.requests.show(Lifecycle::Running);
        // Nothing can go wrong from here on. Who asked is told first: on a host with few
        // CPUs it would wait until the guest has had its share.
        tell(Ok(()));
        self.tell(|| MachineEvent::Resumed);
        self.direct_vcpus();
    }

    fn tell(&self, event: impl FnOnce() -> MachineEvent) {
        self.subject.surroundings.tell(event);
    }
}

fn answer(before: State, answer: Result<(), ControlError>) {
    if let State::Pausing { reply, .. } = before {
        reply.answer(answer);
    }
}
