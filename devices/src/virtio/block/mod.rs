//! Block device (Virtio 1.2, 5.2) over a raw file or a block device of the host.
//!
//! `request` takes a request apart, `disk` does what it says; between them a
//! request is a value.

mod config;
mod disk;
mod request;
mod restore;
pub mod saved;
mod worker;

#[cfg(test)]
mod change_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod restore_tests;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use kedge_diag::Trouble;
use kedge_saved_state::Part;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
};

use super::change::{Change, Changed};
use super::device::{Activation, ActiveQueue, DeviceId, VirtioDevice};
use super::limits::Limits;
use super::worker::{LoopError, Running, stop};
use config::Patch;
pub use config::{BlockConfig, Cache, KIND};
pub use disk::{Access, OpenError};
use disk::{Disk, Promise};
pub use restore::DiskChanged;
use saved::BlockV1;
use worker::BlockWorker;

/// The largest size of the one queue, `requestq`.
const QUEUE_SIZE: u16 = 256;
const QUEUE_SIZES: [u16; 1] = [QUEUE_SIZE];

/// Buffers in a request, besides its header and its status.
const SEG_MAX: u16 = QUEUE_SIZE - 2;

/// Bytes in a sector, whatever the block size (5.2.3).
const SECTOR: u64 = 512;

/// The device.
#[derive(Debug)]
pub struct Block {
    config: BlockConfig,
    disk: Arc<Disk>,
    limits: Limits,
    running: Option<Running>,
}

impl Block {
    /// The device of an open disk, as `config` describes it, which goes as fast as
    /// `limits` let it.
    fn new(config: &BlockConfig, disk: Disk, limits: Limits) -> Self {
        Self { config: config.clone(), disk: Arc::new(disk), limits, running: None }
    }

    /// Another file behind the disk, opened before the old one is let go of. What the
    /// guest goes by stays, but for the size and the serial number.
    fn swap(&mut self, path: PathBuf) -> Result<(), OpenError> {
        let access = self.disk.access();
        let config = BlockConfig { path, access, ..self.config.clone() };
        let mut disk = Disk::open(&config)?;
        let serial = *disk.serial();
        disk.promise(Promise { serial, ..self.disk.promised() });
        self.disk = Arc::new(disk);
        self.config = config;
        Ok(())
    }

    /// `struct virtio_blk_config` (5.2.4), up to the last field that we have.
    fn config(&self) -> [u8; 24] {
        let mut config = [0; 24];
        config[0..8].copy_from_slice(&self.disk.sectors().to_le_bytes()); // capacity
        config[12..16].copy_from_slice(&self.disk.seg_max().to_le_bytes()); // seg_max
        config[20..24].copy_from_slice(&self.disk.block_size().to_le_bytes()); // blk_size
        config
    }
}

impl VirtioDevice for Block {
    fn device_id(&self) -> DeviceId {
        DeviceId::Block
    }

    fn name(&self) -> String {
        format!("disk `{}`", self.disk.id())
    }

    fn features(&self) -> u64 {
        let read_only = self.disk.access() == Access::ReadOnly;
        let flush = self.disk.cache() == Cache::Writeback;
        1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | u64::from(read_only) << VIRTIO_BLK_F_RO
            | u64::from(flush) << VIRTIO_BLK_F_FLUSH
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.config();
        let from = usize::try_from(offset).ok().and_then(|offset| config.get(offset..));
        for (to, from) in data.iter_mut().zip(from.unwrap_or_default()) {
            *to = *from;
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), LoopError> {
        let event_loop = activation.event_loop.clone();
        let worker = BlockWorker::new(activation, Arc::clone(&self.disk), &self.limits);
        self.running = Some(event_loop.start(Box::new(worker))?);
        Ok(())
    }

    fn deactivate(&mut self, deadline: Option<Instant>) -> Result<Vec<ActiveQueue>, LoopError> {
        stop(&mut self.running, deadline)
    }

    fn change(&mut self, change: &Change) -> Result<Changed, Trouble> {
        let Patch { path_on_host, rate_limiter, .. } = change.read()?;
        let changed = match path_on_host {
            Some(path) => {
                self.swap(path).map_err(Trouble::new)?;
                Changed::Config
            }
            None => Changed::Unseen,
        };
        if let Some(limits) = rate_limiter {
            self.limits.change(limits);
        }
        Ok(changed)
    }

    fn save(&self) -> Part {
        Part::of(&restore::save(&self.disk, &self.limits))
    }

    fn restore(&mut self, saved: &Part) -> Result<(), Trouble> {
        let saved: BlockV1 = saved.read().map_err(Trouble::new)?;
        let disk = Arc::get_mut(&mut self.disk).expect("no worker shares a disk that is at rest");
        restore::restore(disk, &saved)?;
        self.limits.restore(saved.limits.as_ref());
        Ok(())
    }
}
