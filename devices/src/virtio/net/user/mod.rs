//! A network card whose frames another process carries: a vhost-user back end such as
//! `passt`. The guest is offered what the back end has, as far as kedge knows it; who the
//! card is, and which of its queues are in use, kedge says itself.

mod control;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use kedge_diag::{Fix, Trouble};
use kedge_saved_state::{Bytes, Part};
use vhost::vhost_user::VhostUserProtocolFeatures;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_HOST_ECN};

use super::metrics::NetMetrics;
use super::saved::{NetV1, PairsV1};
use super::worker::{COMMANDS, Layout, Role};
use super::{CONTROL_SIZE, FEATURES, Identity, QUEUE_SIZE, SEVERAL, restore};
use crate::virtio::change::{Change, Changed};
use crate::virtio::detour::Detour;
use crate::virtio::device::{Activation, ActiveQueue, DeviceId, VirtioDevice};
use crate::virtio::limits::Limits;
use crate::virtio::vhost::{AtWork, BackEnd, BackEndError, Needs, UserBackEnd, lend, take_home};
use crate::virtio::worker::{LoopError, Running, stop};
use control::{CarriedPairs, ControlWorker};

/// The features of a card that a back end may offer the guest. The others need something of
/// kedge, or a command over the control queue that it does not pass on.
const OF_FRAMES: u64 = FEATURES | 1 << VIRTIO_NET_F_GUEST_ECN | 1 << VIRTIO_NET_F_HOST_ECN;

/// Why there is no such card.
#[derive(Debug, thiserror::Error)]
#[error("network interface `{id}` has no back end")]
pub(super) struct NoBackEnd {
    pub(super) id: String,
    pub(super) source: BackEndError,
}

impl Fix for NoBackEnd {
    fn fix(&self) -> Option<String> {
        self.source.fix()
    }
}

/// Something that takes frames to pass through kedge.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NotCarried {
    /// A limit.
    #[error("`{0}` does not go with `socket`: another process carries the card's frames")]
    Limit(&'static str),
    /// The metadata service.
    #[error(
        "network interface `{0}` has no metadata service: another process carries its frames \
         (`socket`)"
    )]
    Detour(String),
}

impl Fix for NotCarried {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Limit(field) => format!("leave `{field}` out, or tell the back end"),
            Self::Detour(_) => "give the service to a card on a tap".to_owned(),
        })
    }
}

/// The device.
pub(super) struct UserNet {
    id: String,
    pairs: Arc<CarriedPairs>,
    /// Those of frames, and of the back end.
    features: u64,
    bears: u64,
    identity: Identity,
    queue_sizes: Vec<u16>,
    /// How often its drivers may give commands, all together.
    commands: Limits,
    metrics: Arc<NetMetrics>,
    at_work: Option<AtWork>,
    control: Option<Running>,
}

impl UserNet {
    /// The card called `id` with so many `pairs` of queues, whose back end listens at
    /// `socket`.
    ///
    /// # Errors
    /// The back end is not there, or not one for such a card.
    pub(super) fn open(
        id: &str,
        socket: &Path,
        pairs: u16,
        identity: Identity,
    ) -> Result<Self, BackEndError> {
        let protocol = VhostUserProtocolFeatures::empty();
        let needs = Needs { queues: 2 * pairs, count: pairs, protocol };
        let mut back_end = UserBackEnd::connect(socket, needs)?;
        if let Some(mtu) = identity.mtu {
            back_end.set_mtu(mtu)?;
        }
        let bears = back_end.features();
        let mut queue_sizes = vec![QUEUE_SIZE; usize::from(2 * pairs)];
        if pairs > 1 {
            queue_sizes.push(CONTROL_SIZE);
        }
        Ok(Self {
            id: id.to_owned(),
            pairs: Arc::new(CarriedPairs::new(back_end, pairs)),
            features: bears & OF_FRAMES,
            bears,
            identity,
            queue_sizes,
            commands: Limits::new(super::control::COMMANDS),
            metrics: Arc::default(),
            at_work: None,
            control: None,
        })
    }

    fn has_several(&self) -> bool {
        self.pairs.most() > 1
    }
}

impl VirtioDevice for UserNet {
    fn device_id(&self) -> DeviceId {
        DeviceId::Net
    }

    fn name(&self) -> String {
        format!("network interface `{}`", self.id)
    }

    fn features(&self) -> u64 {
        let several = if self.has_several() { SEVERAL } else { 0 };
        self.features | several | self.identity.features()
    }

    fn bears(&self) -> u64 {
        self.bears
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.identity.load(self.pairs.most(), offset, data);
    }

    fn set_detour(&mut self, _detour: Box<dyn Detour>) -> Result<(), Trouble> {
        Err(Trouble::new(NotCarried::Detour(self.id.clone())))
    }

    fn activate(&mut self, activation: Activation) -> Result<(), LoopError> {
        let name = self.name();
        let Activation { memory, features, queues, interrupt, event_loop } = activation;
        let layout = Layout::new(features, self.pairs.most());
        let (mut of_frames, mut control) = (Vec::new(), None);
        for queue in queues {
            match layout.role(queue.index) {
                Some(Role::Receive(_) | Role::Transmit(_)) => of_frames.push(queue),
                Some(Role::Control) => control = Some(queue),
                None => {}
            }
        }
        let worker = control.map(|queue| {
            let throttle = self.commands.throttle(COMMANDS);
            let about = (Arc::<CarriedPairs>::clone(&self.pairs), Arc::clone(&self.metrics));
            ControlWorker::new((queue, Arc::clone(&interrupt)), memory.clone(), throttle, about)
        });
        let others = event_loop.clone();
        let lent = Activation { memory, features, queues: of_frames, interrupt, event_loop };
        self.at_work = Some(lend(&mut self.pairs.back_end(), lent, name)?);
        match worker.map(|worker| others.start(Box::new(worker))).transpose() {
            Ok(control) => self.control = control,
            Err(error) => {
                // Nobody would take the queues from it.
                let _ = take_home(&mut self.at_work, &mut self.pairs.back_end(), None);
                return Err(error);
            }
        }
        Ok(())
    }

    fn deactivate(&mut self, deadline: Option<Instant>) -> Result<Vec<ActiveQueue>, LoopError> {
        let mut queues = take_home(&mut self.at_work, &mut self.pairs.back_end(), deadline)?;
        // A command takes no longer than its answer from the back end.
        queues.extend(stop(&mut self.control, None)?);
        Ok(queues)
    }

    fn change(&mut self, change: &Change) -> Result<Changed, Trouble> {
        let super::Patch { rx_rate_limiter, tx_rate_limiter, .. } = change.read()?;
        let fields = [
            ("rx_rate_limiter", rx_rate_limiter.is_some()),
            ("tx_rate_limiter", tx_rate_limiter.is_some()),
        ];
        match fields.into_iter().find(|(_, is_given)| *is_given) {
            Some((field, _)) => Err(Trouble::new(NotCarried::Limit(field))),
            None => Ok(Changed::Unseen),
        }
    }

    /// The driver that comes uses one pair until it says otherwise.
    fn reset(&mut self) {
        self.pairs.remember(1);
    }

    /// As a card on a tap is saved, of which no frame is on its way: what its guest knows of
    /// it is the same.
    fn save(&self) -> Part {
        let Identity { mac, mtu } = self.identity;
        let others = usize::from(self.pairs.most()).saturating_sub(1);
        let frames = vec![Bytes(Vec::new()); others];
        let pairs = self.has_several().then(|| PairsV1 { in_use: self.pairs.in_use(), frames });
        let (mac, frame) = (mac.map(super::MacAddress::octets), Bytes(Vec::new()));
        Part::of(&NetV1 { mac, mtu, frame, pairs, rx_limits: None, tx_limits: None })
    }

    /// A frame that was on its way is lost, as on a cable pulled.
    fn restore(&mut self, saved: &Part) -> Result<(), Trouble> {
        let saved: NetV1 = saved.read().map_err(Trouble::new)?;
        let identity = restore::identity(&self.identity, &saved)?;
        let in_use = restore::in_use(&saved, self.pairs.most())?;
        if identity.mtu != self.identity.mtu
            && let Some(mtu) = identity.mtu
        {
            self.pairs.set_mtu(mtu).map_err(Trouble::new)?;
        }
        self.identity = identity;
        self.pairs.remember(in_use);
        Ok(())
    }
}

impl std::fmt::Debug for UserNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserNet").field("id", &self.id).finish_non_exhaustive()
    }
}
