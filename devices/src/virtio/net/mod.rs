//! Virtio network card (Virtio 1.2, 5.1): a queue of buffers to receive into and
//! a queue of frames to send, between a guest and a tap.
//!
//! Frames go as they are: the header before each is virtio-net's own on both
//! sides, so checksums and segmentation left undone by the guest are the host
//! kernel's work, and the other way round where the guest agreed to it.

mod branch;
mod config;
mod metrics;
mod receive;
mod restore;
pub mod saved;
mod transmit;
mod worker;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kedge_diag::Trouble;
use kedge_metrics::Counters;
use kedge_saved_state::{Bytes, Part};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MTU,
};

use super::detour::Detour;
use super::device::{Activation, ActiveQueue, DeviceId, VirtioDevice};
use super::worker::{LoopError, Running, stop};
use crate::tap::{HEADER_SIZE, Offloads, Tap};
use branch::Branch;
pub use config::{KIND, MacAddress, NetConfig};
pub use metrics::NetMetrics;
pub use restore::UnpromisedMac;
use saved::NetV1;
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

/// Who a card is to its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    mac: Option<MacAddress>,
    mtu: Option<u16>,
}

/// Where a frame waits that was read from the tap and that the guest has no room
/// for, while no worker is there.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<u8>>>);

impl Shelf {
    fn frame(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A network card.
pub struct Net {
    id: String,
    tap: Arc<Tap>,
    identity: Identity,
    shelf: Shelf,
    branch: Option<Arc<Branch>>,
    metrics: Arc<NetMetrics>,
    running: Option<Running>,
}

impl Net {
    /// The card called `id`, on `tap`. Without a MAC address the driver finds one
    /// itself; without an MTU it takes 1500.
    pub fn new(id: &str, tap: Tap, mac: Option<MacAddress>, mtu: Option<u16>) -> Self {
        Self {
            id: id.to_owned(),
            tap: Arc::new(tap),
            identity: Identity { mac, mtu },
            shelf: Shelf::default(),
            branch: None,
            metrics: Arc::default(),
            running: None,
        }
    }

    /// `struct virtio_net_config` (5.1.4), up to the last field that we have.
    fn space(&self) -> [u8; field::END] {
        let mut space = [0; field::END];
        if let Some(mac) = self.identity.mac {
            space[field::MAC].copy_from_slice(&mac.octets());
        }
        if let Some(mtu) = self.identity.mtu {
            space[field::MTU].copy_from_slice(&mtu.to_le_bytes());
        }
        space
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

    fn name(&self) -> String {
        format!("network interface `{}`", self.id)
    }

    fn features(&self) -> u64 {
        let Identity { mac, mtu } = self.identity;
        FEATURES
            | u64::from(mac.is_some()) << VIRTIO_NET_F_MAC
            | u64::from(mtu.is_some()) << VIRTIO_NET_F_MTU
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let space = self.space();
        let fields = usize::try_from(offset).ok().and_then(|offset| space.get(offset..));
        for (byte, field) in data.iter_mut().zip(fields.unwrap_or_default()) {
            *byte = *field;
        }
    }

    fn counters(&self) -> Option<(&'static str, Arc<dyn Counters>)> {
        Some(("net", Arc::<NetMetrics>::clone(&self.metrics)))
    }

    fn set_detour(&mut self, detour: Box<dyn Detour>) {
        self.branch = Some(Arc::new(Branch::new(detour)));
    }

    fn activate(&mut self, activation: Activation) -> Result<(), LoopError> {
        let offloads = offloads(activation.features);
        if let Err(error) = self.tap.set_offloads(offloads) {
            // The host then does the work before it hands frames over.
            tracing::debug!(%error, ?offloads, "the tap keeps its offloads");
        }
        let event_loop = activation.event_loop.clone();
        let worker = NetWorker::new(activation, Arc::clone(&self.tap), &self.shelf, &self.metrics)
            .with_branch(self.branch.clone())?;
        self.running = Some(event_loop.start(Box::new(worker))?);
        Ok(())
    }

    fn deactivate(&mut self, deadline: Option<Instant>) -> Result<Vec<ActiveQueue>, LoopError> {
        stop(&mut self.running, deadline)
    }

    /// The frame on the shelf is lost, as on a cable pulled.
    fn reset(&mut self) {
        let lost = u64::from(!std::mem::take(&mut *self.shelf.frame()).is_empty());
        self.metrics.receive_dropped.fetch_add(lost, Ordering::Relaxed);
    }

    fn save(&self) -> Part {
        let Identity { mac, mtu } = self.identity;
        let frame = Bytes(self.shelf.frame().clone());
        Part::of(&NetV1 { mac: mac.map(MacAddress::octets), mtu, frame })
    }

    fn restore(&mut self, saved: &Part) -> Result<(), Trouble> {
        let saved: NetV1 = saved.read().map_err(Trouble::new)?;
        self.identity = restore::identity(&self.identity, &saved)?;
        *self.shelf.frame() = saved.frame.0;
        Ok(())
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("tap", &self.tap).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod branch_tests;
#[cfg(test)]
mod restore_tests;
#[cfg(test)]
mod tests;
