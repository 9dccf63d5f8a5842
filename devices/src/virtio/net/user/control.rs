//! What the driver of a card says whose frames another process carries: kedge hears it, and
//! tells the back end which queues are in use.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_manager::{EventOps, Events};
use kedge_guest_memory::GuestMemory;

use super::super::control::{Controller, Pairs};
use super::super::metrics::NetMetrics;
use super::super::worker::COMMANDS;
use crate::virtio::device::{ActiveQueue, Interrupt};
use crate::virtio::limits::Throttle;
use crate::virtio::vhost::{BackEnd, BackEndError, Session, UserBackEnd};
use crate::virtio::worker::Worker;

/// The pairs of queues that a back end carries frames by.
pub(super) struct CarriedPairs {
    back_end: Mutex<UserBackEnd>,
    most: u16,
    in_use: AtomicU16,
}

impl CarriedPairs {
    /// As many as `most`, of which the first is in use.
    pub(super) fn new(back_end: UserBackEnd, most: u16) -> Self {
        let pairs = Self { back_end: Mutex::new(back_end), most, in_use: AtomicU16::new(1) };
        pairs.remember(1);
        pairs
    }

    /// How many there are.
    pub(super) fn most(&self) -> u16 {
        self.most
    }

    /// How many of them are in use.
    pub(super) fn in_use(&self) -> u16 {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Remembers that the first `count` are to be in use once the back end has them, which it
    /// has not.
    pub(super) fn remember(&self, count: u16) {
        self.in_use.store(count, Ordering::Relaxed);
        // Nothing is said to it.
        let _ = self.talk().enable(2 * count);
    }

    /// Tells the back end the largest packet.
    ///
    /// # Errors
    /// It does not take it.
    pub(super) fn set_mtu(&self, mtu: u16) -> Result<(), BackEndError> {
        self.talk().set_mtu(mtu)
    }

    /// The back end, to be asked for something at a time.
    pub(super) fn back_end(&self) -> InTurns<'_> {
        InTurns(self)
    }

    fn talk(&self) -> MutexGuard<'_, UserBackEnd> {
        self.back_end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pairs for CarriedPairs {
    fn count(&self) -> u16 {
        self.most
    }

    /// The loop waits for the back end, which is given up where it has no answer in time.
    fn use_first(&self, count: u16) -> bool {
        if let Err(error) = self.talk().enable(2 * count) {
            tracing::debug!(%error, count, "the back end does not use so many pairs of queues");
            return false;
        }
        self.in_use.store(count, Ordering::Relaxed);
        true
    }
}

/// A back end that two threads ask: the one that gives it its queues and takes them home, and
/// the one on which the driver says which of them are in use.
pub(super) struct InTurns<'a>(&'a CarriedPairs);

impl BackEnd for InTurns<'_> {
    fn features(&self) -> u64 {
        self.0.talk().features()
    }

    fn begin(&mut self, session: &Session<'_>) -> Result<(), BackEndError> {
        self.0.talk().begin(session)
    }

    fn go_on(&mut self, session: &Session<'_>) -> Result<(), BackEndError> {
        self.0.talk().go_on(session)
    }

    fn stop(&mut self, queues: &[u16]) -> Result<Vec<u32>, BackEndError> {
        self.0.talk().stop(queues)
    }

    fn connection(&self) -> Result<Option<UnixStream>, BackEndError> {
        self.0.talk().connection()
    }
}

/// The control queue on its event loop.
pub(super) struct ControlWorker {
    memory: GuestMemory,
    controller: Controller,
}

impl ControlWorker {
    /// For a queue and the way to its driver.
    pub(super) fn new(
        driver: (ActiveQueue, Arc<dyn Interrupt>),
        memory: GuestMemory,
        throttle: Throttle,
        (pairs, metrics): (Arc<CarriedPairs>, Arc<NetMetrics>),
    ) -> Self {
        let controller = Controller::new(driver, throttle, pairs, metrics);
        Self { memory, controller }
    }
}

impl Worker for ControlWorker {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        self.controller.throttle.watch(ops)?;
        self.controller.ring.watch(ops)
    }

    fn process(&mut self, events: Events, _: &mut EventOps<'_>) {
        if events.data() == COMMANDS {
            self.controller.throttle.answer();
        } else {
            self.controller.ring.answer();
        }
        self.controller.work(&self.memory);
    }

    fn retire(self: Box<Self>) -> Vec<ActiveQueue> {
        vec![self.controller.ring.retire(&self.memory)]
    }
}
