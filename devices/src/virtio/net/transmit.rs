//! The guest's frames on their way to the tap: one system call each, straight
//! from the guest's memory.

use std::sync::Arc;

use kedge_guest_memory::GuestMemory;

use super::LARGEST_FRAME;
use super::branch::AtWork;
use super::metrics::{NetMetrics, count, drop_one};
use crate::tap::{HEADER_SIZE, Tap};
use crate::virtio::buffers::Buffers;
use crate::virtio::device::{ActiveQueue, Interrupt};
use crate::virtio::ring::{Corrupt, Done, Ring};

/// The transmit queue at work.
pub(super) struct Transmitter {
    pub(super) ring: Ring,
    metrics: Arc<NetMetrics>,
}

impl Transmitter {
    pub(super) fn new(
        queue: ActiveQueue,
        interrupt: Arc<dyn Interrupt>,
        metrics: Arc<NetMetrics>,
    ) -> Self {
        Self { ring: Ring::new(queue, interrupt), metrics }
    }

    /// Sends what is available, up to one queue full.
    pub(super) fn work(
        &mut self,
        memory: &GuestMemory,
        tap: &Tap,
        mut branch: Option<&mut AtWork>,
    ) {
        let Self { ring, metrics } = self;
        ring.serve(memory, |chain| {
            if chain.readable.len() < HEADER_SIZE {
                return Err(Corrupt::Request { head: chain.head, what: "it has no header" });
            }
            let frame = &chain.readable;
            if !branch.as_mut().is_some_and(|branch| branch.takes(frame)) {
                send(frame, tap, metrics);
            }
            Ok(Done::Used(0))
        });
    }
}

/// Sends a frame or drops it: a network may, and a guest whose tap is full or
/// down must not wait for it.
fn send(frame: &Buffers<'_>, tap: &Tap, metrics: &NetMetrics) {
    let fits = frame.len() <= LARGEST_FRAME;
    if fits && frame.write_to(tap).is_ok() {
        count(&metrics.sent, &metrics.sent_bytes, frame.len() - HEADER_SIZE);
    } else {
        drop_one(&metrics.send_dropped);
    }
}
