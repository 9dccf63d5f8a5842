//! The control queue (Virtio 1.2, 5.1.6.5): what a driver says to its card, and
//! the card's answer of one byte.
//!
//! A card has one if it has several pairs of queues, for the driver to say how
//! many it uses. Filters of addresses it has none: what a tap's bridge floods
//! reaches the guest, whose own kernel sorts it out.

use std::sync::Arc;

use kedge_guest_memory::GuestMemory;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};

use super::metrics::{NetMetrics, one};
use crate::virtio::device::{ActiveQueue, Interrupt};
use crate::virtio::limits::{RateLimiter, Throttle, TokenBucket};
use crate::virtio::ring::{Chain, Corrupt, Ring};

/// The bytes of the longest command: class, command and a number of pairs.
const LONGEST: usize = 4;

/// How often a driver may give commands: to attach queues and detach them takes the
/// host's whole network stack a while, and no guest may have it at nothing else.
pub(super) const COMMANDS: RateLimiter = RateLimiter {
    bandwidth: None,
    ops: Some(TokenBucket { size: 64, refill_time: 1000, one_time_burst: None }),
};

/// What a driver's commands are about.
pub(super) trait Pairs: Send + Sync {
    /// How many pairs of queues there are, at least one.
    fn count(&self) -> u16;

    /// Has frames go by the first `count` pairs, of which there are as many, and by no
    /// others. Whether they do: else all is as it was.
    fn use_first(&self, count: u16) -> bool;
}

/// The control queue at work.
pub(super) struct Controller {
    pub(super) ring: Ring,
    pub(super) throttle: Throttle,
    pairs: Arc<dyn Pairs>,
    metrics: Arc<NetMetrics>,
}

impl Controller {
    pub(super) fn new(
        (queue, interrupt): (ActiveQueue, Arc<dyn Interrupt>),
        throttle: Throttle,
        pairs: Arc<dyn Pairs>,
        metrics: Arc<NetMetrics>,
    ) -> Self {
        Self { ring: Ring::new(queue, interrupt), throttle, pairs, metrics }
    }

    /// Obeys one command: it may have the host's network stack wait, and others on
    /// the loop have a turn before the next.
    pub(super) fn work(&mut self, memory: &GuestMemory) {
        if let Some(chain) = self.ring.pop_or_wait(memory) {
            let head = chain.head;
            if !self.throttle.admits(0) {
                self.ring.put_back();
                return self.ring.flush(memory);
            }
            one(&self.metrics.control_count);
            match self.answer(chain) {
                Ok(length) => self.ring.add_used(memory, head, length),
                Err(corrupt) => self.ring.fail(&corrupt),
            }
            self.ring.come_back();
        }
        self.ring.flush(memory);
    }

    /// Obeys the command in `chain` or says that it cannot. The bytes written.
    fn answer(&self, chain: Chain<'_>) -> Result<u32, Corrupt> {
        let Chain { head, mut readable, mut writable } = chain;
        if writable.is_empty() {
            return Err(Corrupt::Request { head, what: "it has no room for an answer" });
        }
        let length = readable.len();
        let mut command = [0; LONGEST];
        let copied = readable.copy_to(&mut command);
        let obeyed = length == copied && obey(&command[..copied], self.pairs.as_ref());
        if !obeyed {
            one(&self.metrics.control_fails);
        }
        let ack = if obeyed { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
        // Zero or one.
        writable.copy_from(&[u8::try_from(ack).unwrap_or(u8::MAX)]);
        Ok(1)
    }
}

/// Whether the command is one we know, makes sense, and is obeyed.
fn obey(command: &[u8], pairs: &dyn Pairs) -> bool {
    let &[class, what, low, high] = command else { return false };
    let pairs_set = (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET);
    if (u32::from(class), u32::from(what)) != pairs_set {
        return false;
    }
    let count = u16::from_le_bytes([low, high]);
    (1..=pairs.count()).contains(&count) && pairs.use_first(count)
}
