//! Entropy device (Virtio 1.2, 5.4): the host's random bytes into the guest's
//! buffers.

mod config;
mod metrics;
pub mod saved;
mod syscalls;
mod worker;

#[cfg(test)]
mod tests;

pub use config::{KIND, RngConfig};
pub use metrics::RngMetrics;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use kedge_diag::Trouble;
use kedge_metrics::Counters;
use kedge_saved_state::Part;

use self::worker::{RngWorker, Source};
use super::device::{Activation, ActiveQueue, DeviceId, VirtioDevice};
use super::limits::{Limits, RateLimiter};
use super::worker::{LoopError, Running, stop};

/// The one queue, `requestq`.
const QUEUE_SIZES: [u16; 1] = [256];

/// The device.
pub struct Rng {
    source: Source,
    limits: Limits,
    metrics: Arc<RngMetrics>,
    running: Option<Running>,
}

impl Rng {
    /// A device that asks the host's kernel.
    pub fn new() -> Self {
        Self::from_source(Arc::new(worker::host_entropy))
    }

    /// A device that asks `source`.
    fn from_source(source: Source) -> Self {
        Self { source, limits: Limits::default(), metrics: Arc::default(), running: None }
    }

    /// The same device, which gives no more than `limits` let through: in bytes, and
    /// in requests.
    #[must_use]
    pub fn limited(self, limits: RateLimiter) -> Self {
        Self { limits: Limits::new(limits), ..self }
    }

    /// What the device has done so far.
    pub fn metrics(&self) -> &Arc<RngMetrics> {
        &self.metrics
    }
}

impl Default for Rng {
    fn default() -> Self {
        Self::new()
    }
}

impl VirtioDevice for Rng {
    fn device_id(&self) -> DeviceId {
        DeviceId::Rng
    }

    fn name(&self) -> String {
        "the entropy device".to_owned()
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn counters(&self) -> Option<(&'static str, Arc<dyn Counters>)> {
        Some(("entropy", Arc::<RngMetrics>::clone(&self.metrics)))
    }

    fn activate(&mut self, activation: Activation) -> Result<(), LoopError> {
        let event_loop = activation.event_loop.clone();
        let (source, metrics) = (Arc::clone(&self.source), Arc::clone(&self.metrics));
        let worker = RngWorker::new(activation, source, &self.limits, metrics);
        let running = event_loop.start(Box::new(worker));
        let running = running.inspect_err(|_| metrics::one(&self.metrics.activate_fails));
        self.running = Some(running?);
        Ok(())
    }

    fn deactivate(&mut self, deadline: Option<Instant>) -> Result<Vec<ActiveQueue>, LoopError> {
        stop(&mut self.running, deadline)
    }

    fn save(&self) -> Part {
        Part::of(&saved::RngV1 { limits: self.limits.save() })
    }

    fn restore(&mut self, saved: &Part) -> Result<(), Trouble> {
        let saved::RngV1 { limits } = saved.read().map_err(Trouble::new)?;
        self.limits.restore(limits.as_ref());
        Ok(())
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rng").field("running", &self.running).finish_non_exhaustive()
    }
}
