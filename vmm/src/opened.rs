//! Devices that are open before there is a machine for them: who opens one when it is
//! described learns at once that it cannot be had, and nobody else takes it meanwhile.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kedge_devices::virtio::catalog::{DeviceConfig, Kind};
use kedge_devices::virtio::device::VirtioDevice;
use kedge_diag::Trouble;

/// Devices that are open. Clones are the same devices.
///
/// A machine that is built with them ([`crate::Surroundings::with_open`]) takes those that
/// its specification has, by kind and name, and opens the others itself; so it does all of
/// them where it is built once more.
#[derive(Clone, Default)]
pub struct OpenDevices(Arc<Mutex<Vec<Open>>>);

struct Open {
    kind: &'static Kind,
    id: String,
    device: Box<dyn VirtioDevice>,
}

impl Open {
    fn is(&self, config: &dyn DeviceConfig) -> bool {
        self.kind.key == config.kind().key && self.id == config.id()
    }
}

impl OpenDevices {
    /// Opens the device that `config` describes.
    ///
    /// # Errors
    /// The host's resource is missing, busy, or may not be used.
    pub fn open(&self, config: &dyn DeviceConfig) -> Result<(), Trouble> {
        let device = config.open()?;
        self.lock().push(Open { kind: config.kind(), id: config.id().to_owned(), device });
        Ok(())
    }

    /// Closes the device of this kind and name, if it is open.
    pub fn close(&self, config: &dyn DeviceConfig) {
        drop(self.take(config));
    }

    /// The device that `config` describes, if it is open.
    pub(crate) fn take(&self, config: &dyn DeviceConfig) -> Option<Box<dyn VirtioDevice>> {
        let mut devices = self.lock();
        let place = devices.iter().position(|open| open.is(config))?;
        Some(devices.swap_remove(place).device)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for OpenDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().iter().map(|open| (open.kind.key, &open.id))).finish()
    }
}
