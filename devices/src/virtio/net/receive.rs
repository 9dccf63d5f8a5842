//! Frames from the tap on their way to the guest.
//!
//! A frame's length is known only once it is read, so it is read into a buffer
//! of ours and copied into as many of the guest's as it needs. The copy is cheap
//! beside the system call; without it, guest buffers for the longest frame, some
//! 40 of them, would have to be at hand for each short one.

use std::sync::Arc;

use kedge_guest_memory::GuestMemory;
use kedge_ids::u64_from;
use rustix::io::Errno;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_queue::QueueT;

use super::branch::AtWork;
use super::metrics::{NetMetrics, count, one};
use super::{LARGEST_FRAME, Shelf};
use crate::tap::{HEADER_SIZE, Tap};
use crate::virtio::device::{ActiveQueue, Interrupt};
use crate::virtio::limits::Throttle;
use crate::virtio::ring::{Chain, Corrupt, Ring, Used};

/// Frames after which others on the loop have a turn.
const BATCH: usize = 64;

/// `num_buffers` in the header (5.1.6).
const NUM_BUFFERS: std::ops::Range<usize> = 10..12;

/// What became of a frame.
enum Outcome {
    /// The guest has it.
    Delivered,
    /// The guest never will.
    Dropped,
    /// The guest has no buffers for it yet, or its ring is broken.
    Waiting,
}

/// The receive queue at work.
pub(super) struct Receiver {
    pub(super) ring: Ring,
    /// The most chains a frame may be spread over.
    most_chains: u16,
    buffer: Box<[u8]>,
    /// The bytes of the frame in `buffer` that the guest has had no room for.
    held: usize,
    /// Whether the limits have let that frame through.
    is_admitted: bool,
    /// Where that frame was before, and will be after.
    shelf: Shelf,
    /// How many frames it has given to the guest.
    frames: u64,
    metrics: Arc<NetMetrics>,
}

impl Receiver {
    pub(super) fn new(
        queue: ActiveQueue,
        interrupt: Arc<dyn Interrupt>,
        features: u64,
        shelf: Shelf,
        metrics: Arc<NetMetrics>,
    ) -> Self {
        let mergeable = features & 1 << VIRTIO_NET_F_MRG_RXBUF != 0;
        let most_chains = if mergeable { queue.queue.size() } else { 1 };
        let ring = Ring::new(queue, interrupt);
        let mut buffer = vec![0; LARGEST_FRAME].into_boxed_slice();
        let frame = std::mem::take(&mut *shelf.frame());
        let held = frame.len().min(LARGEST_FRAME);
        buffer[..held].copy_from_slice(&frame[..held]);
        Self { ring, most_chains, buffer, held, is_admitted: false, shelf, frames: 0, metrics }
    }

    /// Receives until tap and detour are empty, the guest out of buffers, or
    /// `throttle` holds it back, up to a batch.
    pub(super) fn work(
        &mut self,
        memory: &GuestMemory,
        tap: &Tap,
        throttle: &mut Throttle,
        mut branch: Option<&mut AtWork>,
    ) {
        self.ring.suspend(memory);
        for _ in 0..BATCH {
            if !self.hold_a_frame(tap, branch.as_deref_mut()) || !self.pass(throttle) {
                self.ring.flush(memory);
                return;
            }
            match self.deliver(memory) {
                Outcome::Delivered => {
                    self.frames += 1;
                    let bytes = self.held - HEADER_SIZE;
                    count(&self.metrics.rx_packets_count, &self.metrics.rx_bytes_count, bytes);
                }
                Outcome::Dropped => one(&self.metrics.rx_fails),
                Outcome::Waiting => {
                    one(&self.metrics.no_rx_avail_buffer);
                    self.ring.flush(memory);
                    return;
                }
            }
            self.held = 0;
            self.is_admitted = false;
        }
        self.ring.flush(memory);
        self.ring.come_back();
    }

    /// How many frames it has given to the guest.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// The queue again. The frame held goes to the shelf.
    pub(super) fn retire(self, memory: &GuestMemory) -> ActiveQueue {
        *self.shelf.frame() = self.buffer[..self.held].to_vec();
        self.ring.retire(memory)
    }

    /// Whether there is a frame in the buffer, after reading one if need be.
    fn hold_a_frame(&mut self, tap: &Tap, branch: Option<&mut AtWork>) -> bool {
        if self.held == 0
            && let Some(length) = branch.and_then(|branch| branch.give(&mut self.buffer))
        {
            self.held = length;
            // Limits are on what comes from the network.
            self.is_admitted = true;
        }
        while self.held == 0 {
            match rustix::io::read(tap, &mut *self.buffer) {
                // The end of what is no tap.
                Ok(0) => return false,
                Ok(length) if length < HEADER_SIZE => one(&self.metrics.rx_fails),
                Ok(length) => {
                    one(&self.metrics.rx_count);
                    self.held = length;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                // Down or gone. Nothing to do before the next event.
                Err(_) => {
                    one(&self.metrics.tap_read_fails);
                    return false;
                }
            }
        }
        true
    }

    /// Whether the limits let the frame held through; each is asked for once.
    fn pass(&mut self, throttle: &mut Throttle) -> bool {
        self.is_admitted = self.is_admitted || throttle.admits(u64_from(self.held));
        if !self.is_admitted {
            one(&self.metrics.rx_rate_limiter_throttled);
        }
        self.is_admitted
    }

    /// Gives the frame held to the guest.
    fn deliver(&mut self, memory: &GuestMemory) -> Outcome {
        let mut chains: Vec<Chain<'_>> = Vec::new();
        let mut room = 0;
        while room < self.held {
            if chains.len() >= usize::from(self.most_chains) {
                self.put_back(chains.len());
                return Outcome::Dropped;
            }
            let Some(chain) = self.ring.pop_or_wait(memory) else {
                self.put_back(chains.len());
                return Outcome::Waiting;
            };
            if chain.writable.is_empty() {
                let what = "it has no room for a frame";
                self.ring.fail(&Corrupt::Request { head: chain.head, what });
                return Outcome::Waiting;
            }
            room += chain.writable.len();
            chains.push(chain);
        }
        self.fill(memory, chains);
        Outcome::Delivered
    }

    fn put_back(&mut self, count: usize) {
        for _ in 0..count {
            self.ring.put_back();
        }
    }

    /// Copies the frame into `chains`, which have room for it, and gives all of
    /// them back at once (5.1.6.4).
    fn fill(&mut self, memory: &GuestMemory, chains: Vec<Chain<'_>>) {
        // As many as a queue has at most.
        let count = u16::try_from(chains.len()).unwrap_or(u16::MAX);
        self.buffer[NUM_BUFFERS].copy_from_slice(&count.to_le_bytes());
        let mut rest = &self.buffer[..self.held];
        let mut used = Vec::with_capacity(chains.len());
        for mut chain in chains {
            let copied = chain.writable.copy_from(rest);
            rest = &rest[copied..];
            // No longer than the buffer.
            let length = u32::try_from(copied).unwrap_or(u32::MAX);
            used.push(Used { head: chain.head, length });
        }
        self.ring.add_all_used(memory, &used);
    }
}
