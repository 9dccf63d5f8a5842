//! Asking the machine for what takes time: one thing after another, in the order in which
//! it was asked for. Its clones start once it is saved for them, and nobody else waits for
//! that.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::Builder;
use std::time::{Duration, Instant};

use kedge_api::call::{
    Call, CheckSnapshot, CreateSnapshot, Operation, Setting, SnapshotType, WantedState,
};
use kedge_api::http::{Client, Reply, Response};
use kedge_devices::virtio::catalog::Kind;
use kedge_diag::Trouble;
use kedge_saved_state::Durability;
use kedge_vmm::{
    Checksums, Clock, ControlError, Handle, Lifecycle, SaveKind, SaveOrder, SaveProgress, Then,
};
use serde_json::json;

use super::task::Task;
use super::{OrderError, Shown};
use crate::abi::check;
use crate::clone::{CloneError, Clones};
use crate::metering::{Act, Metering};

/// What reaches whoever works for a machine's clients.
#[derive(Debug)]
pub(crate) enum Message {
    /// A client asks for something.
    Order(Box<Order>),
    /// The machine is to end, or never to begin.
    Stop,
}

/// Something to ask the machine for.
#[derive(Debug)]
pub(crate) struct Order {
    /// What it is.
    pub(crate) call: Call,
    /// Who asks.
    pub(crate) pending: Pending,
}

/// A client that waits for an answer.
#[derive(Debug)]
pub(crate) struct Pending {
    /// What a message to it begins with.
    prefix: String,
    /// Whether it asked in a way that will go away.
    deprecated: bool,
    reply: Reply,
    /// Counts its order while it is underway.
    underway: Option<Counted>,
}

/// One more that is underway.
#[derive(Debug)]
struct Counted(Underway);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The machine once there is one.
type Place = Arc<OnceLock<Handle>>;

/// The way from clients to a machine.
pub(super) struct Way {
    messages: Sender<Message>,
    machine: Place,
    underway: Underway,
    shown: Shown,
    task: Task,
}

/// How many orders are underway: those after them must not overtake them.
type Underway = Arc<AtomicUsize>;

/// What clients ask for before there is a machine. Who takes it is to make one.
#[derive(Debug)]
pub(crate) struct Orders {
    messages: Receiver<Message>,
    machine: Place,
    shown: Shown,
    /// To whom they go once there is one.
    work: Sender<(Handle, Receiver<Message>)>,
    ender: Ender,
}

/// Ends a machine, or the wait for one.
#[derive(Clone, Debug)]
pub(crate) struct Ender {
    messages: Sender<Message>,
    machine: Place,
}

/// The work for clients of a machine, on a thread of its own.
pub(super) struct Work {
    begin: Receiver<(Handle, Receiver<Message>)>,
    shown: Shown,
    task: Task,
    metering: Metering,
}

/// The way from clients, what arrives by it, and the work that follows, which is `metering`'s
/// to measure.
pub(super) fn orders(metering: &Metering) -> (Way, Orders, Work) {
    let ((to, messages), (work, begin)) = (channel(), channel());
    let (machine, shown, task) = (Place::default(), Shown::default(), Task::default());
    let way = Way {
        messages: to.clone(),
        machine: Arc::clone(&machine),
        underway: Underway::default(),
        shown: shown.clone(),
        task: task.clone(),
    };
    let ender = Ender { messages: to, machine: Arc::clone(&machine) };
    let work_of = Work { begin, shown: shown.clone(), task, metering: metering.clone() };
    (way, Orders { messages, machine, shown, work, ender }, work_of)
}

impl Order {
    /// Something that a client asks for.
    pub(super) fn new(call: Call, deprecated: bool, reply: Reply) -> Self {
        let prefix = call.prefix();
        Self { call, pending: Pending { prefix, deprecated, reply, underway: None } }
    }
}

impl Pending {
    /// Who waits.
    fn client(&self) -> Client {
        self.reply.client()
    }

    /// Tells the client that it is done.
    pub(crate) fn done(self) {
        self.answer(&Response::done());
    }

    /// Tells the client what came of it.
    pub(crate) fn answer(mut self, response: &Response) {
        // The client may ask for more as soon as it hears.
        drop(self.underway.take());
        match self.deprecated {
            true => self.reply.send(&response.clone().deprecated()),
            false => self.reply.send(response),
        }
    }

    /// Tells the client why it is not done.
    pub(crate) fn fail(self, error: &OrderError) {
        let response = error.response(&self.prefix);
        self.answer(&response);
    }
}

impl Way {
    /// How the machine is.
    pub(super) fn status(&self) -> Lifecycle {
        self.machine.get().map_or(Lifecycle::Configured, Handle::status)
    }

    /// What is shown of the machine.
    pub(super) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// What the machine is at, where that takes long.
    pub(super) fn operation(&self) -> Option<Operation> {
        self.task.look()
    }

    /// Sends `order` on its way: straight to the machine, where that neither takes long nor
    /// overtakes others.
    pub(super) fn give(&self, mut order: Order) {
        let before = self.underway.fetch_add(1, Ordering::AcqRel);
        order.pending.underway = Some(Counted(Arc::clone(&self.underway)));
        if let (0, Some(machine), Call::SetState(wanted)) =
            (before, self.machine.get(), &order.call)
        {
            return set_state(machine, *wanted, order.pending);
        }
        // Dropped with nobody there, the reply says that the machine has ended.
        let _ = self.messages.send(Message::Order(Box::new(order)));
    }
}

impl Orders {
    /// What comes next, if it comes in so much time.
    pub(crate) fn next_within(&self, patience: Duration) -> Option<Message> {
        self.messages.recv_timeout(patience).ok()
    }

    /// What comes next. It may take for ever.
    pub(crate) fn next(&self) -> Message {
        // Each of these has a way of its own to itself, so that it never ends.
        self.messages.recv().unwrap_or(Message::Stop)
    }

    /// What is shown of the machine.
    pub(crate) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Something to end with, from any thread.
    pub(crate) fn ender(&self) -> Ender {
        self.ender.clone()
    }

    /// There is a machine: from now on, orders are for it.
    pub(crate) fn hand_over(self, handle: Handle) {
        let Self { messages, machine, work, .. } = self;
        // It is set once, here.
        let _ = machine.set(handle.clone());
        // Who would take it has ended with the API.
        let _ = work.send((handle, messages));
    }
}

impl Ender {
    /// Ends it.
    pub(crate) fn end(&self) {
        match self.machine.get() {
            Some(handle) => handle.stop(),
            // With nobody there, it has ended.
            None => drop(self.messages.send(Message::Stop)),
        }
    }
}

impl Work {
    /// Works from when there is a machine until nobody is left to give orders.
    pub(super) fn run(self) {
        let Ok((handle, messages)) = self.begin.recv() else { return };
        for message in messages {
            match message {
                Message::Order(order) => self.obey_and_answer(&handle, *order),
                Message::Stop => handle.stop(),
            }
        }
    }

    fn obey_and_answer(&self, handle: &Handle, Order { call, pending }: Order) {
        let act = Act::of(&call).filter(|act| !act.is_quick());
        let began = act.map(|act| (act, Instant::now()));
        match call {
            Call::Clone(asked) => {
                let task = self.task.begin("PUT /clone");
                // Its clones are wanted, whether it waits for them or not.
                let watcher = task.watch(None);
                let saved =
                    stands_still(handle).and_then(|()| Ok(Clones::of(handle, &asked, watcher)?));
                drop(task);
                match saved {
                    Ok(clones) => start_and_answer(clones, pending),
                    Err(error) => pending.fail(&error),
                }
            }
            Call::CreateSnapshot(create) => {
                let task = self.task.begin("PUT /snapshot/create");
                let saved = save(handle, &create, task.watch(Some(pending.client())));
                drop(task);
                self.answer(saved, began, pending);
            }
            Call::CheckSnapshot(wanted) => check(wanted, pending),
            Call::Remove { kind, id } => remove(handle, &self.shown, (kind, id), pending),
            call => self.answer(self.obey(handle, call), began, pending),
        }
    }

    /// Answers with the `outcome` of what `began` then, where that is measured.
    fn answer(
        &self,
        outcome: Result<(), OrderError>,
        began: Option<(Act, Instant)>,
        pending: Pending,
    ) {
        match outcome {
            Ok(()) => {
                let began = began.into_iter();
                began.for_each(|(act, began)| self.metering.done(act, began.elapsed()));
                pending.done();
            }
            Err(error) => pending.fail(&error),
        }
    }

    fn obey(&self, handle: &Handle, call: Call) -> Result<(), OrderError> {
        match call {
            Call::SetState(WantedState::Paused) => Ok(handle.pause()?),
            Call::SetState(WantedState::Resumed) => Ok(handle.resume(Clock::default())?),
            Call::Change(change) => {
                handle.change(change.clone())?;
                self.shown.change(&change);
                Ok(())
            }
            Call::Set(Setting::Device(device)) if device.kind().many => {
                let view = (device.kind(), device.to_json());
                handle.plug(device)?;
                self.shown.add(view);
                Ok(())
            }
            Call::Set(_) | Call::Start | Call::LoadSnapshot(_) => Err(OrderError::Started),
            Call::FlushMetrics => Ok(self.metering.write()?),
            // These are answered where they come in.
            Call::Remove { .. }
            | Call::Clone(_)
            | Call::CreateSnapshot(_)
            | Call::CheckSnapshot(_)
            | Call::Describe
            | Call::Version
            | Call::OpenApi
            | Call::ShowMachine
            | Call::ShowConfig
            | Call::ShowMetadata
            | Call::ShowMetrics
            | Call::Listen
            | Call::PutMetadata(_)
            | Call::PatchMetadata(_)
            | Call::SetLogger(_)
            | Call::SetMetrics(_) => Ok(()),
        }
    }
}

/// Asks for it without waiting.
fn set_state(machine: &Handle, wanted: WantedState, pending: Pending) {
    let then = move |outcome: Result<(), ControlError>| match outcome {
        Ok(()) => pending.done(),
        Err(error) => pending.fail(&error.into()),
    };
    match wanted {
        WantedState::Paused => machine.pause_then(then),
        WantedState::Resumed => machine.resume_then(Clock::default(), then),
    }
}

/// Asks the guest to let go of a device, without waiting.
fn remove(handle: &Handle, shown: &Shown, (kind, id): (&'static Kind, String), pending: Pending) {
    let (shown, removed) = (shown.clone(), id.clone());
    handle.unplug_then((kind, id), move |outcome| match outcome {
        Ok(()) => {
            shown.remove((kind, &removed));
            pending.done();
        }
        Err(error) => pending.fail(&error.into()),
    });
}

/// Answers with the plan of a snapshot's load.
pub(crate) fn check(CheckSnapshot { snapshot_path, allow }: CheckSnapshot, pending: Pending) {
    let plan = check::here(snapshot_path, &allow).map_err(Trouble::new);
    match plan {
        Ok(plan) => pending.answer(&Response::with(&json!(plan))),
        Err(error) => pending.fail(&OrderError::Check(error)),
    }
}

/// Starts clones on a thread of their own.
fn start_and_answer(clones: Clones, pending: Pending) {
    // Where there is no thread, the client is still here to be answered.
    let (to, from) = channel::<Pending>();
    let thread = Builder::new().name("clone".to_owned()).spawn(move || {
        let Ok(pending) = from.recv() else { return };
        match clones.start() {
            Ok(clones) => pending.answer(&Response::with(&clones)),
            Err(error) => pending.fail(&error.into()),
        }
    });
    match thread {
        Ok(_) => drop(to.send(pending)),
        Err(error) => pending.fail(&CloneError::Thread(error).into()),
    }
}

fn stands_still(handle: &Handle) -> Result<(), OrderError> {
    match handle.status() {
        Lifecycle::Running => Err(OrderError::Runs),
        Lifecycle::Configured | Lifecycle::Paused | Lifecycle::Stopped => Ok(()),
    }
}

fn save(
    handle: &Handle,
    create: &CreateSnapshot,
    watcher: impl FnMut(SaveProgress) -> ControlFlow<()> + Send + 'static,
) -> Result<(), OrderError> {
    stands_still(handle)?;
    let order = SaveOrder {
        kind: match create.snapshot_type {
            SnapshotType::Full => SaveKind::Full,
            SnapshotType::Diff => SaveKind::Difference,
            SnapshotType::Copy => SaveKind::Copy,
        },
        durability: if create.sync { Durability::Synced } else { Durability::Cached },
        then: if create.resume_vm { Then::Resume(Clock::default()) } else { Then::StayPaused },
        checksums: if create.checksums { Checksums::Whole } else { Checksums::Samples },
        ..SaveOrder::new(&create.snapshot_path, &create.mem_file_path)
    };
    Ok(handle.save_watched(order, watcher).map(drop)?)
}
