//! A device of a program's own: it adds up what the guest stores to it, and raises its
//! interrupt whenever it has.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use kedge_vmm::diag::Trouble;
use kedge_vmm::mmio::{
    IrqLine, MmioDevice, Node, NotAtRest, PauseError, RestoreError, ResumeError, Stateful,
    Unsuitable,
};
use kedge_vmm::saved_state::{Part, Versioned};
use serde::{Deserialize, Serialize};

/// Its registers: four bytes, and nothing else.
pub(crate) const SIZE: u64 = 4;
/// A store adds; a load has the sum.
const SUM: u64 = 0;

/// The device.
pub(crate) struct Tally {
    sum: Mutex<u32>,
    irq: IrqLine,
}

/// What is saved of it. Once a snapshot has it, it stays as it is: a change is a new version.
#[derive(Serialize, Deserialize)]
struct TallyV1 {
    sum: u32,
}

impl Versioned for TallyV1 {
    const KIND: &'static str = "example-tally";
    const VERSION: u16 = 1;
}

impl Tally {
    /// A device that has added up nothing.
    pub(crate) fn new(irq: IrqLine) -> Self {
        Self { sum: Mutex::new(0), irq }
    }

    fn sum(&self) -> std::sync::MutexGuard<'_, u32> {
        // A number is whole, whoever panicked.
        self.sum.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MmioDevice for Tally {
    fn size(&self) -> u64 {
        SIZE
    }

    // Any vCPU may call at any time, with any width.
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Unsuitable> {
        match (offset, data.len()) {
            (SUM, 4) => data.copy_from_slice(&self.sum().to_le_bytes()),
            (_, length) => return Err(Unsuitable { offset, length }),
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Unsuitable> {
        match (offset, <[u8; 4]>::try_from(data)) {
            (SUM, Ok(bytes)) => {
                let mut sum = self.sum();
                *sum = sum.wrapping_add(u32::from_le_bytes(bytes));
                drop(sum);
                self.irq.pulse();
                Ok(())
            }
            _ => Err(Unsuitable { offset, length: data.len() }),
        }
    }

    fn node(&self) -> Node {
        Node::new("tally", &["example,tally"])
    }
}

/// It has no thread, so that it rests whenever its guest's CPUs do.
impl Stateful for Tally {
    fn name(&self) -> String {
        "the tally".to_owned()
    }

    fn pause(&self, _deadline: Instant) -> Result<(), PauseError> {
        Ok(())
    }

    fn resume(&self) -> Result<(), ResumeError> {
        // Its guest may not have been given the last edge.
        self.irq.pulse();
        Ok(())
    }

    fn save(&self) -> Result<Part, NotAtRest> {
        Ok(Part::of(&TallyV1 { sum: *self.sum() }))
    }

    fn restore(&self, saved: &Part) -> Result<(), RestoreError> {
        let TallyV1 { sum } = saved
            .read()
            .map_err(|error| RestoreError { device: self.name(), source: Trouble::new(error) })?;
        *self.sum() = sum;
        Ok(())
    }
}
