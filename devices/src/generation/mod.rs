//! The machine's generation: 128 random bits in the guest's memory that are others
//! each time the machine is restored, and an interrupt that says so (Microsoft,
//! Virtual Machine Generation ID; Linux, bindings/rng/microsoft,vmgenid.yaml).
//! Linux 6.10 and later then stir their random numbers anew: of all clones of a
//! machine, no two go on with the same ones.
//!
//! Linux maps the bits as device memory, past caches. It finds what the host wrote
//! all the same: they are written only before the guest of a new or restored
//! machine first runs, and the hypervisor cleans a page from caches when the guest
//! first touches it.

pub mod saved;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kedge_bus::{IrqLine, Node, NotAtRest, PauseError, RestoreError, ResumeError, Stateful};
use kedge_diag::{Fix, Trouble};
use kedge_guest_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryError};
use kedge_saved_state::Part;

use saved::GenerationV1;

/// The bits, in bytes.
const SIZE: usize = 16;

/// Fills a buffer with random bytes, or fails.
pub type Entropy = Arc<dyn Fn(&mut [u8]) -> io::Result<()> + Send + Sync>;

/// Why the guest cannot be told its generation.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The host has no entropy.
    #[error("the host has no random bytes for the machine's generation")]
    Entropy(#[source] io::Error),
    /// The guest's memory is not there.
    #[error("the machine's generation cannot be written to guest memory at {:#x}", address.0)]
    Write {
        /// Where it belongs.
        address: GuestAddress,
        /// What the memory said.
        source: GuestMemoryError,
    },
}

impl Fix for GenerationError {
    fn fix(&self) -> Option<String> {
        None
    }
}

/// Where the device is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Works,
    Paused,
    /// At rest, and the guest does not know yet that it was restored.
    Restored,
}

/// The generation of one machine.
pub struct Generation {
    memory: GuestMemory,
    at: GuestAddress,
    irq: IrqLine,
    entropy: Entropy,
    phase: Mutex<Phase>,
}

impl Generation {
    /// The generation at address `at` of `memory`, a multiple of 8 with 16 bytes
    /// that the guest keeps clear of. Nothing is written yet: see [`Self::begin`].
    pub fn new(memory: GuestMemory, at: GuestAddress, irq: IrqLine, entropy: Entropy) -> Self {
        Self { memory, at, irq, entropy, phase: Mutex::new(Phase::Works) }
    }

    /// Writes the first generation: for a machine that was not restored, before it
    /// runs.
    ///
    /// # Errors
    /// The host has no entropy, or the memory is not there.
    pub fn begin(&self) -> Result<(), GenerationError> {
        let mut id = [0; SIZE];
        (self.entropy)(&mut id).map_err(GenerationError::Entropy)?;
        let address = self.at;
        let written = self.memory.write_slice(&id, address);
        written.map_err(|source| GenerationError::Write { address, source })
    }

    /// How the device tree describes it. `reg` and `interrupts` are added by
    /// whoever knows them.
    pub fn node(&self) -> Node {
        Node::new("rng", &["microsoft,vmgenid"])
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NAME: &str = "the machine's generation";

impl Stateful for Generation {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    fn pause(&self, _deadline: Instant) -> Result<(), PauseError> {
        let mut phase = self.phase();
        if *phase == Phase::Works {
            *phase = Phase::Paused;
        }
        Ok(())
    }

    /// After a restore, the guest finds another generation, and is told.
    fn resume(&self) -> Result<(), ResumeError> {
        let mut phase = self.phase();
        if *phase == Phase::Restored {
            self.begin().map_err(|error| ResumeError {
                device: NAME.to_owned(),
                source: Trouble::new(error),
            })?;
            self.irq.pulse();
        }
        *phase = Phase::Works;
        Ok(())
    }

    fn save(&self) -> Result<Part, NotAtRest> {
        match *self.phase() {
            Phase::Works => Err(NotAtRest { device: NAME.to_owned() }),
            Phase::Paused | Phase::Restored => Ok(Part::of(&GenerationV1 {})),
        }
    }

    fn restore(&self, saved: &Part) -> Result<(), RestoreError> {
        let GenerationV1 {} = saved.read().map_err(|error| RestoreError {
            device: NAME.to_owned(),
            source: Trouble::new(error),
        })?;
        *self.phase() = Phase::Restored;
        Ok(())
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").field("at", &self.at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
