//! Block device (Virtio 1.2, 5.2) over a raw file or a block device of the host, or over
//! whatever the program around the machine has.
//!
//! `request` takes a request apart, `disk` does what it says; between them a
//! request is a value.

mod back_end;
mod backed;
mod config;
mod disk;
mod free;
mod lock;
mod metrics;
mod open;
mod promise;
mod qcow2;
#[cfg(test)]
mod qcow2_tests;
mod request;
mod restore;
pub mod saved;
mod space;
mod store;
mod syscalls;
mod uring;
pub mod user;
mod worker;

#[cfg(test)]
mod back_end_tests;
#[cfg(test)]
mod change_tests;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod restore_tests;
#[cfg(test)]
mod tests;
// Not under qemu-user, which runs arm64's unit tests and has no io_uring.
#[cfg(test)]
#[cfg(not(target_arch = "aarch64"))]
mod uring_tests;

use std::sync::Arc;
use std::time::Instant;

use kedge_diag::Trouble;
use kedge_metrics::Counters;
use kedge_saved_state::Part;

use super::change::{Change, Changed};
use super::device::{Activation, ActiveQueue, DeviceId, VirtioDevice};
use super::limits::Limits;
use super::worker::{LoopError, Running, stop};
pub use back_end::BlockBackEnd;
pub use backed::BackEndDisk;
use config::Patch;
pub use config::{BlockConfig, Cache, Caching, Engine, KIND, Root};
use disk::Disk;
pub use metrics::BlockMetrics;
pub use open::{Access, OpenError};
pub use restore::DiskChanged;
use saved::BlockV1;
use uring::Uring;
use worker::BlockWorker;

/// The largest size of each queue, `requestq`.
const QUEUE_SIZE: u16 = 256;

/// Buffers in a request, besides its header and its status.
const SEG_MAX: u16 = QUEUE_SIZE - 2;

/// Bytes in a sector, whatever the block size (5.2.3).
const SECTOR: u64 = 512;

/// The device.
#[derive(Debug)]
pub struct Block {
    disk: Arc<Disk>,
    queue_sizes: Vec<u16>,
    limits: Limits,
    running: Option<Running>,
}

impl Block {
    /// The device of an open disk with so many queues, which goes as fast as `limits`
    /// let it.
    fn new(disk: Disk, queues: u16, limits: Limits) -> Self {
        let queue_sizes = vec![QUEUE_SIZE; queues.into()];
        Self { disk: Arc::new(disk), queue_sizes, limits, running: None }
    }

    fn change_to(&mut self, patch: Patch) -> Result<Changed, Trouble> {
        let Patch { path_on_host, rate_limiter, .. } = patch;
        let changed = match path_on_host {
            Some(path) => {
                self.swap(path)?;
                Changed::Config
            }
            None => Changed::Unseen,
        };
        if let Some(limits) = rate_limiter {
            self.limits.change(limits);
        }
        Ok(changed)
    }

    /// What the disk has done so far.
    pub fn metrics(&self) -> &Arc<BlockMetrics> {
        self.disk.metrics()
    }

    /// `io_uring` where it was asked for and the host has it.
    fn uring(&self, activation: &Activation) -> Option<Uring> {
        if self.disk.engine() == Engine::Sync {
            return None;
        }
        match Uring::new(activation.memory.clone()) {
            Ok(uring) => Some(uring),
            Err(error) => {
                let disk = self.disk.id();
                tracing::warn!("disk `{disk}`: the host has no io_uring, does without: {error}");
                None
            }
        }
    }

    /// Another file behind the disk, or the old one stays.
    fn swap(&mut self, path: std::path::PathBuf) -> Result<(), Trouble> {
        // It may be the same one.
        self.disk.let_go();
        match self.disk.on(path) {
            Ok(disk) => self.disk = Arc::new(disk),
            Err(error) => {
                // Whoever has it by now is found out when it goes to work.
                let _ = self.disk.take();
                return Err(Trouble::new(error));
            }
        }
        Ok(())
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
        self.disk.promise().features()
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let space = space::space(&self.disk);
        let from = usize::try_from(offset).ok().and_then(|offset| space.get(offset..));
        for (to, from) in data.iter_mut().zip(from.unwrap_or_default()) {
            *to = *from;
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let Some(writeback) = space::stored_writeback(offset, data) {
            self.disk.set_through(writeback == 0);
        }
    }

    fn counters(&self) -> Option<(&'static str, Arc<dyn Counters>)> {
        Some(("block", Arc::<BlockMetrics>::clone(self.metrics())))
    }

    fn activate(&mut self, activation: Activation) -> Result<(), LoopError> {
        self.disk.take().map_err(|error| LoopError::Resource(Trouble::new(error)))?;
        let event_loop = activation.event_loop.clone();
        self.disk.heard_by(event_loop.listener());
        let uring = self.uring(&activation);
        let worker = BlockWorker::new(activation, Arc::clone(&self.disk), &self.limits, uring);
        self.running = Some(event_loop.start(Box::new(worker))?);
        Ok(())
    }

    fn deactivate(&mut self, deadline: Option<Instant>) -> Result<Vec<ActiveQueue>, LoopError> {
        let queues = stop(&mut self.running, deadline)?;
        self.disk.let_go();
        Ok(queues)
    }

    fn reset(&mut self) {
        self.disk.set_through(false);
    }

    fn change(&mut self, change: &Change) -> Result<Changed, Trouble> {
        let metrics = Arc::clone(self.metrics());
        let changed = self.change_to(change.read()?);
        let counter = if changed.is_ok() { &metrics.changes } else { &metrics.failed_changes };
        metrics::count(counter);
        changed
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
