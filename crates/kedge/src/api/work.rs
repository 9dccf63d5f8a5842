//! Asking the machine for what takes time: one thing after another, in the order in which
//! it was asked for. Its clones start once it is saved for them, and nobody else waits for
//! that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::Builder;

use kedge_api::call::{Call, CreateSnapshot, SnapshotType, WantedState};
use kedge_api::http::{Reply, Response};
use kedge_diag::{Fix, one_line};
use kedge_saved_state::Durability;
use kedge_vmm::{Checksums, Clock, ControlError, Handle, Lifecycle, SaveKind, SaveOrder, Then};

use crate::clone::{CloneError, Clones};

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
    pub(crate) call: Call,
    /// Whether it was asked for in a way that will go away.
    deprecated: bool,
    reply: Reply,
    /// Counts it while it is underway.
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
}

/// How many orders are underway: those after them must not overtake them.
type Underway = Arc<AtomicUsize>;

/// What clients ask for before there is a machine. Who takes it is to make one.
#[derive(Debug)]
pub(crate) struct Orders {
    messages: Receiver<Message>,
    machine: Place,
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
pub(super) struct Work(Receiver<(Handle, Receiver<Message>)>);

/// The way from clients, what arrives by it, and the work that follows.
pub(super) fn orders() -> (Way, Orders, Work) {
    let ((to, messages), (work, begin)) = (channel(), channel());
    let machine = Place::default();
    let way =
        Way { messages: to.clone(), machine: Arc::clone(&machine), underway: Underway::default() };
    let ender = Ender { messages: to, machine: Arc::clone(&machine) };
    (way, Orders { messages, machine, work, ender }, Work(begin))
}

impl Order {
    /// Something that a client asks for.
    pub(super) fn new(call: Call, deprecated: bool, reply: Reply) -> Self {
        Self { call, deprecated, reply, underway: None }
    }

    /// Tells the client that it is done, or why it is not.
    pub(crate) fn answer(mut self, outcome: Result<Response, String>) {
        // The client may ask for more as soon as it hears.
        drop(self.underway.take());
        let response = outcome.unwrap_or_else(|message| Response::fault(&message));
        self.reply.send(&if self.deprecated { response.deprecated() } else { response });
    }

    /// Tells the client that there is no machine yet.
    pub(crate) fn answer_too_early(self) {
        self.fail(&OrderError::NotStarted);
    }

    /// Tells the client why it is not done.
    fn fail(self, error: &OrderError) {
        let message = message(&self.call, error);
        self.answer(Err(message));
    }
}

impl Way {
    /// How the machine is.
    pub(super) fn status(&self) -> Lifecycle {
        self.machine.get().map_or(Lifecycle::Configured, Handle::status)
    }

    /// Sends `order` on its way: straight to the machine, where that neither takes long nor
    /// overtakes others.
    pub(super) fn give(&self, mut order: Order) {
        let before = self.underway.fetch_add(1, Ordering::AcqRel);
        order.underway = Some(Counted(Arc::clone(&self.underway)));
        if let (0, Some(machine), Call::SetState(wanted)) =
            (before, self.machine.get(), &order.call)
        {
            return set_state(machine, *wanted, order);
        }
        // Dropped with nobody there, the reply says that the machine has ended.
        let _ = self.messages.send(Message::Order(Box::new(order)));
    }
}

impl Orders {
    /// What comes next. It may take for ever.
    pub(crate) fn next(&self) -> Message {
        // Each of these has a way of its own to itself, so that it never ends.
        self.messages.recv().unwrap_or(Message::Stop)
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
        let Ok((handle, messages)) = self.0.recv() else { return };
        for message in messages {
            match message {
                Message::Order(order) => obey_and_answer(&handle, *order),
                Message::Stop => handle.stop(),
            }
        }
    }
}

/// Asks for it without waiting.
fn set_state(machine: &Handle, wanted: WantedState, order: Order) {
    let then = move |outcome: Result<(), ControlError>| match outcome {
        Ok(()) => order.answer(Ok(Response::done())),
        Err(error) => order.fail(&error.into()),
    };
    match wanted {
        WantedState::Paused => machine.pause_then(then),
        WantedState::Resumed => machine.resume_then(Clock::default(), then),
    }
}

fn obey_and_answer(handle: &Handle, order: Order) {
    if let Call::Clone(asked) = &order.call {
        let saved = stands_still(handle).and_then(|()| Ok(Clones::of(handle, asked)?));
        return match saved {
            Ok(clones) => start_and_answer(clones, order),
            Err(error) => order.fail(&error),
        };
    }
    match obey(handle, &order.call) {
        Ok(()) => order.answer(Ok(Response::done())),
        Err(error) => order.fail(&error),
    }
}

/// Why a machine does not do what a client asks for.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    /// It is too early for that.
    #[error("there is no machine yet")]
    NotStarted,
    /// The machine says no.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Saving needs a machine that stands still.
    #[error("the machine runs, and can be saved only while it is paused")]
    Runs,
    /// There are no clones.
    #[error(transparent)]
    Clone(#[from] CloneError),
    /// It is too late for that.
    #[error("the machine has started already")]
    Started,
}

impl Fix for OrderError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Control(source) => source.fix(),
            Self::Clone(source) => source.fix(),
            Self::Runs => Some("pause it first: PATCH /vm {\"state\": \"Paused\"}".to_owned()),
            Self::NotStarted => Some("load a snapshot: PUT /snapshot/load".to_owned()),
            Self::Started => Some("ask a machine for it that has not started".to_owned()),
        }
    }
}

/// What a client is told: it begins as Firecracker's clients expect
/// (FIRECRACKER_API.md, 2).
fn message(call: &Call, error: &OrderError) -> String {
    let begin = match (error, call) {
        (OrderError::NotStarted, _) => {
            "The requested operation is not supported before starting the microVM. "
        }
        (OrderError::Started, _) => {
            "The requested operation is not supported after starting the microVM. "
        }
        (_, Call::CreateSnapshot(_)) => "Create snapshot error: ",
        (_, Call::Clone(_)) => "Clone error: ",
        (_, Call::Change(change)) => change.kind().change.map_or("", |change| change.fault),
        _ => "",
    };
    format!("{begin}{}", one_line(error))
}

/// Starts clones on a thread of their own.
fn start_and_answer(clones: Clones, order: Order) {
    // Where there is no thread, the order is still here to be answered.
    let (to, from) = channel::<Order>();
    let thread = Builder::new().name("clone".to_owned()).spawn(move || {
        let Ok(order) = from.recv() else { return };
        match clones.start() {
            Ok(clones) => order.answer(Ok(Response::with(&clones))),
            Err(error) => order.fail(&error.into()),
        }
    });
    match thread {
        Ok(_) => drop(to.send(order)),
        Err(error) => order.fail(&CloneError::Thread(error).into()),
    }
}

fn obey(handle: &Handle, call: &Call) -> Result<(), OrderError> {
    match call {
        Call::SetState(WantedState::Paused) => Ok(handle.pause()?),
        Call::SetState(WantedState::Resumed) => Ok(handle.resume(Clock::default())?),
        Call::LoadSnapshot(_) => Err(OrderError::Started),
        Call::CreateSnapshot(create) => save(handle, create),
        Call::Change(change) => Ok(handle.change(change.clone())?),
        Call::Clone(_) | Call::Describe | Call::Version => Ok(()),
    }
}

fn stands_still(handle: &Handle) -> Result<(), OrderError> {
    match handle.status() {
        Lifecycle::Running => Err(OrderError::Runs),
        Lifecycle::Configured | Lifecycle::Paused | Lifecycle::Stopped => Ok(()),
    }
}

fn save(handle: &Handle, create: &CreateSnapshot) -> Result<(), OrderError> {
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
    Ok(handle.save(order).map(drop)?)
}
