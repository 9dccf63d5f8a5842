//! The back end's interrupts on their way to the driver: a transport has more to do for one
//! than to raise a wire. And the back end's end.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use event_manager::{EventOps, Events};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::alarm::Alarm;
use crate::virtio::device::ActiveQueue;
use crate::virtio::worker::Worker;

/// The event data of the connection. Rings have their index, and [`BROKEN`] with it for
/// their errors.
const ENDED: u32 = u32::MAX;
const BROKEN: u32 = 1 << 16;

/// What a ring of a back end says.
pub(super) struct Ears {
    pub(super) index: u16,
    /// Rung where buffers were used.
    pub(super) call: EventFd,
    /// Rung where the ring is broken.
    pub(super) error: EventFd,
}

/// Listens to a back end.
pub(super) struct CallWorker {
    pub(super) ears: Vec<Ears>,
    pub(super) connection: Option<UnixStream>,
    pub(super) alarm: Arc<Alarm>,
}

impl Worker for CallWorker {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        for Ears { index, call, error } in &self.ears {
            let index = u32::from(*index);
            ops.add(Events::with_data(call, index, EventSet::IN))?;
            ops.add(Events::with_data(error, BROKEN | index, EventSet::IN))?;
        }
        if let Some(connection) = &self.connection {
            // What it sends is read by who asked for it.
            let ends = EventSet::HANG_UP | EventSet::READ_HANG_UP;
            ops.add(Events::with_data(connection, ENDED, ends))?;
        }
        Ok(())
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if events.data() == ENDED {
            // It stays so: once is enough.
            let _ = ops.remove(events);
            return self.alarm.raise(&"its back end has ended");
        }
        let is_meant = |ears: &&Ears| u32::from(ears.index) == events.data() & !BROKEN;
        let Some(ears) = self.ears.iter().find(is_meant) else { return };
        if events.data() & BROKEN == 0 {
            // It only fails where nobody rang.
            let _ = ears.call.read();
            self.alarm.interrupt.used(ears.index);
        } else {
            let _ = ears.error.read();
            let index = ears.index;
            let why = format_args!("queue {index}: its back end cannot make sense of it");
            self.alarm.interrupt.needs_reset(&why);
        }
    }

    fn retire(self: Box<Self>) -> Vec<ActiveQueue> {
        // They are the back end's.
        Vec::new()
    }
}
