//! The device at work on its event loop: who rang, who calls, and who answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSet, Events};
use kedge_guest_memory::GuestMemory;
use rustix::io::Errno;
use vmm_sys_util::timerfd::TimerFd;

use super::links::{Ends, Links};
use super::packet::{HEADER_SIZE, Header};
use super::{EVENT, RECEIVE, Shelf, TRANSMIT};
use crate::virtio::device::{Activation, ActiveQueue};
use crate::virtio::ring::{Chain, Corrupt, Done, Ring};
use crate::virtio::worker::Worker;

/// Event data of others than the rings, which have their indices, and the streams.
const LISTENER: u32 = 3;
const TIMER: u32 = 4;

/// Packets, or callers, after which others on the loop have a turn.
const BATCH: usize = 64;

/// How long to wait after the host had no file descriptor for a caller.
const PAUSE: Duration = Duration::from_secs(1);

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (5.10.6.7).
const TRANSPORT_RESET: [u8; 4] = 0_u32.to_le_bytes();

/// A device whose queues the driver set up; any may be missing.
pub(super) struct VsockWorker {
    memory: GuestMemory,
    ends: Ends,
    links: Links,
    shelf: Shelf,
    receive: Option<Ring>,
    transmit: Option<Ring>,
    event: Option<Ring>,
    timer: Option<TimerFd>,
    /// When the timer rings.
    set_to: Option<Instant>,
    /// When callers are accepted again, where they are not now.
    deaf_until: Option<Instant>,
}

impl VsockWorker {
    pub(super) fn new(activation: Activation, ends: Ends, shelf: &Shelf) -> Self {
        let Activation { memory, queues, interrupt, .. } = activation;
        let [mut receive, mut transmit, mut event] = [None, None, None];
        for queue in queues {
            let place = match queue.index {
                RECEIVE => &mut receive,
                TRANSMIT => &mut transmit,
                EVENT => &mut event,
                _ => continue,
            };
            *place = Some(Ring::new(queue, Arc::clone(&interrupt)));
        }
        let mut links = std::mem::take(&mut *shelf.links());
        links.rewind(Instant::now());
        Self {
            memory,
            ends,
            links,
            shelf: shelf.clone(),
            receive,
            transmit,
            event,
            timer: None,
            set_to: None,
            deaf_until: None,
        }
    }

    /// Takes the guest's packets, up to one queue full.
    fn transmit(&mut self, ops: &mut EventOps<'_>) {
        let Self { memory, ends, links, transmit, .. } = self;
        let Some(ring) = transmit else { return };
        ring.serve(memory, |chain| {
            let Chain { head, mut readable, .. } = chain;
            if links.is_full_of_replies() {
                return Ok(Done::NotNow);
            }
            let mut bytes = [0; HEADER_SIZE];
            if readable.copy_to(&mut bytes) < HEADER_SIZE {
                return Err(Corrupt::Request { head, what: "it has no header" });
            }
            links.receive(&Header::from_bytes(&bytes), readable, ends, ops);
            Ok(Done::Used(0))
        });
    }

    /// Tells the guest what there is to tell, up to a batch.
    fn receive(&mut self, ops: &mut EventOps<'_>) {
        let was_full = self.links.is_full_of_replies();
        let Self { memory, ends, links, receive, transmit, .. } = self;
        let Some(ring) = receive else { return };
        ring.suspend(memory);
        let mut left = BATCH;
        while left > 0 && links.has_news() {
            let Some(chain) = ring.pop_or_wait(memory) else { break };
            let head = chain.head;
            if chain.writable.len() <= HEADER_SIZE {
                ring.fail(&Corrupt::Request { head, what: "it has no room for a packet" });
                break;
            }
            match links.tell(chain.writable, ends, ops) {
                Some(length) => ring.add_used(memory, head, length),
                None => ring.put_back(),
            }
            left -= 1;
        }
        ring.flush(memory);
        if left == 0 {
            ring.come_back();
        }
        if let (true, Some(transmit)) = (was_full && !links.is_full_of_replies(), transmit) {
            transmit.come_back();
        }
    }

    /// Tells the guest that its connections are gone, once.
    fn tell_of_reset(&mut self) {
        let Self { memory, links, event, .. } = self;
        let Some(ring) = event.as_mut().filter(|_| links.reset_due) else { return };
        let Some(mut chain) = ring.pop_or_wait(memory) else { return };
        if chain.writable.copy_from(&TRANSPORT_RESET) < TRANSPORT_RESET.len() {
            let what = "it has no room for an event";
            return ring.fail(&Corrupt::Request { head: chain.head, what });
        }
        links.reset_due = false;
        ring.add_used(memory, chain.head, 4);
        ring.flush(memory);
    }

    /// Accepts callers, up to a batch.
    fn accept(&mut self, ops: &mut EventOps<'_>) {
        for _ in 0..BATCH {
            match self.links.accept(&self.ends, ops) {
                Ok(()) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    // Else the loop would be told again and again of who waits.
                    tracing::warn!(%error, "the vsock device takes no more callers for now");
                    if self.listening().all(|socket| ops.remove(socket).is_ok()) {
                        self.deaf_until = Some(Instant::now() + PAUSE);
                    }
                    return;
                }
            }
        }
    }

    fn listening(&self) -> impl Iterator<Item = Events> {
        let socket = |socket| Events::with_data(socket, LISTENER, EventSet::IN);
        self.ends.listener.sockets().map(move |(_, fd)| socket(fd))
    }

    /// Looks after those who take too long.
    fn expire(&mut self, ops: &mut EventOps<'_>) {
        // Takes the tick, as reading would, but never waits for one.
        let _ = self.timer.as_mut().map(TimerFd::clear);
        self.set_to = None;
        let now = Instant::now();
        if self.deaf_until.is_some_and(|until| until <= now) {
            let again = self.listening().any(|socket| ops.add(socket).is_err());
            self.deaf_until = again.then(|| now + PAUSE);
        }
        self.links.expire(now, &self.ends, ops);
    }

    /// Has the timer ring for whoever is next.
    fn set_timer(&mut self) {
        let next = self.links.next_deadline().into_iter().chain(self.deaf_until).min();
        if next == self.set_to {
            return;
        }
        let Some(timer) = &mut self.timer else { return };
        // A timer that exists can be set. It stops when it is set to nothing.
        let _ = match next {
            None => timer.clear(),
            Some(next) => {
                let wait = next.saturating_duration_since(Instant::now());
                timer.reset(wait.max(Duration::from_millis(1)), None)
            }
        };
        self.set_to = next;
    }
}

impl Worker for VsockWorker {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        let rings = [&self.receive, &self.transmit, &self.event];
        rings.into_iter().flatten().try_for_each(|ring| ring.watch(ops))?;
        self.listening().try_for_each(|socket| ops.add(socket))?;
        let timer = TimerFd::new().map_err(event_manager::Error::Epoll)?;
        ops.add(Events::with_data(&timer, TIMER, EventSet::IN))?;
        self.timer = Some(timer);
        self.links.watch(ops)
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            LISTENER => self.accept(ops),
            TIMER => self.expire(ops),
            data if data == u32::from(TRANSMIT) => {
                self.transmit.iter().for_each(Ring::answer);
                self.transmit(ops);
            }
            data if data == u32::from(RECEIVE) => self.receive.iter().for_each(Ring::answer),
            data if data == u32::from(EVENT) => self.event.iter().for_each(Ring::answer),
            _ => self.links.ready(events.fd(), events.event_set(), &self.ends, ops),
        }
        self.tell_of_reset();
        self.receive(ops);
        self.set_timer();
    }

    fn retire(self: Box<Self>) -> Vec<ActiveQueue> {
        let Self { memory, links, shelf, receive, transmit, event, .. } = *self;
        *shelf.links() = links;
        let rings = [receive, transmit, event].into_iter().flatten();
        rings.map(|ring| ring.retire(&memory)).collect()
    }
}
