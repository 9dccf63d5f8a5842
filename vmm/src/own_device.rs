//! Devices with registers that the program around the machine brings along: what they are
//! given, and what the machine asks of them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use kedge_arch::layout::OWN_DEVICE_BYTES;
use kedge_bus::{
    Doorbell, IrqLine, MmioDevice, Node, NotAtRest, PauseError, RestoreError, ResumeError,
    Stateful, Unsuitable,
};
use kedge_diag::{Fix, Trouble};
use kedge_guest_memory::GuestMemory;
use kedge_saved_state::{Part, Versioned};
use serde::{Deserialize, Serialize};
use tracing::error;

/// What a device is given for as long as its machine is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Wiring {
    /// Its interrupt: edge-triggered, as its node in the device tree says.
    pub irq: IrqLine,
    /// The guest's RAM, for a device that reads and writes it by itself. What it writes is
    /// noted where changes are. It must let it be while it is paused.
    pub memory: GuestMemory,
}

/// A device of the program around a machine, made for it.
pub struct OwnDevice {
    registers: Arc<dyn MmioDevice>,
    /// Absent where nothing of it has to be kept.
    state: Option<Arc<dyn Stateful>>,
}

impl OwnDevice {
    /// A device of which nothing has to be saved: a restored guest finds it as new.
    pub fn new(device: impl MmioDevice + 'static) -> Self {
        Self { registers: Arc::new(device), state: None }
    }

    /// A device that is paused, saved and restored with its machine.
    pub fn with_state<D: MmioDevice + Stateful + 'static>(device: D) -> Self {
        let device = Arc::new(device);
        Self { registers: Arc::<D>::clone(&device), state: Some(device) }
    }
}

impl fmt::Debug for OwnDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnDevice").field("saved", &self.state.is_some()).finish_non_exhaustive()
    }
}

/// Why a machine cannot have a device of the program around it.
#[derive(Debug, thiserror::Error)]
pub enum OwnDeviceError {
    /// Two with one name.
    #[error("the program has two devices called `{name}`")]
    SameName {
        /// The name.
        name: String,
    },
    /// No registers, or more than a device has room for.
    #[error("the device `{name}` has {bytes} bytes of registers")]
    Size {
        /// The device's name.
        name: String,
        /// Their size.
        bytes: u64,
    },
    /// The program could not make it.
    #[error("the device `{name}` cannot be made")]
    Make {
        /// The device's name.
        name: String,
        /// Why.
        source: Trouble,
    },
}

impl Fix for OwnDeviceError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::SameName { .. } => Some("give each a name of its own".to_owned()),
            Self::Size { .. } => Some(format!("give it 1 to {OWN_DEVICE_BYTES} bytes")),
            Self::Make { source, .. } => source.fix(),
        }
    }
}

/// Makes a device, each time its machine is built: at first and after a reset of its guest.
type Make = dyn Fn(Wiring) -> Result<OwnDevice, Trouble> + Send + Sync;

/// A device that a machine is to have.
#[derive(Clone)]
pub(crate) struct Wanted {
    name: String,
    make: Arc<Make>,
}

impl Wanted {
    pub(crate) fn new(
        name: String,
        make: impl Fn(Wiring) -> Result<OwnDevice, Trouble> + Send + Sync + 'static,
    ) -> Self {
        Self { name, make: Arc::new(make) }
    }

    /// What it is called in a saved machine.
    pub(crate) fn saved_name(&self) -> String {
        format!("{SAVED}{}", self.name)
    }

    /// Makes it, and looks whether there is room for it.
    ///
    /// # Errors
    /// It cannot be made, or has registers of an odd size.
    pub(crate) fn make(&self, wiring: Wiring) -> Result<Made, OwnDeviceError> {
        let name = || self.name.clone();
        let made = (self.make)(wiring);
        let made = made.map_err(|source| OwnDeviceError::Make { name: name(), source })?;
        let OwnDevice { registers, state } = made;
        let bytes = registers.size();
        if !(1..=OWN_DEVICE_BYTES).contains(&bytes) {
            return Err(OwnDeviceError::Size { name: name(), bytes });
        }
        let state = state.unwrap_or_else(|| Arc::new(Stateless(name())));
        let panics = AtomicU64::new(0);
        let registers = Arc::new(Registers { name: name(), device: registers, panics });
        Ok(Made { bytes, registers, state })
    }
}

/// Checks that each has a name of its own.
///
/// # Errors
/// One has not.
pub(crate) fn check_names(wanted: &[Wanted]) -> Result<(), OwnDeviceError> {
    let twice = |(index, one): (usize, &Wanted)| {
        wanted[..index].iter().any(|other| other.name == one.name).then(|| one.name.clone())
    };
    match wanted.iter().enumerate().find_map(twice) {
        Some(name) => Err(OwnDeviceError::SameName { name }),
        None => Ok(()),
    }
}

/// Whether a part of a saved machine is such a device's.
pub(crate) fn is_saved_name(name: &str) -> bool {
    name.starts_with(SAVED)
}

/// What the names of such devices begin with in a saved machine.
const SAVED: &str = "device ";

/// A device, for the machine to place.
pub(crate) struct Made {
    /// The size of its registers.
    pub(crate) bytes: u64,
    pub(crate) registers: Arc<dyn MmioDevice>,
    pub(crate) state: Arc<dyn Stateful>,
}

/// The registers of a program's device, whose panic must not end a vCPU's thread: the
/// machine would wait for it for ever. The guest then gets what it gets where nobody answers.
struct Registers {
    name: String,
    device: Arc<dyn MmioDevice>,
    panics: AtomicU64,
}

impl Registers {
    fn guarded(
        &self,
        (offset, length): (u64, usize),
        access: impl FnOnce() -> Result<(), Unsuitable>,
    ) -> Result<(), Unsuitable> {
        // What it was at is the program's own, behind `&self`.
        catch_unwind(AssertUnwindSafe(access)).unwrap_or_else(|_| {
            let times = self.panics.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if times.is_power_of_two() {
                error!(times, offset, "the device `{}` of the program panicked", self.name);
            }
            Err(Unsuitable { offset, length })
        })
    }
}

impl MmioDevice for Registers {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Unsuitable> {
        self.guarded((offset, data.len()), || self.device.read(offset, data))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Unsuitable> {
        self.guarded((offset, data.len()), || self.device.write(offset, data))
    }

    fn node(&self) -> Node {
        self.device.node()
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        self.device.doorbells()
    }
}

/// Stands for a device of which nothing is saved but that it is there.
struct Stateless(String);

/// Version 1: nothing.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatelessV1 {}

impl Versioned for StatelessV1 {
    const KIND: &'static str = "stateless-device";
    const VERSION: u16 = 1;
}

impl Stateful for Stateless {
    fn name(&self) -> String {
        format!("the device `{}`", self.0)
    }

    fn pause(&self, _deadline: Instant) -> Result<(), PauseError> {
        Ok(())
    }

    fn resume(&self) -> Result<(), ResumeError> {
        Ok(())
    }

    fn save(&self) -> Result<Part, NotAtRest> {
        Ok(Part::of(&StatelessV1 {}))
    }

    fn restore(&self, saved: &Part) -> Result<(), RestoreError> {
        let read = saved.read::<StatelessV1>().map(|StatelessV1 {}| ());
        read.map_err(|error| RestoreError { device: self.name(), source: Trouble::new(error) })
    }
}
