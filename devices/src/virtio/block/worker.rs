//! The block device at work on its event loop: a request is done at once, or given to
//! `io_uring` and heard of again.

use std::sync::Arc;

use event_manager::{EventOps, Events};
use kedge_guest_memory::GuestMemory;
use vmm_sys_util::epoll::EventSet;

use super::disk::{Disk, Lasting, Outcome};
use super::metrics;
use super::request::{self, Operation, Request};
use super::uring::{Landed, Order, Step, Tag, Uring};
use super::{Access, Cache};
use crate::virtio::buffers::Buffers;
use crate::virtio::device::{Activation, ActiveQueue};
use crate::virtio::limits::{Limits, Throttle};
use crate::virtio::ring::{Chain, Corrupt, Done, Ring};
use crate::virtio::worker::Worker;

/// The event data of the limits; rings have their index.
const THROTTLE: u32 = u32::MAX;
/// The event data of completed requests.
const COMPLETED: u32 = u32::MAX - 1;

/// Serves the requests of one disk.
#[derive(Debug)]
pub(super) struct BlockWorker {
    memory: GuestMemory,
    rings: Vec<Ring>,
    desk: Desk,
    /// Whether it takes on nothing new.
    winds_down: bool,
}

/// What a request is done with.
#[derive(Debug)]
struct Desk {
    disk: Arc<Disk>,
    throttle: Throttle,
    /// Absent where requests are done at once.
    uring: Option<Uring>,
    /// Whether requests wait for room among those in flight.
    is_crowded: bool,
    features: u64,
}

impl BlockWorker {
    pub(super) fn new(
        activation: Activation,
        disk: Arc<Disk>,
        limits: &Limits,
        uring: Option<Uring>,
    ) -> Self {
        let Activation { memory, features, queues, interrupt, event_loop: _ } = activation;
        let rings = queues.into_iter().map(|active| Ring::new(active, Arc::clone(&interrupt)));
        let throttle = limits.throttle(THROTTLE);
        let desk = Desk { disk, throttle, uring, is_crowded: false, features };
        Self { memory, rings: rings.collect(), desk, winds_down: false }
    }

    /// Gives back what is done.
    fn reap(&mut self) {
        let Self { memory, rings, desk: Desk { disk, uring, .. }, .. } = self;
        let Some(uring) = uring else { return };
        uring.reap(disk, |landed| give_back(rings, memory, landed));
        uring.submit();
        rings.iter_mut().for_each(|ring| ring.flush(memory));
    }

    fn serve(&mut self, is_due: impl Fn(&Ring) -> bool) {
        let Self { memory, rings, desk, winds_down: false } = self else { return };
        for ring in rings.iter_mut().filter(|ring| is_due(ring)) {
            let queue = ring.index();
            ring.serve(memory, |chain| desk.take(queue, chain));
            desk.uring.iter_mut().for_each(Uring::submit);
        }
    }
}

impl Worker for BlockWorker {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        self.desk.throttle.watch(ops)?;
        if let Some(uring) = &self.desk.uring {
            ops.add(Events::with_data(uring.completed(), COMPLETED, EventSet::IN))?;
        }
        self.rings.iter().try_for_each(|ring| ring.watch(ops))
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        match events.data() {
            THROTTLE => {
                self.desk.throttle.answer();
                self.serve(|_| true);
            }
            COMPLETED => {
                self.reap();
                if std::mem::take(&mut self.desk.is_crowded) {
                    self.serve(|_| true);
                }
            }
            rung => {
                let is_rung = |ring: &Ring| u32::from(ring.index()) == rung;
                self.serve(is_rung);
            }
        }
    }

    fn wind_down(&mut self) -> bool {
        self.winds_down = true;
        self.reap();
        self.desk.uring.as_ref().is_none_or(Uring::is_idle)
    }

    fn carry_on(&mut self) {
        self.winds_down = false;
        // What rang meanwhile was not heard.
        self.rings.iter().for_each(Ring::come_back);
    }

    fn retire(self: Box<Self>) -> Vec<ActiveQueue> {
        let Self { memory, mut rings, desk: Desk { disk, uring, .. }, winds_down: _ } = *self;
        if let Some(mut uring) = uring {
            uring.finish(&disk, |landed| give_back(&mut rings, &memory, landed));
        }
        rings.into_iter().map(|ring| ring.retire(&memory)).collect()
    }
}

fn give_back(rings: &mut [Ring], memory: &GuestMemory, landed: Landed) {
    let Landed { tag: Tag { queue, head }, length } = landed;
    if let Some(ring) = rings.iter_mut().find(|ring| ring.index() == queue) {
        ring.add_used(memory, head, length);
    }
}

impl Desk {
    /// Does what `chain` asks for, or sees to it that it is done.
    fn take(&mut self, queue: u16, chain: Chain<'_>) -> Result<Done, Corrupt> {
        if self.uring.as_ref().is_some_and(Uring::is_full) {
            self.is_crowded = true;
            metrics::count(&self.disk.metrics().crowded);
            return Ok(Done::NotNow);
        }
        let tag = Tag { queue, head: chain.head };
        let mut request = request::parse(chain)?;
        if !self.throttle.admits(request.operation.bytes()) {
            metrics::count(&self.disk.metrics().throttled);
            return Ok(Done::NotNow);
        }
        let lasting = self.disk.lasting(self.features);
        if let Some(uring) = &mut self.uring {
            match order(&self.disk, request, tag, lasting) {
                Ok(order) => {
                    // There is room: it was looked for.
                    let _ = uring.take_off(order, &self.disk);
                    return Ok(Done::Later);
                }
                Err(other) => request = other,
            }
        }
        let Request { operation, mut status, room } = request;
        let Outcome { status: code, written } = self.disk.execute(operation, lasting);
        status.copy_from(&[code]);
        Ok(Done::Used(request::used(written, room)))
    }
}

/// What the kernel is to do for `request`, if it can and the driver may ask for it;
/// the request otherwise.
fn order<'m>(
    disk: &Disk,
    request: Request<'m>,
    tag: Tag,
    lasting: Lasting,
) -> Result<Order<'m>, Request<'m>> {
    let Request { operation, status, room } = request;
    let is_writable = disk.access() == Access::ReadWrite;
    let can_flush = disk.promise().cache == Cache::Writeback;
    let (step, data, offset) = match operation {
        Operation::In { sector, into } => match disk.offset(sector, &into) {
            Some(offset) => (Step::Read, into, offset),
            None => {
                let operation = Operation::In { sector, into };
                return Err(Request { operation, status, room });
            }
        },
        Operation::Out { sector, from } => match disk.offset(sector, &from) {
            Some(offset) if is_writable => (Step::Write, from, offset),
            _ => {
                let operation = Operation::Out { sector, from };
                return Err(Request { operation, status, room });
            }
        },
        Operation::Flush if can_flush => (Step::Sync, Buffers::default(), 0),
        operation => return Err(Request { operation, status, room }),
    };
    Ok(Order { tag, step, data, offset, lasting, status, room })
}
