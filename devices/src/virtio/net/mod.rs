//! Virtio network card (Virtio 1.2, 5.1): a queue of buffers to receive into and
//! a queue of frames to send, between a guest and a tap; or several such pairs,
//! each with a queue of the tap, and a queue for what the driver has to say.
//!
//! Frames go as they are: the header before each is virtio-net's own on both
//! sides, so checksums and segmentation left undone by the guest are the host
//! kernel's work, and the other way round where the guest agreed to it. What a
//! guest is offered depends on no host: what an older kernel's tap does not do
//! with what guests send is done here.

mod branch;
mod cable;
mod config;
mod control;
mod kernel;
mod mac;
mod metrics;
mod receive;
mod restore;
pub mod saved;
mod segment;
mod steering;
mod syscalls;
mod transmit;
mod user;
mod worker;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kedge_diag::Trouble;
use kedge_metrics::Counters;
use kedge_saved_state::{Bytes, Part};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
};

use super::change::{Change, Changed};
use super::detour::Detour;
use super::device::{Activation, ActiveQueue, DeviceId, VirtioDevice};
use super::limits::{Limits, RateLimiter};
use super::vhost::BackEnd;
use super::worker::{LoopError, Running, stop};
use crate::tap::{HEADER_SIZE, Offloads, Tap};
use branch::Branch;
pub use cable::{Cable, TapSource};
use config::Patch;
pub use config::{KIND, NetConfig};
use kernel::Carrier;
pub use kernel::NotByKernel;
pub use mac::{MacAddress, NotAMacAddress};
pub use metrics::NetMetrics;
use metrics::one;
pub use restore::UnpromisedMac;
use saved::{NetV1, PairsV1};
use steering::Steering;
use worker::{Layout, NetWorker};

/// The largest size of each queue of frames.
const QUEUE_SIZE: u16 = 256;
/// The largest size of the control queue: a driver waits for each answer.
const CONTROL_SIZE: u16 = 64;

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
    | 1 << VIRTIO_NET_F_GUEST_USO4
    | 1 << VIRTIO_NET_F_GUEST_USO6
    | 1 << VIRTIO_NET_F_HOST_USO
    | 1 << VIRTIO_NET_F_MRG_RXBUF;

/// Features of a card with several pairs of queues.
const SEVERAL: u64 = 1 << VIRTIO_NET_F_MQ | 1 << VIRTIO_NET_F_CTRL_VQ;

/// Fields of the configuration space (5.1.4).
mod field {
    use std::ops::Range;

    pub(super) const MAC: Range<usize> = 0..6;
    pub(super) const PAIRS: Range<usize> = 8..10;
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

impl Identity {
    /// The features that say so.
    fn features(self) -> u64 {
        u64::from(self.mac.is_some()) << VIRTIO_NET_F_MAC
            | u64::from(self.mtu.is_some()) << VIRTIO_NET_F_MTU
    }

    /// Loads from `struct virtio_net_config` (5.1.4) of a card with so many pairs of queues,
    /// up to the last field that we have.
    fn load(self, pairs: u16, offset: u64, data: &mut [u8]) {
        let mut space = [0; field::END];
        if let Some(mac) = self.mac {
            space[field::MAC].copy_from_slice(&mac.octets());
        }
        if pairs > 1 {
            space[field::PAIRS].copy_from_slice(&pairs.to_le_bytes());
        }
        if let Some(mtu) = self.mtu {
            space[field::MTU].copy_from_slice(&mtu.to_le_bytes());
        }
        let fields = usize::try_from(offset).ok().and_then(|offset| space.get(offset..));
        for (byte, field) in data.iter_mut().zip(fields.unwrap_or_default()) {
            *byte = *field;
        }
    }
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

/// What a card is at work as well as at rest.
#[derive(Clone)]
struct Card {
    steering: Arc<Steering>,
    /// The address that frames should come from.
    mac: Option<MacAddress>,
    limits: BothWays,
    /// How often its driver may give commands.
    commands: Limits,
    metrics: Arc<NetMetrics>,
}

/// How fast a card may go, all its pairs of queues together: in bytes with
/// headers, and in frames.
#[derive(Clone, Debug, Default)]
struct BothWays {
    /// What the guest receives.
    rx: Limits,
    /// What it sends.
    tx: Limits,
}

/// A network card.
pub struct Net {
    id: String,
    steering: Arc<Steering>,
    identity: Identity,
    /// One for each pair of queues.
    shelves: Vec<Shelf>,
    queue_sizes: Vec<u16>,
    limits: BothWays,
    /// Over all drivers it ever has.
    commands: Limits,
    branch: Option<Arc<Branch>>,
    /// Who carries frames where it is not this process.
    carrier: Option<Carrier>,
    metrics: Arc<NetMetrics>,
    running: Option<Running>,
}

impl Net {
    /// The card called `id` on the queues of a tap, at least one, with a pair of
    /// queues for each. Without a MAC address the driver finds one itself; without
    /// an MTU it takes 1500.
    pub fn new(id: &str, taps: Vec<Tap>, mac: Option<MacAddress>, mtu: Option<u16>) -> Self {
        let shelves = taps.iter().map(|_| Shelf::default()).collect();
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * taps.len()];
        if taps.len() > 1 {
            queue_sizes.push(CONTROL_SIZE);
        }
        let card = Self {
            id: id.to_owned(),
            steering: Arc::new(Steering::new(taps)),
            identity: Identity { mac, mtu },
            shelves,
            queue_sizes,
            limits: BothWays::default(),
            commands: Limits::new(control::COMMANDS),
            branch: None,
            carrier: None,
            metrics: Arc::default(),
            running: None,
        };
        card.steer();
        card
    }

    /// The same card, which gives its guest and takes from it no more than these
    /// limits let through.
    #[must_use]
    pub fn limited(mut self, rx: RateLimiter, tx: RateLimiter) -> Self {
        self.limits = BothWays { rx: Limits::new(rx), tx: Limits::new(tx) };
        self
    }

    /// The same card, whose frames `kernel` carries between its queues and the tap.
    #[must_use]
    pub(in crate::virtio) fn carried_by(mut self, kernel: Box<dyn BackEnd>) -> Self {
        self.carrier = Some(Carrier::new(kernel));
        self
    }

    /// Has the kernel use the tap's queues that the driver does.
    fn steer(&self) {
        if let Err(error) = self.steering.apply() {
            // Frames may then wait in a queue that nobody reads.
            tracing::warn!(%error, card = self.id, "the tap's queues are not attached as they should be");
        }
    }

    /// Puts the queues of `activation` to work.
    fn start(&mut self, mut activation: Activation) -> Result<(), LoopError> {
        let layout = Layout::new(activation.features, self.steering.pairs());
        let name = self.name();
        if let Some(carrier) = &mut self.carrier {
            activation = carrier.begin(activation, layout, name)?;
        }
        let event_loop = activation.event_loop.clone();
        let card = Card {
            steering: Arc::clone(&self.steering),
            mac: self.identity.mac,
            limits: self.limits.clone(),
            commands: self.commands.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        let worker = NetWorker::new(activation, card, &self.shelves);
        let started = worker.with_branch(self.branch.clone());
        match started.and_then(|worker| event_loop.start(Box::new(worker))) {
            Ok(running) => self.running = Some(running),
            Err(error) => {
                // Nobody would take the queues from it.
                let _ = self.carrier.as_mut().map(|carrier| carrier.end(None));
                return Err(error);
            }
        }
        Ok(())
    }

    fn has_several(&self) -> bool {
        self.steering.pairs() > 1
    }

    /// What the card has done so far.
    pub fn metrics(&self) -> &Arc<NetMetrics> {
        &self.metrics
    }
}

/// What the tap may leave to a driver that accepted `features`, if it `knows_uso`.
fn offloads(features: u64, knows_uso: bool) -> Offloads {
    let has = |feature: u32| features & 1 << feature != 0;
    if !has(VIRTIO_NET_F_GUEST_CSUM) {
        // The others need it (5.1.3.1): a tap would refuse them, and keep those of the
        // driver before.
        return Offloads::NONE;
    }
    // The kernel has one only with the other.
    let uso = knows_uso && has(VIRTIO_NET_F_GUEST_USO4) && has(VIRTIO_NET_F_GUEST_USO6);
    let agreed = [
        (has(VIRTIO_NET_F_GUEST_TSO4), Offloads::TSO4),
        (has(VIRTIO_NET_F_GUEST_TSO6), Offloads::TSO6),
        (uso, Offloads::USO),
    ];
    let agreed = agreed.into_iter().filter(|(agreed, _)| *agreed);
    agreed.fold(Offloads::CSUM, |all, (_, offload)| all.and(offload))
}

impl VirtioDevice for Net {
    fn device_id(&self) -> DeviceId {
        DeviceId::Net
    }

    fn name(&self) -> String {
        format!("network interface `{}`", self.id)
    }

    fn features(&self) -> u64 {
        let of_frames = self.carrier.as_ref().map_or(FEATURES, |it| it.features(FEATURES));
        of_frames | if self.has_several() { SEVERAL } else { 0 } | self.identity.features()
    }

    fn bears(&self) -> u64 {
        self.carrier.as_ref().map_or(u64::MAX, Carrier::bears)
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.identity.load(self.steering.pairs(), offset, data);
    }

    fn counters(&self) -> Option<(&'static str, Arc<dyn Counters>)> {
        Some(("net", Arc::<NetMetrics>::clone(&self.metrics)))
    }

    fn set_detour(&mut self, detour: Box<dyn Detour>) -> Result<(), Trouble> {
        if self.carrier.is_some() {
            return Err(Trouble::new(NotByKernel::Detour));
        }
        self.branch = Some(Arc::new(Branch::new(detour)));
        Ok(())
    }

    fn activate(&mut self, activation: Activation) -> Result<(), LoopError> {
        if let Some(tap) = self.steering.tap(0) {
            let offloads = offloads(activation.features, tap.knows_uso());
            if let Err(error) = tap.set_offloads(offloads) {
                // The host then does the work before it hands frames over.
                tracing::debug!(%error, ?offloads, "the tap keeps its offloads");
            }
        }
        self.steer();
        let started = self.start(activation);
        started.inspect_err(|_| one(&self.metrics.activate_fails))
    }

    fn deactivate(&mut self, deadline: Option<Instant>) -> Result<Vec<ActiveQueue>, LoopError> {
        // First who may be late: the kernel is not.
        let mut queues = stop(&mut self.running, deadline)?;
        if let Some(carrier) = &mut self.carrier {
            queues.extend(carrier.end(deadline)?);
        }
        Ok(queues)
    }

    fn change(&mut self, change: &Change) -> Result<Changed, Trouble> {
        let Patch { rx_rate_limiter, tx_rate_limiter, .. } = change.read()?;
        if self.carrier.is_some() && (rx_rate_limiter.is_some() || tx_rate_limiter.is_some()) {
            return Err(Trouble::new(NotByKernel::Limits));
        }
        let BothWays { rx, tx } = &self.limits;
        for (limits, change) in [(rx, rx_rate_limiter), (tx, tx_rate_limiter)] {
            if let Some(change) = change {
                limits.change(change);
            }
        }
        Ok(Changed::Unseen)
    }

    /// Frames on the shelves are lost, as on a cable pulled; the driver that comes
    /// uses one pair until it says otherwise.
    fn reset(&mut self) {
        for shelf in &self.shelves {
            let lost = u64::from(!std::mem::take(&mut *shelf.frame()).is_empty());
            self.metrics.rx_fails.fetch_add(lost, Ordering::Relaxed);
        }
        self.steering.remember(1);
        self.steer();
    }

    fn save(&self) -> Part {
        let Identity { mac, mtu } = self.identity;
        let mut frames = self.shelves.iter().map(|shelf| Bytes(shelf.frame().clone()));
        let frame = frames.next().unwrap_or(Bytes(Vec::new()));
        let in_use = self.steering.in_use();
        let pairs = self.has_several().then(|| PairsV1 { in_use, frames: frames.collect() });
        let (rx_limits, tx_limits) = (self.limits.rx.save(), self.limits.tx.save());
        let mac = mac.map(MacAddress::octets);
        Part::of(&NetV1 { mac, mtu, frame, pairs, rx_limits, tx_limits })
    }

    fn restore(&mut self, saved: &Part) -> Result<(), Trouble> {
        let saved: NetV1 = saved.read().map_err(Trouble::new)?;
        self.identity = restore::identity(&self.identity, &saved)?;
        let in_use = restore::in_use(&saved, self.steering.pairs())?;
        self.steering.remember(in_use);
        self.limits.rx.restore(saved.rx_limits.as_ref());
        self.limits.tx.restore(saved.tx_limits.as_ref());
        let others = saved.pairs.into_iter().flat_map(|pairs| pairs.frames);
        for (shelf, frame) in self.shelves.iter().zip([saved.frame].into_iter().chain(others)) {
            if self.carrier.is_none() {
                *shelf.frame() = frame.0;
            } else {
                // Nobody would hand it over.
                let lost = u64::from(!frame.0.is_empty());
                self.metrics.rx_fails.fetch_add(lost, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("steering", &self.steering).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod branch_tests;
#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod pairs_tests;
#[cfg(test)]
mod restore_tests;
#[cfg(test)]
mod tests;
