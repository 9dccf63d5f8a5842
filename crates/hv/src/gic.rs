//! The interrupt controller that the hypervisor emulates.

use kedge_guest_memory::GuestAddress;
use serde::{Deserialize, Serialize};

use crate::HvError;

/// Which Generic Interrupt Controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GicVersion {
    /// GICv2: at most 8 CPUs, no message-signalled interrupts.
    #[serde(rename = "v2")]
    V2,
    /// GICv3, with an Interrupt Translation Service where one is configured.
    #[serde(rename = "v3")]
    V3,
}

/// Where the controller's frames lie in guest physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicConfig {
    /// GICv2: 4 KiB aligned.
    V2 {
        /// The distributor, 4 KiB.
        distributor: GuestAddress,
        /// The CPU interface, 8 KiB.
        cpu_interface: GuestAddress,
        /// Shared peripheral interrupts wanted: a multiple of 32 up to 960.
        spis: u32,
    },
    /// GICv3: 64 KiB aligned.
    V3 {
        /// The distributor, 64 KiB.
        distributor: GuestAddress,
        /// The redistributors, 128 KiB for each vCPU, in order of their ids.
        redistributors: GuestAddress,
        /// The translation service, 128 KiB.
        its: Option<GuestAddress>,
        /// Shared peripheral interrupts wanted: a multiple of 32 up to 960.
        spis: u32,
    },
}

impl GicConfig {
    /// The version described.
    pub const fn version(&self) -> GicVersion {
        match self {
            Self::V2 { .. } => GicVersion::V2,
            Self::V3 { .. } => GicVersion::V3,
        }
    }
}

/// A machine's interrupt controller.
pub trait Gic: Send + Sync {
    /// Makes it ready, once all vCPUs exist. GICv2 would do so by itself at the
    /// first run. Doing it again does nothing.
    ///
    /// # Errors
    /// The frames do not fit the machine.
    fn init(&self) -> Result<(), HvError>;
}
