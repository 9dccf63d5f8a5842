//! A transport at rest: its queues stay home, whatever the driver asked for, and
//! it can be saved or be what was saved.

use std::time::Instant;

use kedge_bus::{NotAtRest, PauseError, ResumeError};
use kedge_diag::Trouble;
use kedge_saved_state::{Part, StateError};
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;
use virtio_queue::QueueState;

use super::Core;
use crate::virtio::transport::checked;
use crate::virtio::transport::saved::{QueueV1, TransportV1};
use crate::virtio::transport::signals::Notifier;
use crate::virtio::worker::LoopError;

/// Whether the queues are to stay home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// No: they work.
    None,
    /// Until the machine goes on.
    Paused,
    /// The same; and an edge that was on its way to the guest when it was saved is
    /// lost.
    Restored,
}

impl<N: Notifier + 'static> Core<N> {
    /// What an error calls the device.
    pub(in crate::virtio::transport) fn name(&self) -> String {
        self.device.name()
    }

    /// Brings the queues home and keeps them there.
    pub(in crate::virtio::transport) fn pause(
        &mut self,
        deadline: Instant,
    ) -> Result<(), PauseError> {
        self.bring_home(Some(deadline)).map_err(|error| match error {
            LoopError::Late => PauseError::Late { device: self.name() },
            other => {
                self.fail(&other);
                PauseError::Host { device: self.name(), source: Trouble::new(other) }
            }
        })?;
        if self.rest == Rest::None {
            self.rest = Rest::Paused;
        }
        Ok(())
    }

    /// Back to work after a pause or a restore.
    pub(in crate::virtio::transport) fn resume(&mut self) -> Result<(), ResumeError> {
        let works = self.has(VIRTIO_CONFIG_S_DRIVER_OK) && !self.signals.is_broken();
        if self.rest != Rest::None && works {
            let activated = self.activate().map_err(Trouble::new);
            activated.map_err(|source| ResumeError { device: self.name(), source })?;
        }
        if self.rest == Rest::Restored {
            self.signals.notifier().remind();
        }
        self.rest = Rest::None;
        Ok(())
    }

    /// What to save.
    ///
    /// # Errors
    /// The queues may be away.
    pub(in crate::virtio::transport) fn save(&self) -> Result<TransportV1, NotAtRest> {
        if self.rest == Rest::None {
            return Err(NotAtRest { device: self.name() });
        }
        Ok(TransportV1 {
            device_id: self.device.device_id().number(),
            status: self.status,
            needs_reset: self.signals.is_broken(),
            offered: self.offered(),
            accepted: self.features,
            strange_features: self.strange_features,
            device_features_select: self.device_features_select,
            driver_features_select: self.driver_features_select,
            queue_select: self.queue_select,
            interrupt_status: self.signals.notifier().unacknowledged(),
            config_generation: self.signals.generation(),
            queues: self.queues.iter().map(saved_queue).collect(),
            device: self.device.save(),
        })
    }

    /// Takes up what was saved, and rests.
    pub(in crate::virtio::transport) fn restore(&mut self, saved: &Part) -> Result<(), Trouble> {
        self.recall();
        let saved: TransportV1 = saved.read().map_err(Trouble::new)?;
        let own = self.device.device_id().number();
        if saved.device_id != own {
            let problem = format!("is {}, and the device's is {own}", saved.device_id);
            return Err(Trouble::new(StateError::field::<TransportV1>("device_id", problem)));
        }
        checked::negotiation(&saved).map_err(Trouble::new)?;
        let queues = checked::queues(&saved, self.device.queue_sizes(), &self.memory);
        let queues = queues.map_err(Trouble::new)?;
        self.device.restore(&saved.device)?;
        checked::offer(&saved, self.available()).map_err(Trouble::new)?;

        self.promised = saved.offered;
        self.status = saved.status;
        self.features = saved.accepted;
        self.strange_features = saved.strange_features;
        self.device_features_select = saved.device_features_select;
        self.driver_features_select = saved.driver_features_select;
        self.queue_select = saved.queue_select;
        self.queues = queues;
        self.signals.restore(saved.config_generation, saved.needs_reset);
        self.signals.notifier().restore(saved.interrupt_status);
        self.rest = Rest::Restored;
        Ok(())
    }
}

fn saved_queue(queue: &QueueState) -> QueueV1 {
    // `event_idx_enabled` follows from the features.
    let &QueueState {
        max_size,
        next_avail,
        next_used,
        event_idx_enabled: _,
        size,
        ready,
        desc_table,
        avail_ring,
        used_ring,
    } = queue;
    QueueV1 {
        max_size,
        size,
        ready,
        descriptor_table: desc_table,
        available_ring: avail_ring,
        used_ring,
        next_available: next_avail,
        next_used,
    }
}
