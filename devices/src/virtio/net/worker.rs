//! The card at work on its event loop: who rang, and who answers.

use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events};
use kedge_guest_memory::GuestMemory;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ};

use super::branch::{AtWork, Branch};
use super::control::Controller;
use super::metrics::one;
use super::receive::Receiver;
use super::steering::Steering;
use super::transmit::{Outgoing, Transmitter};
use super::{Card, Shelf};
use crate::virtio::device::{Activation, ActiveQueue, Interrupt};
use crate::virtio::limits::Throttle;
use crate::virtio::ring::Ring;
use crate::virtio::worker::{LoopError, Worker};

/// The event data of the first pair's queue of the tap; the rings have their
/// indices.
const TAPS: u32 = 1 << 16;
/// The event data of the limits.
const RX_LIMITS: u32 = u32::MAX;
const TX_LIMITS: u32 = u32::MAX - 1;
/// That of the detour's timer.
const DUE: u32 = u32::MAX - 2;
/// That of the limit on commands.
pub(super) const COMMANDS: u32 = u32::MAX - 3;
/// The pair to which a detour says everything, whichever asked: it is always in use, and
/// what is said stays in order.
const FIRST: usize = 0;

/// What a queue is for (5.1.2), where the driver accepted what it accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Receives, of this pair.
    Receive(usize),
    /// Sends, of this pair.
    Transmit(usize),
    /// Is told what to do.
    Control,
}

/// How the driver sees the card's queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// The pairs of queues.
    pairs: u16,
    /// The index of the control queue, where there is one.
    control: Option<u16>,
}

impl Layout {
    /// For a driver that accepted `features` of a card with `most` pairs. Without
    /// several pairs, the control queue follows the first.
    pub(super) fn new(features: u64, most: u16) -> Self {
        let has = |feature: u32| features & 1 << feature != 0;
        let pairs = if has(VIRTIO_NET_F_MQ) { most } else { 1 };
        Self { pairs, control: has(VIRTIO_NET_F_CTRL_VQ).then_some(2 * pairs) }
    }

    /// Whether frames come and go by the queue `index`.
    pub(super) fn is_of_frames(self, index: u16) -> bool {
        matches!(self.role(index), Some(Role::Receive(_) | Role::Transmit(_)))
    }

    pub(super) fn role(self, index: u16) -> Option<Role> {
        if self.control == Some(index) {
            return Some(Role::Control);
        }
        let pair = index / 2;
        let role = if index.is_multiple_of(2) { Role::Receive } else { Role::Transmit };
        (pair < self.pairs).then(|| role(pair.into()))
    }
}

/// A pair of queues that the driver set up; either may be missing.
#[derive(Default)]
struct Pair {
    receiver: Option<Receiver>,
    transmitter: Option<Transmitter>,
}

/// A card whose queues the driver set up.
pub(super) struct NetWorker {
    memory: GuestMemory,
    card: Card,
    layout: Layout,
    pairs: Vec<Pair>,
    controller: Option<Controller>,
    /// For all pairs together.
    rx_throttle: Throttle,
    tx_throttle: Throttle,
    branch: Option<AtWork>,
}

impl NetWorker {
    /// `card`, in which the frames on `shelves` wait, one shelf a pair.
    pub(super) fn new(activation: Activation, card: Card, shelves: &[Shelf]) -> Self {
        let Activation { memory, features, queues, interrupt, event_loop: _ } = activation;
        let layout = Layout::new(features, card.steering.pairs());
        let pairs = (0..layout.pairs).map(|_| Pair::default()).collect();
        let rx_throttle = card.limits.rx.throttle(RX_LIMITS);
        let tx_throttle = card.limits.tx.throttle(TX_LIMITS);
        let (controller, branch) = (None, None);
        let mut worker =
            Self { memory, card, layout, pairs, controller, rx_throttle, tx_throttle, branch };
        for queue in queues {
            worker.take(queue, features, &interrupt, shelves);
        }
        worker
    }

    /// With somebody beside the tap.
    ///
    /// # Errors
    /// The host has no timer for it.
    pub(super) fn with_branch(self, branch: Option<Arc<Branch>>) -> Result<Self, LoopError> {
        Ok(Self { branch: branch.map(Branch::work).transpose()?, ..self })
    }

    /// Puts a queue to its work; one that has none stays as it is.
    fn take(
        &mut self,
        queue: ActiveQueue,
        features: u64,
        interrupt: &Arc<dyn Interrupt>,
        shelves: &[Shelf],
    ) {
        let Self { card, layout, pairs, controller, .. } = self;
        let Card { steering, metrics, mac, .. } = &*card;
        let interrupt = Arc::clone(interrupt);
        match layout.role(queue.index) {
            Some(Role::Receive(index)) => {
                if let (Some(pair), Some(shelf)) = (pairs.get_mut(index), shelves.get(index)) {
                    let (shelf, metrics) = (shelf.clone(), Arc::clone(metrics));
                    pair.receiver = Some(Receiver::new(queue, interrupt, features, shelf, metrics));
                }
            }
            Some(Role::Transmit(index)) => {
                if let (Some(pair), Some(tap)) = (pairs.get_mut(index), steering.tap(index)) {
                    let outgoing = Outgoing::new(features, tap, *mac, Arc::clone(metrics));
                    pair.transmitter = Some(Transmitter::new(queue, interrupt, outgoing));
                }
            }
            Some(Role::Control) => {
                let throttle = card.commands.throttle(COMMANDS);
                let pairs = Arc::<Steering>::clone(steering);
                let metrics = Arc::clone(metrics);
                *controller = Some(Controller::new((queue, interrupt), throttle, pairs, metrics));
            }
            None => {}
        }
    }

    fn receive(&mut self, index: usize) {
        let Self { memory, card, pairs, rx_throttle, branch, .. } = self;
        let receiver = pairs.get_mut(index).and_then(|pair| pair.receiver.as_mut());
        if let (Some(receiver), Some(tap)) = (receiver, card.steering.tap(index)) {
            let branch = branch.as_mut().filter(|_| index == FIRST);
            receiver.work(memory, tap, rx_throttle, branch);
        }
        if let Some(branch) = branch {
            branch.set_timer();
        }
    }

    fn transmit(&mut self, index: usize) {
        let Self { memory, card, pairs, tx_throttle, branch, .. } = self;
        let transmitter = pairs.get_mut(index).and_then(|pair| pair.transmitter.as_mut());
        if let (Some(transmitter), Some(tap)) = (transmitter, card.steering.tap(index)) {
            transmitter.work(memory, tap, tx_throttle, branch.as_mut());
        }
        // It may have been asked something.
        if self.branch.as_mut().is_some_and(AtWork::was_asked) {
            self.receive(FIRST);
        }
    }

    /// The ring with this index.
    fn ring(&self, role: Role) -> Option<&Ring> {
        let Self { pairs, controller, .. } = self;
        match role {
            Role::Receive(index) => pairs.get(index)?.receiver.as_ref().map(|it| &it.ring),
            Role::Transmit(index) => pairs.get(index)?.transmitter.as_ref().map(|it| &it.ring),
            Role::Control => controller.as_ref().map(|it| &it.ring),
        }
    }

    fn rung(&mut self, role: Role) {
        if let Some(ring) = self.ring(role) {
            ring.answer();
        }
        match role {
            Role::Receive(index) => {
                one(&self.card.metrics.rx_queue_event_count);
                self.receive(index);
            }
            Role::Transmit(index) => {
                one(&self.card.metrics.tx_queue_event_count);
                self.transmit(index);
            }
            Role::Control => {
                if let Some(controller) = &mut self.controller {
                    controller.work(&self.memory);
                }
            }
        }
    }
}

impl Worker for NetWorker {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        self.rx_throttle.watch(ops)?;
        self.tx_throttle.watch(ops)?;
        if let Some(branch) = &mut self.branch {
            let edges = EventSet::IN | EventSet::EDGE_TRIGGERED;
            ops.add(Events::with_data(branch.timer(), DUE, edges))?;
            branch.set_timer();
        }
        let taps = self.card.steering.taps();
        for ((data, pair), tap) in (TAPS..).zip(&self.pairs).zip(taps) {
            if let Some(receiver) = &pair.receiver {
                receiver.ring.watch(ops)?;
                // By edges: a tap with frames for which the guest has no buffers
                // would keep the loop busy. The receive queue's doorbell says when
                // to go on.
                let edges = EventSet::IN | EventSet::EDGE_TRIGGERED;
                ops.add(Events::with_data(tap, data, edges))?;
            }
            if let Some(transmitter) = &pair.transmitter {
                transmitter.ring.watch(ops)?;
            }
        }
        if let Some(controller) = &mut self.controller {
            controller.throttle.watch(ops)?;
            controller.ring.watch(ops)?;
        }
        Ok(())
    }

    fn process(&mut self, events: Events, _: &mut EventOps<'_>) {
        let metrics = &self.card.metrics;
        match events.data() {
            RX_LIMITS => {
                one(&metrics.rx_event_rate_limiter_count);
                self.rx_throttle.answer();
                (0..self.pairs.len()).for_each(|index| self.receive(index));
            }
            TX_LIMITS => {
                one(&metrics.tx_rate_limiter_event_count);
                self.tx_throttle.answer();
                (0..self.pairs.len()).for_each(|index| self.transmit(index));
            }
            DUE => self.receive(FIRST),
            COMMANDS => {
                if let Some(controller) = &mut self.controller {
                    controller.throttle.answer();
                    controller.work(&self.memory);
                }
            }
            data => match data.checked_sub(TAPS) {
                Some(pair) => {
                    one(&metrics.rx_tap_event_count);
                    self.receive(usize::try_from(pair).unwrap_or(usize::MAX));
                }
                None => {
                    let role = u16::try_from(data).ok().and_then(|index| self.layout.role(index));
                    if let Some(role) = role {
                        self.rung(role);
                    }
                }
            },
        }
    }

    fn retire(self: Box<Self>) -> Vec<ActiveQueue> {
        let Self { memory, pairs, controller, .. } = *self;
        let mut queues = Vec::new();
        for (number, Pair { receiver, transmitter }) in pairs.into_iter().enumerate() {
            let received = receiver.as_ref().map_or(0, Receiver::frames);
            let sent = transmitter.as_ref().map_or(0, Transmitter::frames);
            tracing::debug!("network queue pair {number}: {received} frames received, {sent} sent");
            queues.extend(receiver.map(|receiver| receiver.retire(&memory)));
            queues.extend(transmitter.map(|transmitter| transmitter.ring.retire(&memory)));
        }
        queues.extend(controller.map(|controller| controller.ring.retire(&memory)));
        queues
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_queue_follows_the_pairs_that_the_driver_knows_of() {
        let (several, control) = (1 << VIRTIO_NET_F_MQ, 1 << VIRTIO_NET_F_CTRL_VQ);
        let roles = |features| {
            let layout = Layout::new(features, 3);
            (0..8).map(|index| layout.role(index)).collect::<Vec<_>>()
        };
        let first = [Some(Role::Receive(0)), Some(Role::Transmit(0))];
        assert_eq!(roles(0), [&first[..], &[None; 6]].concat());
        assert_eq!(roles(control), [&first[..], &[Some(Role::Control)], &[None; 5]].concat());
        let others = [1, 2].map(|pair| [Some(Role::Receive(pair)), Some(Role::Transmit(pair))]);
        let all = [&first[..], &others.concat(), &[Some(Role::Control), None]].concat();
        assert_eq!(roles(several | control), all);
    }
}
