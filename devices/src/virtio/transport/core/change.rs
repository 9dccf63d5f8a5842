//! A device that changes while its machine runs: its queues come home for it.

use std::time::Instant;

use kedge_diag::Trouble;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;

use super::Core;
use crate::virtio::change::{Change, ChangeError, Changed};
use crate::virtio::device::Interrupt;
use crate::virtio::transport::signals::Notifier;
use crate::virtio::worker::LoopError;

impl<N: Notifier + 'static> Core<N> {
    /// Changes the device, whose requests in flight finish first.
    pub(in crate::virtio::transport) fn change(
        &mut self,
        change: &Change,
        deadline: Instant,
    ) -> Result<(), ChangeError> {
        self.bring_home(Some(deadline)).map_err(|error| match error {
            LoopError::Late => change.late(),
            other => {
                self.fail(&other);
                change.refused(Trouble::new(other))
            }
        })?;
        let changed = self.device.change(change);
        self.go_on();
        match changed.map_err(|source| change.refused(source))? {
            Changed::Unseen => {}
            Changed::Config if self.has(VIRTIO_CONFIG_S_DRIVER_OK) => {
                self.signals.config_changed();
            }
            // A driver that is not ready is told nothing (3.1.1), and may read it now.
            Changed::Config => self.signals.next_generation(),
        }
        Ok(())
    }
}
