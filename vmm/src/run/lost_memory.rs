//! A guest whose memory is taken away: it runs from a file that somebody has shortened, or
//! that the host cannot read any more. Its machine ends at once, before a page of zeroes
//! is taken for the guest's own.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use event_manager::{EventOps, EventSet, Events};
use kedge_devices::virtio::device::ActiveQueue;
use kedge_devices::virtio::worker::{EventLoop, LoopError, Worker};
use kedge_guest_memory::Lost;

use super::Event;

/// Waits for the first page that is found gone.
struct Watch {
    lost: Arc<Lost>,
    events: Sender<Event>,
}

/// Has `event_loop` tell a machine when its guest's memory is gone.
///
/// # Errors
/// The host has no resources for it.
pub(crate) fn watch(
    lost: &Arc<Lost>,
    event_loop: &EventLoop,
    events: &Sender<Event>,
) -> Result<(), LoopError> {
    let watch = Watch { lost: Arc::clone(lost), events: events.clone() };
    // It stays on its loop for as long as that is there.
    event_loop.start(Box::new(watch)).map(drop)
}

impl Worker for Watch {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        ops.add(Events::new(&self.lost.event(), EventSet::IN))
    }

    fn process(&mut self, _: Events, ops: &mut EventOps<'_>) {
        // Once is enough, and the event stays readable.
        let _ = ops.remove(Events::empty(&self.lost.event()));
        if let Some(address) = self.lost.first() {
            // A machine that is gone has nothing to lose.
            let _ = self.events.send(Event::MemoryLost(address));
        }
    }

    fn retire(self: Box<Self>) -> Vec<ActiveQueue> {
        Vec::new()
    }
}
