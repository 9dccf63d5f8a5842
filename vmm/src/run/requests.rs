//! What a machine is asked for, until it does it.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::Event;
use super::summons::{Crew, Reached, Summons};
use crate::control::{Control, Lifecycle, Shown};

/// What reaches a machine's own thread. Dropped, it leaves nobody waiting: the machine
/// has ended.
#[derive(Debug)]
pub(crate) struct Requests {
    events: Receiver<Event>,
    /// Asked for, and to be done later.
    waiting: VecDeque<Control>,
    shown: Shown,
    summons: Summons,
}

impl Requests {
    /// What arrives by `events`, for a machine whose lifecycle is `shown` and whose
    /// vCPUs are sent for by `summons`.
    pub(crate) fn new(events: Receiver<Event>, shown: Shown, summons: Summons) -> Self {
        Self { events, waiting: VecDeque::new(), shown, summons }
    }

    /// From now on, who asks for a pause sends for `crew`.
    pub(super) fn reach(&self, crew: Crew) -> Reached {
        self.summons.reach(crew)
    }

    /// Shows where the machine is in its life.
    pub(crate) fn show(&self, lifecycle: Lifecycle) {
        self.shown.show(lifecycle);
    }

    /// What has waited longest.
    pub(crate) fn next_waiting(&mut self) -> Option<Control> {
        self.waiting.pop_front()
    }

    /// Does `control` later, behind all that waits.
    pub(crate) fn defer(&mut self, control: Control) {
        self.waiting.push_back(control);
    }

    /// Does `control` before all that waits.
    pub(crate) fn put_back(&mut self, control: Control) {
        self.waiting.push_front(control);
    }

    /// What arrives next. Nothing if it has not within `patience`.
    pub(crate) fn receive(&mut self, patience: Option<Duration>) -> Option<Event> {
        let received = match patience {
            Some(patience) => self.events.recv_timeout(patience),
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            // The machine holds a sender itself, so this cannot be; ending is safe.
            Err(RecvTimeoutError::Disconnected) => Some(Event::Control(Control::Stop)),
        }
    }

    /// Forgets what the last life had yet to say about itself: nobody is left to say
    /// more, and it concerns no other. What was asked for is for the next life to do,
    /// and to end first of all.
    pub(crate) fn keep_for_next_life(&mut self) {
        for event in self.events.try_iter() {
            match event {
                Event::Control(Control::Stop) => self.waiting.push_front(Control::Stop),
                Event::Control(control) => self.waiting.push_back(control),
                Event::Vcpu(_)
                | Event::Panicking
                | Event::Panicked
                | Event::MemoryLost(_)
                | Event::PageServerEnded
                | Event::LetGo(_)
                | Event::Written => {}
            }
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.shown.show(Lifecycle::Stopped);
    }
}
