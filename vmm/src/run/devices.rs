//! A machine's devices as far as the machine has to do with them once it is built: they
//! come to rest with it, are saved, and go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kedge_bus::{NotAtRest, PauseError, RestoreError, ResumeError, Stateful};
use kedge_devices::virtio::catalog::DeviceConfig;
use kedge_devices::virtio::change::{Change, ChangeError, Target};
use kedge_devices::virtio::transport::PciTransport;
use kedge_saved_state::{FileError, Section, StateFile};
use tracing::error;

/// How long devices may take to finish what they are at, all together.
const PATIENCE: Duration = Duration::from_secs(5);

/// The devices, each under the name that it has in a saved machine; and those that can be
/// changed, in the order of the machine's specification.
pub(crate) struct Devices(Vec<(String, Arc<dyn Stateful>)>, Vec<Arc<dyn Target>>);

/// Why devices cannot be as they were saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DevicesError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Device(#[from] RestoreError),
}

impl Devices {
    pub(crate) fn new(
        devices: Vec<(String, Arc<dyn Stateful>)>,
        targets: Vec<Arc<dyn Target>>,
    ) -> Self {
        Self(devices, targets)
    }

    /// Makes `change` in one of those that are `configured`, and in what is configured.
    ///
    /// # Errors
    /// There is no such device, or it cannot be so: then nothing has changed.
    pub(crate) fn change(
        &self,
        configured: &mut [Box<dyn DeviceConfig>],
        change: &Change,
    ) -> Result<(), ChangeError> {
        let index = change.find(configured)?;
        let changed = change.applied(configured[index].as_ref())?;
        // There is a target for each that is configured.
        let Some(target) = self.1.get(index) else { return Ok(()) };
        target.change(change, Instant::now() + PATIENCE)?;
        configured[index] = changed;
        Ok(())
    }

    /// Adds one that has come.
    pub(crate) fn add(&mut self, name: String, card: &Arc<PciTransport>) {
        self.0.push((name, Arc::<PciTransport>::clone(card)));
        self.1.push(Arc::<PciTransport>::clone(card));
    }

    /// Has one no more: the one of this name, which is this one of the specification.
    pub(crate) fn remove(&mut self, name: &str, index: usize) {
        self.0.retain(|(other, _)| other != name);
        self.1.remove(index);
    }

    /// Brings all to rest, or none.
    ///
    /// # Errors
    /// One is not done in time, or the host refuses.
    pub(crate) fn pause(&self) -> Result<(), PauseError> {
        let deadline = Instant::now() + PATIENCE;
        for (index, (_, device)) in self.0.iter().enumerate() {
            if let Err(error) = device.pause(deadline) {
                self.0[..index].iter().rev().for_each(|(_, device)| go_on_alone(device.as_ref()));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Lets all go on, or none.
    ///
    /// # Errors
    /// The host refuses.
    pub(crate) fn resume(&self) -> Result<(), ResumeError> {
        for (index, (_, device)) in self.0.iter().enumerate().rev() {
            if let Err(error) = device.resume() {
                let deadline = Instant::now() + PATIENCE;
                for (_, device) in &self.0[index + 1..] {
                    if let Err(error) = device.pause(deadline) {
                        error!(%error, "a device works while its machine is paused");
                    }
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// What it takes to go on elsewhere, a section for each.
    ///
    /// # Errors
    /// One is at work.
    pub(crate) fn save(&self) -> Result<Vec<Section>, NotAtRest> {
        let section = |(name, device): &(String, Arc<dyn Stateful>)| {
            Ok(Section::required(device.save()?).of(name.as_str()))
        };
        self.0.iter().map(section).collect()
    }

    /// Takes up what was saved of devices like these; they rest afterwards.
    ///
    /// # Errors
    /// A section is missing, damaged or another device's, or the host's resource is not
    /// what the guest knows.
    pub(crate) fn restore(&self, saved: &StateFile) -> Result<(), DevicesError> {
        for (name, device) in &self.0 {
            let section = saved.sections().iter().find(|section| section.instance == *name);
            let missing = || FileError::Missing { kind: DEVICE, instance: name.clone() };
            device.restore(&section.ok_or_else(missing)?.part)?;
        }
        Ok(())
    }
}

/// What an error calls a device's section, whose kind is the device's own.
const DEVICE: &str = "device";

/// Lets a device go on whose machine is not paused after all.
fn go_on_alone(device: &dyn Stateful) {
    if let Err(error) = device.resume() {
        error!(%error, "a device stands still while its machine runs");
    }
}
