//! A card whose frames the host's kernel carries (vhost-net) between its queues and the tap:
//! kedge sees none of them. What the driver says over the control queue, kedge hears all the
//! same.

use std::fmt;
use std::time::Instant;

use kedge_diag::Fix;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MRG_RXBUF,
};

use super::worker::Layout;
use crate::virtio::device::{Activation, ActiveQueue};
use crate::virtio::vhost::{AtWork, BackEnd, lend, take_home};
use crate::virtio::worker::LoopError;

/// What of a card's features is for the kernel to have: the others are the tap's.
const OF_THE_KERNEL: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
/// What taps of Linux before 6.2 do not do, and what nobody does for them where kedge does not
/// see the frames. A card has them on no host, so that it can move to any.
const OF_LATER_TAPS: u64 =
    1 << VIRTIO_NET_F_HOST_USO | 1 << VIRTIO_NET_F_GUEST_USO4 | 1 << VIRTIO_NET_F_GUEST_USO6;

/// Something that takes frames to pass through kedge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotByKernel {
    /// Limits.
    #[error("the card has no limits: the host's kernel carries its frames (`vhost`)")]
    Limits,
    /// The metadata service, or another that is beside the network.
    #[error("the card has no metadata service: the host's kernel carries its frames (`vhost`)")]
    Detour,
}

impl Fix for NotByKernel {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Limits => {
                "leave `vhost` out, or shape the tap's traffic on the host (tc)".to_owned()
            }
            Self::Detour => "leave `vhost` out, or give the service to another card".to_owned(),
        })
    }
}

/// The kernel, and the queues that it has.
pub(super) struct Carrier {
    // Declared first: what it works on is there until it has ended.
    back_end: Box<dyn BackEnd>,
    at_work: Option<AtWork>,
}

impl Carrier {
    pub(super) fn new(back_end: Box<dyn BackEnd>) -> Self {
        Self { back_end, at_work: None }
    }

    /// Of the features of a card, those that it has where this carries its frames.
    pub(super) fn features(&self, all: u64) -> u64 {
        all & !OF_LATER_TAPS & (self.back_end.features() | !OF_THE_KERNEL)
    }

    /// Of the transport's features, those that the kernel has, too.
    pub(super) fn bears(&self) -> u64 {
        self.back_end.features()
    }

    /// Begins to carry frames of `card`, "network interface `eth0`". What is left of
    /// `activation` is kedge's.
    ///
    /// # Errors
    /// The kernel does not, or the host is out of resources.
    pub(super) fn begin(
        &mut self,
        activation: Activation,
        layout: Layout,
        card: String,
    ) -> Result<Activation, LoopError> {
        let Activation { memory, features, queues, interrupt, event_loop } = activation;
        let (of_frames, others) =
            queues.into_iter().partition(|queue| layout.is_of_frames(queue.index));
        let rest = Activation {
            memory: memory.clone(),
            features,
            queues: others,
            interrupt: interrupt.clone(),
            event_loop: event_loop.clone(),
        };
        let lent = Activation { memory, features, queues: of_frames, interrupt, event_loop };
        self.at_work = Some(lend(self.back_end.as_mut(), lent, card)?);
        Ok(rest)
    }

    /// Has the kernel leave the queues alone. There are none where it has none.
    ///
    /// # Errors
    /// The event loop is gone.
    pub(super) fn end(&mut self, deadline: Option<Instant>) -> Result<Vec<ActiveQueue>, LoopError> {
        take_home(&mut self.at_work, self.back_end.as_mut(), deadline)
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier").field("at_work", &self.at_work).finish_non_exhaustive()
    }
}
