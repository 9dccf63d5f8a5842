//! How a machine is asked for something while it runs: by any thread, through a handle.
//! Its own thread does what is asked, one thing after another, and answers.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::mpsc::{Sender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use kedge_bus::{PauseError, ResumeError};
use kedge_devices::virtio::catalog::{DeviceConfig, Kind};
use kedge_devices::virtio::change::{Change, ChangeError};
use kedge_diag::Fix;
use kedge_hv::HvError;
use serde::Serialize;

use crate::run::{Event, PlugError, Summons};
use crate::save::{SaveError, SaveOrder, SaveProgress, Saved, Watched};

/// Where a machine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifecycle {
    /// Built, and nothing of its guest has run.
    Configured,
    /// Its guest runs.
    Running,
    /// Its guest stands still.
    Paused,
    /// It has ended.
    Stopped,
}

/// What a pause is to the guest's counters, and with them to its clock, once it is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// What the guest's profile says: by default nothing, as for [`Clock::Stop`].
    #[default]
    Profile,
    /// Nothing: they go on from where they stood. On hosts before Linux 6.4 that is the
    /// virtual counter alone, by which Linux lives; the physical one cannot be held.
    Stop,
    /// Time that has passed: they are where they would be without the pause.
    Advance,
}

/// Why a machine did not do what it was asked for. It is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It has ended, or did so meanwhile.
    #[error("the machine has ended")]
    Ended,
    /// A vCPU is in the middle of an access.
    #[error("vCPU {index} did not stop within {seconds} seconds: a device keeps it waiting")]
    Busy {
        /// Which vCPU.
        index: usize,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A device is not done with what it is at, or cannot be stopped.
    #[error(transparent)]
    Pause(#[from] PauseError),
    /// A device cannot go on.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// What is asked for is for machines that stand still.
    #[error("the machine runs: only a paused one can be saved")]
    NotPaused,
    /// It cannot be saved.
    #[error("the machine cannot be saved")]
    Save(#[from] SaveError),
    /// A device cannot be changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A device cannot come or go.
    #[error(transparent)]
    Plug(#[from] PlugError),
    /// The guest's counters cannot be read or held.
    #[error("cannot make the guest's time stand still")]
    Time(#[source] HvError),
}

impl Fix for ControlError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Ended => None,
            Self::Busy { .. } => {
                Some("see that the serial port's output is read, and try again".to_owned())
            }
            Self::Pause(source) => source.fix(),
            Self::Resume(source) => source.fix(),
            Self::NotPaused => Some("pause it first".to_owned()),
            Self::Save(source) => source.fix(),
            Self::Change(source) => source.fix(),
            Self::Plug(source) => source.fix(),
            Self::Time(source) => source.fix(),
        }
    }
}

/// Where an answer goes. Dropped without one, it says that the machine has ended.
pub(crate) struct Reply<T>(Option<Answer<T>>);

/// What takes an answer, on the machine's own thread.
type Answer<T> = Box<dyn FnOnce(Result<T, ControlError>) + Send>;

impl<T> Reply<T> {
    fn new(answer: impl FnOnce(Result<T, ControlError>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    pub(crate) fn answer(mut self, answer: Result<T, ControlError>) {
        self.tell(answer);
    }

    fn tell(&mut self, answer: Result<T, ControlError>) {
        if let Some(tell) = self.0.take() {
            tell(answer);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.tell(Err(ControlError::Ended));
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// Something that is asked of a machine.
#[derive(Debug)]
pub(crate) enum Control {
    /// To stand still.
    Pause(Reply<()>),
    /// To go on.
    Resume(Clock, Reply<()>),
    /// To be saved, while it stands still.
    Save(SaveOrder, Watched, Reply<Saved>),
    /// That one of its devices change.
    Change(Box<Change>, Reply<()>),
    /// That a device come.
    Plug(Box<dyn DeviceConfig>, Reply<()>),
    /// That the device of this kind and name go.
    Unplug(&'static Kind, String, Reply<()>),
    /// To end.
    Stop,
}

/// Where a machine shows what its lifecycle is. Only its own thread changes it, so that
/// whoever looks need not wait for anything that the machine is at.
#[derive(Clone, Debug)]
pub(crate) struct Shown(Arc<Mutex<Lifecycle>>);

impl Shown {
    /// Shows a machine that has not run.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Lifecycle::Configured)))
    }

    pub(crate) fn show(&self, lifecycle: Lifecycle) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = lifecycle;
    }

    fn look(&self) -> Lifecycle {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A machine, held by any thread but its own.
///
/// What is asked of it is done by the thread that is in [`crate::Machine::run`], in the
/// order in which it arrives. Asked before that, it is done once the machine runs; asked
/// over a reset of the guest, by the machine's next life. A device or a firmware service
/// must not ask while it answers its guest: it would wait for itself.
#[derive(Clone)]
pub struct Handle {
    events: Sender<Event>,
    shown: Shown,
    summons: Summons,
}

impl Handle {
    pub(crate) fn new(events: Sender<Event>, shown: Shown, summons: Summons) -> Self {
        Self { events, shown, summons }
    }

    /// Makes the guest stand still: returns once no vCPU runs, none of its accesses is
    /// half done, and its time does not pass. The real-time clock keeps the host's. A
    /// machine that is paused already stays so.
    ///
    /// # Errors
    /// [`ControlError::Busy`]: the guest runs on. [`ControlError::Ended`]: also where the
    /// guest powered off before it could be paused.
    pub fn pause(&self) -> Result<(), ControlError> {
        self.summons.send();
        self.ask(Control::Pause)
    }

    /// Lets the guest go on; `clock` says what the pause is to it. A machine that runs
    /// already does so.
    ///
    /// # Errors
    /// The machine has ended, or the host refuses: then it is still paused.
    pub fn resume(&self, clock: Clock) -> Result<(), ControlError> {
        self.ask(|reply| Control::Resume(clock, reply))
    }

    /// Saves the machine, which is paused. Meanwhile it is, whatever else is asked of
    /// it; to end it takes until it is saved.
    ///
    /// # Errors
    /// It is not paused, or cannot be saved: a snapshot that was there before still is.
    /// Where it was saved and cannot go on as asked, the error says that.
    pub fn save(&self, order: SaveOrder) -> Result<Saved, ControlError> {
        self.ask(|reply| Control::Save(order, Watched::default(), reply))
    }

    /// As [`Self::save`], and `watcher` hears how far it is, on the thread that writes, which
    /// it must not keep: at first, after every few megabytes, and before the files are put in
    /// place. Where it breaks, nothing of the snapshot is left.
    ///
    /// # Errors
    /// Those of [`Self::save`], and [`SaveError::Cancelled`].
    pub fn save_watched(
        &self,
        order: SaveOrder,
        watcher: impl FnMut(SaveProgress) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Saved, ControlError> {
        self.ask(|reply| Control::Save(order, Watched::by(watcher), reply))
    }

    /// Changes one of the machine's devices, whether its guest runs or stands still, and
    /// in its specification, by which it is saved.
    ///
    /// # Errors
    /// There is no such device, or it cannot be so: it is as it was.
    pub fn change(&self, change: Change) -> Result<(), ControlError> {
        self.ask(|reply| Control::Change(Box::new(change), reply))
    }

    /// Opens `device` and plugs it into a slot on PCI, whether the guest runs or stands
    /// still: the guest notices by itself.
    ///
    /// # Errors
    /// The machine has no free slot, or cannot have such a device: nothing has changed.
    pub fn plug(&self, device: Box<dyn DeviceConfig>) -> Result<(), ControlError> {
        self.ask(|reply| Control::Plug(device, reply))
    }

    /// Asks the guest to let go of the device `id` of `kind`, which was plugged in, and
    /// removes it once it has; `then` hears of it, on the machine's own thread, which it
    /// must not keep. Meanwhile the machine does what else is asked of it.
    ///
    /// The errors it may hear: there is no such device, it was there from the start, or the
    /// guest has not let go of it in time. Then it is as it was, but that the guest may let
    /// go of it later.
    pub fn unplug_then(
        &self,
        (kind, id): (&'static Kind, String),
        then: impl FnOnce(Result<(), ControlError>) + Send + 'static,
    ) {
        self.give(Control::Unplug(kind, id, Reply::new(then)));
    }

    /// As [`Self::unplug_then`], and waits.
    ///
    /// # Errors
    /// Those of [`Self::unplug_then`].
    pub fn unplug(&self, kind: &'static Kind, id: &str) -> Result<(), ControlError> {
        self.ask(|reply| Control::Unplug(kind, id.to_owned(), reply))
    }

    /// Where the machine is in its life, at once, whatever it is at.
    pub fn status(&self) -> Lifecycle {
        self.shown.look()
    }

    /// [`crate::Machine::run`] returns [`crate::Ended::Stopped`] soon, paused or not.
    /// Nothing where the machine is gone.
    pub fn stop(&self) {
        self.give(Control::Stop);
    }

    /// As [`Self::pause`] without waiting: `then` hears of it, on the machine's own thread,
    /// which it must not keep.
    pub fn pause_then(&self, then: impl FnOnce(Result<(), ControlError>) + Send + 'static) {
        self.summons.send();
        self.give(Control::Pause(Reply::new(then)));
    }

    /// As [`Self::resume`] without waiting: `then` hears of it, on the machine's own thread,
    /// which it must not keep.
    pub fn resume_then(
        &self,
        clock: Clock,
        then: impl FnOnce(Result<(), ControlError>) + Send + 'static,
    ) {
        self.give(Control::Resume(clock, Reply::new(then)));
    }

    fn ask<T: Send + 'static>(
        &self,
        control: impl FnOnce(Reply<T>) -> Control,
    ) -> Result<T, ControlError> {
        let (reply, answer) = sync_channel(1);
        // Who no longer waits has nothing to learn.
        self.give(control(Reply::new(move |told| drop(reply.send(told)))));
        answer.recv().map_err(|_| ControlError::Ended)?
    }

    fn give(&self, control: Control) {
        // Sent back with nobody there, it is dropped, and says that the machine has ended.
        let _ = self.events.send(Event::Control(control));
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("status", &self.status()).finish_non_exhaustive()
    }
}
