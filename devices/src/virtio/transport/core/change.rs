//! A device that changes while its machine runs: its queues come home for it.

use std::time::Instant;

use kedge_diag::Trouble;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;

use super::Core;
use crate::virtio::change::{Change, ChangeError, Changed};
use crate::virtio::transport::signals::Notifier;
use crate::virtio::worker::LoopError;

impl<N: Notifier + 'static> Core<N> {
    /// Changes the device, whose requests in flight finish first. The driver is not told yet
    /// ([`Core::tell`]).
    pub(in crate::virtio::transport) fn change(
        &mut self,
        change: &Change,
        deadline: Instant,
    ) -> Result<Changed, ChangeError> {
        self.bring_home(Some(deadline)).map_err(|error| match error {
            LoopError::Late => change.late(),
            other => {
                self.fail(&other);
                change.refused(Trouble::new(other))
            }
        })?;
        let changed = self.device.change(change);
        self.go_on();
        let changed = changed.map_err(|source| change.refused(source))?;
        if changed == Changed::Config {
            self.signals.next_generation();
        }
        Ok(changed)
    }

    /// Tells the driver of what has `changed`, once it can see it.
    pub(in crate::virtio::transport) fn tell(&self, changed: Changed) {
        // A driver that is not ready is told nothing (3.1.1), and may read it now.
        if changed == Changed::Config && self.has(VIRTIO_CONFIG_S_DRIVER_OK) {
            self.signals.notifier().config();
        }
    }
}
