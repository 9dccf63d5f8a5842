//! The guest's frames on their way to the tap: one system call each, straight
//! from the guest's memory.

use std::sync::Arc;

use kedge_guest_memory::GuestMemory;
use kedge_ids::u64_from;
use kedge_metrics::Moment;
use virtio_bindings::virtio_net::VIRTIO_NET_F_HOST_USO;

use super::branch::AtWork;
use super::mac::MacAddress;
use super::metrics::{NetMetrics, count, one};
use super::{LARGEST_FRAME, segment};
use crate::tap::{HEADER_SIZE, Tap};
use crate::virtio::buffers::Buffers;
use crate::virtio::device::{ActiveQueue, Interrupt};
use crate::virtio::limits::Throttle;
use crate::virtio::ring::{Corrupt, Done, Ring};

/// A header, and the two addresses at the start of a frame.
const START: usize = HEADER_SIZE + 12;

/// How a frame leaves.
#[derive(Clone, Copy)]
enum Fate {
    Whole,
    /// In pieces.
    Cut,
}

/// What becomes of the frames of a card, whatever their queue.
#[derive(Clone)]
pub(super) struct Outgoing {
    /// Whether the guest leaves datagrams to be cut that the tap would not.
    cuts: bool,
    /// The card's address, where it was given one.
    mac: Option<MacAddress>,
    metrics: Arc<NetMetrics>,
}

impl Outgoing {
    /// For a card with the address `mac` on a tap like `tap`, whose driver accepted
    /// `features`.
    pub(super) fn new(
        features: u64,
        tap: &Tap,
        mac: Option<MacAddress>,
        metrics: Arc<NetMetrics>,
    ) -> Self {
        let cuts = features & 1 << VIRTIO_NET_F_HOST_USO != 0 && !tap.knows_uso();
        Self { cuts, mac, metrics }
    }

    /// Sends a frame or drops it: a network may, and a guest whose tap is full or
    /// down must not wait for it.
    fn send(&self, frame: &Buffers<'_>, tap: &Tap) {
        let metrics = &self.metrics;
        if frame.len() > LARGEST_FRAME {
            one(&metrics.tx_malformed_frames);
            return one(&metrics.tx_fails);
        }
        let is_sent = match self.look_at(frame) {
            Fate::Whole => self.pass(frame, tap),
            Fate::Cut => self.cut(frame, tap),
        };
        if is_sent {
            let bytes = frame.len() - HEADER_SIZE;
            count(&metrics.tx_packets_count, &metrics.tx_bytes_count, bytes);
        } else {
            one(&metrics.tx_fails);
        }
    }

    /// What is to be done with a frame. Counts a sender's address that is not the
    /// card's.
    fn look_at(&self, frame: &Buffers<'_>) -> Fate {
        let mut start = [0; START];
        let is_of_interest = self.cuts || self.mac.is_some();
        if !is_of_interest || frame.peek(&mut start) < START {
            return Fate::Whole;
        }
        let (header, addresses) = start.split_at(HEADER_SIZE);
        if self.mac.is_some_and(|mac| addresses[6..] != mac.octets()) {
            one(&self.metrics.tx_spoofed_mac_count);
        }
        if self.cuts && segment::is_for_us(header) { Fate::Cut } else { Fate::Whole }
    }

    /// Hands the frame to the tap as it is. Whether the tap took it.
    fn pass(&self, frame: &Buffers<'_>, tap: &Tap) -> bool {
        self.count_write(|| frame.write_to(tap).is_ok())
    }

    /// Hands the frame to the tap in pieces. Whether the tap took any.
    fn cut(&self, frame: &Buffers<'_>, tap: &Tap) -> bool {
        let mut whole = vec![0; frame.len()];
        frame.peek(&mut whole);
        let mut any = false;
        let cut = segment::cut(&whole, |piece| {
            any |= self.count_write(|| rustix::io::write(tap, piece).is_ok());
        });
        if cut.is_none() {
            one(&self.metrics.tx_malformed_frames);
        }
        any
    }

    fn count_write(&self, write: impl FnOnce() -> bool) -> bool {
        let began = Moment::now();
        let written = write();
        self.metrics.tap_write.record(began.elapsed());
        let counter = if written { &self.metrics.tx_count } else { &self.metrics.tap_write_fails };
        one(counter);
        written
    }
}

/// A transmit queue at work.
pub(super) struct Transmitter {
    pub(super) ring: Ring,
    outgoing: Outgoing,
    /// How many frames it has taken from the guest.
    frames: u64,
}

impl Transmitter {
    pub(super) fn new(
        queue: ActiveQueue,
        interrupt: Arc<dyn Interrupt>,
        outgoing: Outgoing,
    ) -> Self {
        Self { ring: Ring::new(queue, interrupt), outgoing, frames: 0 }
    }

    /// How many frames it has taken from the guest.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// Sends what is available and what `throttle` lets through, up to one queue
    /// full.
    pub(super) fn work(
        &mut self,
        memory: &GuestMemory,
        tap: &Tap,
        throttle: &mut Throttle,
        mut branch: Option<&mut AtWork>,
    ) {
        let Self { ring, outgoing, frames } = self;
        let metrics = &outgoing.metrics;
        let mut is_idle = true;
        ring.serve(memory, |chain| {
            is_idle = false;
            if chain.readable.len() < HEADER_SIZE {
                return Err(Corrupt::Request { head: chain.head, what: "it has no header" });
            }
            let frame = &chain.readable;
            if branch.as_mut().is_some_and(|branch| branch.takes(frame)) {
                return Ok(Done::Used(0));
            }
            if !throttle.admits(u64_from(frame.len())) {
                one(&metrics.tx_rate_limiter_throttled);
                one(&metrics.tx_remaining_reqs_count);
                return Ok(Done::NotNow);
            }
            *frames += 1;
            outgoing.send(frame, tap);
            Ok(Done::Used(0))
        });
        if is_idle {
            one(&metrics.no_tx_avail_buffer);
        }
    }
}
