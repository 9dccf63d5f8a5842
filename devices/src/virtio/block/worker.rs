//! The block device at work: one request after the other, on the event loop.

use std::sync::Arc;

use event_manager::{EventOps, Events};
use kedge_guest_memory::GuestMemory;

use super::disk::{Disk, Outcome};
use super::request::{self, Request};
use crate::virtio::device::{Activation, ActiveQueue};
use crate::virtio::limits::{Limits, Throttle};
use crate::virtio::ring::{Chain, Corrupt, Done, Ring};
use crate::virtio::worker::Worker;

/// The event data of the limits; rings have their index.
const THROTTLE: u32 = u32::MAX;

/// Serves the requests of one disk.
#[derive(Debug)]
pub(super) struct BlockWorker {
    memory: GuestMemory,
    rings: Vec<Ring>,
    disk: Arc<Disk>,
    throttle: Throttle,
}

impl BlockWorker {
    pub(super) fn new(activation: Activation, disk: Arc<Disk>, limits: &Limits) -> Self {
        let Activation { memory, queues, interrupt, .. } = activation;
        let rings = queues.into_iter().map(|active| Ring::new(active, Arc::clone(&interrupt)));
        Self { memory, rings: rings.collect(), disk, throttle: limits.throttle(THROTTLE) }
    }
}

impl Worker for BlockWorker {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        self.throttle.watch(ops)?;
        self.rings.iter().try_for_each(|ring| ring.watch(ops))
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        let Self { memory, rings, disk, throttle } = self;
        let is_due = events.data() == THROTTLE;
        if is_due {
            throttle.answer();
        }
        for ring in rings {
            let is_rung = u32::from(ring.index()) == events.data();
            if is_rung {
                ring.answer();
            }
            if is_rung || is_due {
                ring.serve(memory, |chain| handle(chain, disk, throttle));
            }
        }
    }

    fn retire(self: Box<Self>) -> Vec<ActiveQueue> {
        let Self { memory, rings, disk: _, throttle: _ } = *self;
        rings.into_iter().map(|ring| ring.retire(&memory)).collect()
    }
}

fn handle(chain: Chain<'_>, disk: &Disk, throttle: &mut Throttle) -> Result<Done, Corrupt> {
    let Request { operation, mut status, room } = request::parse(chain)?;
    if !throttle.admits(operation.bytes()) {
        return Ok(Done::NotNow);
    }
    let Outcome { status: code, written } = disk.execute(operation);
    status.copy_from(&[code]);
    // The status is behind all else: it only counts as written from the start
    // where all else was.
    let length = if written == room { room.saturating_add(1) } else { written };
    Ok(Done::Used(u32::try_from(length).unwrap_or(u32::MAX)))
}
