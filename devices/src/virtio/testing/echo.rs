//! A device for tests of what all devices share.

use std::time::Instant;

use event_manager::{EventOps, Events};
use kedge_diag::Trouble;
use kedge_guest_memory::GuestMemory;
use kedge_saved_state::{Part, Versioned};
use serde::{Deserialize, Serialize};

use crate::virtio::change::{Change, Changed};
use crate::virtio::device::{Activation, ActiveQueue, DeviceId, VirtioDevice};
use crate::virtio::ring::{Done, Ring};
use crate::virtio::worker::{LoopError, Running, Worker, stop};

/// A device that writes back what it reads, with two queues and 8 bytes of
/// configuration. Chains of one byte it keeps for itself.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    running: Option<Running>,
    config: [u8; 8],
}

impl VirtioDevice for Echo {
    fn device_id(&self) -> DeviceId {
        DeviceId::Rng
    }

    fn name(&self) -> String {
        "the echo".to_owned()
    }

    fn features(&self) -> u64 {
        1 << 3
    }

    fn queue_sizes(&self) -> &[u16] {
        &[256, 16]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = usize::try_from(offset).ok().and_then(|offset| self.config.get(offset..));
        for (to, from) in data.iter_mut().zip(config.unwrap_or_default()) {
            *to = *from;
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let config = usize::try_from(offset).ok().and_then(|offset| self.config.get_mut(offset..));
        for (to, from) in config.unwrap_or_default().iter_mut().zip(data) {
            *to = *from;
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), LoopError> {
        let Activation { memory, queues, interrupt, event_loop, .. } = activation;
        let rings = queues.into_iter().map(|active| Ring::new(active, interrupt.clone()));
        let worker = EchoWorker { memory, rings: rings.collect() };
        self.running = Some(event_loop.start(Box::new(worker))?);
        Ok(())
    }

    fn deactivate(&mut self, deadline: Option<Instant>) -> Result<Vec<ActiveQueue>, LoopError> {
        stop(&mut self.running, deadline)
    }

    fn change(&mut self, _change: &Change) -> Result<Changed, Trouble> {
        self.config[0] += 1;
        Ok(Changed::Config)
    }

    fn save(&self) -> Part {
        Part::of(&EchoV1 { config: self.config })
    }

    fn restore(&mut self, saved: &Part) -> Result<(), Trouble> {
        let EchoV1 { config } = saved.read().map_err(Trouble::new)?;
        self.config = config;
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct EchoV1 {
    config: [u8; 8],
}

impl Versioned for EchoV1 {
    const KIND: &'static str = "virtio-echo";
    const VERSION: u16 = 1;
}

struct EchoWorker {
    memory: GuestMemory,
    rings: Vec<Ring>,
}

impl Worker for EchoWorker {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        self.rings.iter().try_for_each(|ring| ring.watch(ops))
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        for ring in &mut self.rings {
            ring.answer();
            ring.serve(&self.memory, |mut chain| {
                let mut content = vec![0; chain.readable.len()];
                chain.readable.copy_to(&mut content);
                let written = chain.writable.copy_from(&content);
                Ok(if content.len() == 1 {
                    Done::NotNow
                } else {
                    Done::Used(u32::try_from(written).unwrap())
                })
            });
        }
    }

    fn retire(self: Box<Self>) -> Vec<ActiveQueue> {
        let Self { memory, rings } = *self;
        rings.into_iter().map(|ring| ring.retire(&memory)).collect()
    }
}
