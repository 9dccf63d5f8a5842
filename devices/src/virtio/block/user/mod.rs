//! A disk that another process has: the block device of a vhost-user back end
//! (`vhost-user-blk`), such as `qemu-storage-daemon`. What its guest finds is what the back
//! end offers, as far as kedge knows it.

mod config;
pub mod saved;
mod space;

// Not under qemu-user, which runs arm64's unit tests: the daemon is the machine's own.
#[cfg(test)]
#[cfg(not(target_arch = "aarch64"))]
mod daemon_tests;
#[cfg(test)]
mod tests;

use std::time::Instant;

use kedge_diag::Trouble;
use kedge_saved_state::{Bytes, Part, StateError};
use vhost::vhost_user::VhostUserProtocolFeatures;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_GEOMETRY,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX,
    VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};

use super::restore::DiskChanged;
use super::{Cache, QUEUE_SIZE};
use crate::virtio::change::{Change, Changed};
use crate::virtio::device::{Activation, ActiveQueue, DeviceId, VirtioDevice};
use crate::virtio::vhost::{AtWork, BackEnd, BackEndError, Needs, UserBackEnd, lend, take_home};
use crate::virtio::worker::LoopError;
use config::NotHere;
pub use config::UserDiskConfig;
pub(super) use config::from_body;
pub(super) use config::from_options;
use saved::UserBlockV1;
use space::Space;

/// The features of a block device that a back end may offer the guest. The others need
/// something of kedge: `VIRTIO_BLK_F_CONFIG_WCE` that it passes stores on.
const FEATURES: u64 = 1 << VIRTIO_BLK_F_SIZE_MAX
    | 1 << VIRTIO_BLK_F_SEG_MAX
    | 1 << VIRTIO_BLK_F_GEOMETRY
    | 1 << VIRTIO_BLK_F_RO
    | 1 << VIRTIO_BLK_F_BLK_SIZE
    | 1 << VIRTIO_BLK_F_FLUSH
    | 1 << VIRTIO_BLK_F_TOPOLOGY
    | 1 << VIRTIO_BLK_F_MQ
    | 1 << VIRTIO_BLK_F_DISCARD
    | 1 << VIRTIO_BLK_F_WRITE_ZEROES;

/// The device.
#[derive(Debug)]
pub(super) struct UserBlock {
    id: String,
    back_end: UserBackEnd,
    features: u64,
    space: Space,
    queue_sizes: Vec<u16>,
    at_work: Option<AtWork>,
}

impl UserBlock {
    /// The device that `config` describes.
    ///
    /// # Errors
    /// Its back end is not there, or not one for disks.
    fn open(config: &UserDiskConfig) -> Result<Self, BackEndError> {
        let queues = config.queues;
        let protocol = VhostUserProtocolFeatures::CONFIG;
        let needs = Needs { queues, count: queues, protocol };
        let back_end = UserBackEnd::connect(&config.socket, needs)?;
        Self::on(back_end, config)
    }

    fn on(mut back_end: UserBackEnd, config: &UserDiskConfig) -> Result<Self, BackEndError> {
        let space = read_space(&mut back_end, config.queues)?;
        let unwanted = [
            (VIRTIO_BLK_F_FLUSH, config.cache == Cache::Unsafe),
            (VIRTIO_BLK_F_MQ, config.queues == 1),
        ];
        let features = unwanted.iter().fold(back_end.features() & FEATURES, |all, &(bit, off)| {
            all & !(u64::from(off) << bit)
        });
        let queue_sizes = vec![QUEUE_SIZE; config.queues.into()];
        Ok(Self { id: config.id.clone(), back_end, features, space, queue_sizes, at_work: None })
    }

    fn queues(&self) -> u16 {
        u16::try_from(self.queue_sizes.len()).unwrap_or(u16::MAX)
    }
}

fn read_space(back_end: &mut UserBackEnd, queues: u16) -> Result<Space, BackEndError> {
    let space = Space::read(&back_end.config(space::LENGTH)?, queues);
    space.map_err(|nonsense| back_end.nonsense(nonsense))
}

impl VirtioDevice for UserBlock {
    fn device_id(&self) -> DeviceId {
        DeviceId::Block
    }

    fn name(&self) -> String {
        format!("disk `{}`", self.id)
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn bears(&self) -> u64 {
        self.back_end.features()
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.space.load(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), LoopError> {
        let name = self.name();
        self.at_work = Some(lend(&mut self.back_end, activation, name)?);
        Ok(())
    }

    fn deactivate(&mut self, deadline: Option<Instant>) -> Result<Vec<ActiveQueue>, LoopError> {
        take_home(&mut self.at_work, &mut self.back_end, deadline)
    }

    fn change(&mut self, change: &Change) -> Result<Changed, Trouble> {
        let super::config::Patch { path_on_host, rate_limiter, .. } = change.read()?;
        let fields =
            [("path_on_host", path_on_host.is_some()), ("rate_limiter", rate_limiter.is_some())];
        if let Some((field, _)) = fields.into_iter().find(|(_, is_given)| *is_given) {
            return Err(Trouble::new(NotHere { field }));
        }
        let queues = self.queues();
        self.space = read_space(&mut self.back_end, queues).map_err(Trouble::new)?;
        Ok(Changed::Config)
    }

    fn save(&self) -> Part {
        Part::of(&UserBlockV1 { space: Bytes(self.space.bytes().to_vec()) })
    }

    fn restore(&mut self, saved: &Part) -> Result<(), Trouble> {
        let UserBlockV1 { space } = saved.read().map_err(Trouble::new)?;
        let promised = Space::read(&space.0, self.queues()).map_err(|nonsense| {
            Trouble::new(StateError::field::<UserBlockV1>("space", nonsense.to_string()))
        })?;
        let (promised_sectors, found) = (promised.sectors(), self.space.sectors());
        if promised_sectors != found {
            let promised = promised_sectors;
            return Err(Trouble::new(DiskChanged::Size { promised, found }));
        }
        self.space = promised;
        Ok(())
    }
}
