//! Entropy device (Virtio 1.2, 5.4): the host's random bytes into the guest's
//! buffers.

mod config;
mod metrics;
pub mod saved;
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
use super::worker::{LoopError, Running, stop};

/// The one queue, `requestq`.
const QUEUE_SIZES: [u16; 1] = [256];

/// The device.
pub struct Rng {
    source: Source,
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
        Self { source, metrics: Arc::default(), running: None }
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
        let worker =
            RngWorker::new(activation, Arc::clone(&self.source), Arc::clone(&self.metrics));
        self.running = Some(event_loop.start(Box::new(worker))?);
        Ok(())
    }

    fn deactivate(&mut self, deadline: Option<Instant>) -> Result<Vec<ActiveQueue>, LoopError> {
        stop(&mut self.running, deadline)
    }

    fn save(&self) -> Part {
        Part::of(&saved::RngV1 {})
    }

    fn restore(&mut self, saved: &Part) -> Result<(), Trouble> {
        let saved::RngV1 {} = saved.read().map_err(Trouble::new)?;
        Ok(())
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rng").field("running", &self.running).finish_non_exhaustive()
    }
}
