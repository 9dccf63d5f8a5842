//! Virtio network card (Virtio 1.2, 5.1): a queue of buffers to receive into and
//! a queue of frames to send, between a guest and a tap.
//!
//! Frames go as they are: the header before each is virtio-net's own on both
//! sides, so checksums and segmentation left undone by the guest are the host
//! kernel's work, and the other way round where the guest agreed to it.

mod config;
mod metrics;
mod receive;
mod transmit;
mod worker;

use std::fmt;
use std::sync::Arc;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MTU,
};

use super::device::{Activation, ActiveQueue, DeviceId, VirtioDevice};
use super::worker::{LoopError, Running};
use crate::tap::{HEADER_SIZE, Offloads, Tap};
pub use config::{KIND, MacAddress, NetConfig};
pub use metrics::NetMetrics;
use worker::NetWorker;

/// The queues' indices (5.1.2).
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// The largest size of each queue.
const QUEUE_SIZES: [u16; 2] = [256, 256];

/// The longest frame either way, with its header: an IP packet of 64 KiB behind
/// an Ethernet header with two VLAN tags, rounded up to pages.
const LARGEST_FRAME: usize = 17 * 4096;

const _: () = assert!(LARGEST_FRAME >= HEADER_SIZE + 14 + 2 * 4 + 0x1_0000);

/// Features of every card. Segmentation needs checksums (5.1.3.1), which is for
/// the driver to heed.
const FEATURES: u64 = 1 << VIRTIO_NET_F_CSUM
    | 1 << VIRTIO_NET_F_GUEST_CSUM
    | 1 << VIRTIO_NET_F_GUEST_TSO4
    | 1 << VIRTIO_NET_F_GUEST_TSO6
    | 1 << VIRTIO_NET_F_HOST_TSO4
    | 1 << VIRTIO_NET_F_HOST_TSO6
    | 1 << VIRTIO_NET_F_MRG_RXBUF;

/// Fields of the configuration space (5.1.4).
mod field {
    use std::ops::Range;

    pub(super) const MAC: Range<usize> = 0..6;
    pub(super) const MTU: Range<usize> = 10..12;
    /// The bytes up to the last field we have.
    pub(super) const END: usize = 12;
}

/// A network card.
pub struct Net {
    tap: Arc<Tap>,
    features: u64,
    space: [u8; field::END],
    metrics: Arc<NetMetrics>,
    running: Option<Running>,
}

impl Net {
    /// A card on `tap`. Without a MAC address the driver finds one itself;
    /// without an MTU it takes 1500.
    pub fn new(tap: Tap, mac: Option<MacAddress>, mtu: Option<u16>) -> Self {
        let mut features = FEATURES;
        let mut space = [0; field::END];
        if let Some(mac) = mac {
            features |= 1 << VIRTIO_NET_F_MAC;
            space[field::MAC].copy_from_slice(&mac.octets());
        }
        if let Some(mtu) = mtu {
            features |= 1 << VIRTIO_NET_F_MTU;
            space[field::MTU].copy_from_slice(&mtu.to_le_bytes());
        }
        Self { tap: Arc::new(tap), features, space, metrics: Arc::default(), running: None }
    }

    /// What the card has done so far.
    pub fn metrics(&self) -> &Arc<NetMetrics> {
        &self.metrics
    }
}

/// What the tap may leave to a driver that accepted `features`.
fn offloads(features: u64) -> Offloads {
    let agreed = [
        (VIRTIO_NET_F_GUEST_CSUM, Offloads::CSUM),
        (VIRTIO_NET_F_GUEST_TSO4, Offloads::TSO4),
        (VIRTIO_NET_F_GUEST_TSO6, Offloads::TSO6),
    ];
    agreed
        .iter()
        .filter(|(bit, _)| features & 1 << bit != 0)
        .fold(Offloads::NONE, |all, &(_, offload)| all.and(offload))
}

impl VirtioDevice for Net {
    fn device_id(&self) -> DeviceId {
        DeviceId::Net
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let fields = usize::try_from(offset).ok().and_then(|offset| self.space.get(offset..));
        for (byte, field) in data.iter_mut().zip(fields.unwrap_or_default()) {
            *byte = *field;
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), LoopError> {
        let offloads = offloads(activation.features);
        if let Err(error) = self.tap.set_offloads(offloads) {
            // The host then does the work before it hands frames over.
            tracing::debug!(%error, ?offloads, "the tap keeps its offloads");
        }
        let event_loop = activation.event_loop.clone();
        let worker = NetWorker::new(activation, Arc::clone(&self.tap), &self.metrics);
        self.running = Some(event_loop.start(Box::new(worker))?);
        Ok(())
    }

    fn deactivate(&mut self) -> Result<Vec<ActiveQueue>, LoopError> {
        self.running.take().map_or_else(|| Ok(Vec::new()), Running::stop)
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("tap", &self.tap).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
