//! The block device at work: one request after the other, on the event loop.

use std::sync::Arc;

use event_manager::{EventOps, Events};
use kedge_guest_memory::GuestMemory;

use super::disk::{Disk, Outcome};
use super::request::{self, Request};
use crate::virtio::device::{Activation, ActiveQueue};
use crate::virtio::ring::{Chain, Corrupt, Done, Ring};
use crate::virtio::worker::Worker;

/// Serves the requests of one disk.
#[derive(Debug)]
pub(super) struct BlockWorker {
    memory: GuestMemory,
    rings: Vec<Ring>,
    disk: Arc<Disk>,
}

impl BlockWorker {
    pub(super) fn new(activation: Activation, disk: Arc<Disk>) -> Self {
        let Activation { memory, queues, interrupt, .. } = activation;
        let rings = queues.into_iter().map(|active| Ring::new(active, Arc::clone(&interrupt)));
        Self { memory, rings: rings.collect(), disk }
    }
}

impl Worker for BlockWorker {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        self.rings.iter().try_for_each(|ring| ring.watch(ops))
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        let rung = self.rings.iter_mut().filter(|ring| u32::from(ring.index()) == events.data());
        for ring in rung {
            ring.answer();
            ring.serve(&self.memory, |chain| handle(chain, &self.disk));
        }
    }

    fn retire(self: Box<Self>) -> Vec<ActiveQueue> {
        let Self { memory, rings, .. } = *self;
        rings.into_iter().map(|ring| ring.retire(&memory)).collect()
    }
}

fn handle(chain: Chain<'_>, disk: &Disk) -> Result<Done, Corrupt> {
    let Request { operation, mut status, room } = request::parse(chain)?;
    let Outcome { status: code, written } = disk.execute(operation);
    status.copy_from(&[code]);
    // The status is behind all else: it only counts as written from the start
    // where all else was.
    let length = if written == room { room.saturating_add(1) } else { written };
    Ok(Done::Used(u32::try_from(length).unwrap_or(u32::MAX)))
}
