//! Where devices do their work: an event loop that owns their workers.
//!
//! A worker owns its queues outright; nothing is shared, so nothing is locked.
//! The calls here block until the loop has answered, hence must not be made on
//! the loop's own thread; a loop in turn waits for nobody.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use event_manager::{EventOps, Events, MutEventSubscriber, RemoteEndpoint, SubscriberId};
use kedge_diag::{Fix, Trouble};

use super::device::ActiveQueue;
use super::mishap::MishapListener;

/// A device at work.
pub trait Worker: Send {
    /// Registers the doorbells and whatever else the worker waits for.
    ///
    /// # Errors
    /// The host has no resources for one more; the worker is then not started.
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error>;

    /// Something registered happened. Must not wait for anything, and must
    /// return after a bounded amount of work: other devices share the loop.
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>);

    /// Takes on nothing new from now on. Whether all that it took on is finished: it is
    /// asked again until it is, or until it is to [`Worker::carry_on`].
    fn wind_down(&mut self) -> bool {
        true
    }

    /// Takes on new requests again.
    fn carry_on(&mut self) {}

    /// Finishes the requests in flight and gives the queues back.
    fn retire(self: Box<Self>) -> Vec<ActiveQueue>;
}

/// What an event loop holds: a worker, and why it could not be started.
/// (event-manager implements its trait for boxes of itself only.)
pub struct Subscriber {
    worker: Box<dyn Worker>,
    failure: Option<event_manager::Error>,
}

impl MutEventSubscriber for Subscriber {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        self.worker.process(events, ops);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        self.failure = self.worker.watch(ops).err();
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscriber")
    }
}

/// The event loop does not answer.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// It cannot be started.
    #[error("the host cannot start an event loop for the devices")]
    Start(#[from] io::Error),
    /// It is gone, or out of resources.
    #[error("the device's event loop does not take it")]
    Refused(#[from] event_manager::Error),
    /// What the device needs of the host is not to be had now.
    #[error(transparent)]
    Resource(Trouble),
    /// It is at something else, or the worker is.
    #[error("the device has not finished its requests in time")]
    Late,
}

impl Fix for LoopError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Start(_) => Some("raise the limits of the process (ulimit -a)".to_owned()),
            Self::Resource(source) => source.fix(),
            Self::Refused(_) | Self::Late => None,
        }
    }
}

/// The way to an event loop.
pub type Endpoint = RemoteEndpoint<Subscriber>;

/// A handle on an event loop that runs on another thread, or will once there is
/// something for it to do.
#[derive(Clone)]
pub struct EventLoop {
    start: Arc<dyn Fn() -> io::Result<Endpoint> + Send + Sync>,
    listener: Option<MishapListener>,
}

impl EventLoop {
    /// The handle on the loop behind `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self::on_demand(move || Ok(endpoint.clone()))
    }

    /// The handle on a loop that `start` starts when first called, and knows ever
    /// after.
    pub fn on_demand(start: impl Fn() -> io::Result<Endpoint> + Send + Sync + 'static) -> Self {
        Self { start: Arc::new(start), listener: None }
    }

    /// The same, on which `listener` hears of devices' mishaps.
    #[must_use]
    pub fn heard_by(self, listener: MishapListener) -> Self {
        Self { listener: Some(listener), ..self }
    }

    /// Who hears of mishaps, if anybody does.
    pub(crate) fn listener(&self) -> Option<&MishapListener> {
        self.listener.as_ref()
    }

    /// Hands `worker` to the loop.
    ///
    /// # Errors
    /// The loop is gone or does not start, or the host has no resources for what
    /// the worker waits for.
    pub fn start(&self, worker: Box<dyn Worker>) -> Result<Running, LoopError> {
        let event_loop = (self.start)()?;
        let id = event_loop.call_blocking(move |ops| {
            let id = ops.add_subscriber(Subscriber { worker, failure: None });
            match ops.subscriber_mut(id)?.failure.take() {
                None => Ok(id),
                Some(failure) => {
                    ops.remove_subscriber(id)?;
                    Err(failure)
                }
            }
        })?;
        Ok(Running { event_loop, id })
    }
}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventLoop")
    }
}

/// A worker on its loop.
pub struct Running {
    event_loop: Endpoint,
    id: SubscriberId,
}

impl Running {
    /// Takes the worker off its loop, by `deadline` where there is one, and retires
    /// it.
    ///
    /// # Errors
    /// The loop is gone; or it is [`LoopError::Late`], and then the worker stays
    /// where it is.
    fn stop(&self, deadline: Option<Instant>) -> Result<Vec<ActiveQueue>, LoopError> {
        loop {
            match self.take_off(deadline) {
                Ok(Some(subscriber)) => return Ok(subscriber.worker.retire()),
                // It is at something yet.
                Ok(None) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {
                    std::thread::sleep(BETWEEN_LOOKS);
                }
                Ok(None) | Err(LoopError::Late) => {
                    self.carry_on()?;
                    return Err(LoopError::Late);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn carry_on(&self) -> Result<(), LoopError> {
        let id = self.id;
        Ok(self.event_loop.fire(move |ops| {
            if let Ok(subscriber) = ops.subscriber_mut(id) {
                subscriber.worker.carry_on();
            }
        })?)
    }

    /// Takes the worker off its loop, as it is where there is no `deadline`; none where
    /// it has not finished what it took on.
    fn take_off(&self, deadline: Option<Instant>) -> Result<Option<Subscriber>, LoopError> {
        let (id, waits) = (self.id, deadline.is_some());
        let turn = Arc::new(Turn::default());
        let (answer, answered) = mpsc::channel();
        let loops_turn = Arc::clone(&turn);
        self.event_loop.fire(move |ops| {
            if !loops_turn.take() {
                return;
            }
            let finished = ops.subscriber_mut(id).map(|it| !waits || it.worker.wind_down());
            // Nobody gives up waiting once the turn is taken.
            let _ = answer.send(match finished {
                Ok(true) => ops.remove_subscriber(id).map(Some),
                Ok(false) => Ok(None),
                Err(error) => Err(error),
            });
        })?;
        let taken = match deadline {
            None => answered.recv().ok(),
            Some(deadline) => {
                match answered.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(taken) => Some(taken),
                    Err(RecvTimeoutError::Timeout) if turn.take() => return Err(LoopError::Late),
                    // The loop is at it.
                    Err(RecvTimeoutError::Timeout) => answered.recv().ok(),
                    Err(RecvTimeoutError::Disconnected) => None,
                }
            }
        };
        Ok(taken.ok_or(event_manager::Error::ChannelRecv)??)
    }
}

/// How long to wait between two looks at whether a worker has finished: what the
/// host is at takes longer, or is done at the first.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// Who goes first: the loop that takes a worker off, or whoever no longer waits
/// for it. The second leaves things as they are.
#[derive(Default)]
struct Turn(AtomicBool);

impl Turn {
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::SeqCst)
    }
}

/// Takes what runs in `slot` off its loop, by `deadline` where there is one, and
/// its queues home. There are none where nothing runs.
///
/// # Errors
/// The loop is gone; or it is [`LoopError::Late`], and then the worker runs on in
/// `slot`.
pub fn stop(
    slot: &mut Option<Running>,
    deadline: Option<Instant>,
) -> Result<Vec<ActiveQueue>, LoopError> {
    let Some(running) = slot.take() else { return Ok(Vec::new()) };
    let stopped = running.stop(deadline);
    if matches!(stopped, Err(LoopError::Late)) {
        *slot = Some(running);
    }
    stopped
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Running({:?})", self.id)
    }
}
