//! The card at work on its event loop: who rang, and who answers.

use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events};
use kedge_guest_memory::GuestMemory;

use super::branch::{AtWork, Branch};
use super::metrics::NetMetrics;
use super::receive::Receiver;
use super::transmit::Transmitter;
use super::{RECEIVE, Shelf, TRANSMIT};
use crate::tap::Tap;
use crate::virtio::device::{Activation, ActiveQueue};
use crate::virtio::worker::{LoopError, Worker};

/// The tap's event data; the rings have their indices.
const TAP: u32 = 2;
/// That of the detour's timer.
const DUE: u32 = 3;

/// A card whose queues the driver set up; either may be missing.
pub(super) struct NetWorker {
    memory: GuestMemory,
    tap: Arc<Tap>,
    receiver: Option<Receiver>,
    transmitter: Option<Transmitter>,
    branch: Option<AtWork>,
}

impl NetWorker {
    pub(super) fn new(
        activation: Activation,
        tap: Arc<Tap>,
        shelf: &Shelf,
        metrics: &Arc<NetMetrics>,
    ) -> Self {
        let Activation { memory, features, queues, interrupt, event_loop: _ } = activation;
        let (mut receiver, mut transmitter) = (None, None);
        for queue in queues {
            let interrupt = Arc::clone(&interrupt);
            let metrics = Arc::clone(metrics);
            match queue.index {
                RECEIVE => {
                    let shelf = shelf.clone();
                    receiver = Some(Receiver::new(queue, interrupt, features, shelf, metrics));
                }
                TRANSMIT => transmitter = Some(Transmitter::new(queue, interrupt, metrics)),
                _ => {}
            }
        }
        Self { memory, tap, receiver, transmitter, branch: None }
    }

    /// With somebody beside the tap.
    ///
    /// # Errors
    /// The host has no timer for it.
    pub(super) fn with_branch(self, branch: Option<Arc<Branch>>) -> Result<Self, LoopError> {
        Ok(Self { branch: branch.map(Branch::work).transpose()?, ..self })
    }

    fn receive(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            receiver.work(&self.memory, &self.tap, self.branch.as_mut());
        }
        if let Some(branch) = &mut self.branch {
            branch.set_timer();
        }
    }

    fn transmit(&mut self) {
        if let Some(transmitter) = &mut self.transmitter {
            transmitter.work(&self.memory, &self.tap, self.branch.as_mut());
        }
        // It may have been asked something.
        if self.branch.as_mut().is_some_and(AtWork::was_asked) {
            self.receive();
        }
    }
}

impl Worker for NetWorker {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        if let Some(receiver) = &self.receiver {
            receiver.ring.watch(ops)?;
            // By edges: a tap with frames for which the guest has no buffers
            // would keep the loop busy. The receive queue's doorbell says when to
            // go on.
            let edges = EventSet::IN | EventSet::EDGE_TRIGGERED;
            ops.add(Events::with_data(&*self.tap, TAP, edges))?;
            if let Some(branch) = &mut self.branch {
                ops.add(Events::with_data(branch.timer(), DUE, edges))?;
                branch.set_timer();
            }
        }
        if let Some(transmitter) = &self.transmitter {
            transmitter.ring.watch(ops)?;
            // What was made available before there was a worker.
            transmitter.ring.come_back();
        }
        Ok(())
    }

    fn process(&mut self, events: Events, _: &mut EventOps<'_>) {
        match events.data() {
            TAP | DUE => self.receive(),
            index if index == u32::from(RECEIVE) => {
                if let Some(receiver) = &self.receiver {
                    receiver.ring.answer();
                }
                self.receive();
            }
            _ => {
                if let Some(transmitter) = &self.transmitter {
                    transmitter.ring.answer();
                }
                self.transmit();
            }
        }
    }

    fn retire(self: Box<Self>) -> Vec<ActiveQueue> {
        let Self { memory, tap: _, receiver, transmitter, branch: _ } = *self;
        let receiver = receiver.map(|receiver| receiver.retire(&memory));
        let transmitter = transmitter.map(|transmitter| transmitter.ring.retire(&memory));
        receiver.into_iter().chain(transmitter).collect()
    }
}
