//! Why a machine cannot be laid out: what is asked for does not fit the host or the map.

use kedge_diag::Fix;

use super::{OWN_DEVICES_MOST, RAM_LEAST, RAM_MOST, RAM_UNIT};
use crate::GicChoice;
use crate::gic;
use crate::size::Size;

/// Why a machine cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// No memory asked for.
    #[error("a machine without memory cannot run")]
    NoMemory,
    /// Too little memory for any guest.
    #[error("{} of memory are too little: a machine has at least {}", Size(*asked), Size(RAM_LEAST))]
    TooLittleMemory {
        /// Bytes asked for.
        asked: u64,
    },
    /// A size that memory does not come in.
    #[error("memory of {asked} bytes is not a multiple of {}", Size(RAM_UNIT))]
    OddMemory {
        /// Bytes asked for.
        asked: u64,
    },
    /// More than any machine has.
    #[error("{} of memory are too much: a machine has at most {}", Size(*asked), Size(RAM_MOST))]
    TooMuchMemory {
        /// Bytes asked for.
        asked: u64,
    },
    /// More than the host's processor can address for a guest.
    #[error(
        "{} of memory are too much for this host: its {ipa_bits}-bit guest addresses leave room for {}",
        Size(*asked),
        Size(*most)
    )]
    MemoryBeyondHost {
        /// Bytes asked for.
        asked: u64,
        /// Bits of a guest physical address.
        ipa_bits: u8,
        /// Bytes that these bits can address above the first address of RAM.
        most: u64,
    },
    /// More than fits the hypervisor's memory slots.
    #[error(
        "{} of memory are too much for this host: it has {slots} memory slots of at most {}",
        Size(*asked),
        Size(*slot_bytes)
    )]
    MemoryBeyondSlots {
        /// Bytes asked for.
        asked: u64,
        /// Memory slots of a machine.
        slots: u32,
        /// Bytes of a slot.
        slot_bytes: u64,
    },
    /// PCI without message-signalled interrupts.
    #[error("a machine with PCI needs an Interrupt Translation Service, which this GIC{} has not", gic::name(gic.version()))]
    PciWithoutIts {
        /// The controller.
        gic: GicChoice,
    },
    /// No vCPUs asked for.
    #[error("a machine without vCPUs cannot run")]
    NoCpus,
    /// More vCPUs than the host gives.
    #[error("{asked} vCPUs are too many: this host allows {most}")]
    TooManyCpus {
        /// vCPUs asked for.
        asked: u32,
        /// vCPUs the host gives a machine.
        most: u32,
    },
    /// More vCPUs than the interrupt controller serves.
    #[error("{asked} vCPUs are too many for a GIC{}: it serves {}", gic::name(gic.version()), gic.most_cpus())]
    TooManyCpusForGic {
        /// vCPUs asked for.
        asked: u32,
        /// The controller.
        gic: GicChoice,
    },
}

impl Fix for LayoutError {
    fn fix(&self) -> Option<String> {
        let at_most = |bytes| format!("ask for at most {} of memory", Size(bytes));
        Some(match *self {
            Self::NoMemory => "ask for some memory: 512 MiB suit most Linux guests".to_owned(),
            Self::TooLittleMemory { .. } => format!("ask for {} or more", Size(RAM_LEAST)),
            Self::OddMemory { asked } => {
                format!("ask for {} KiB", asked.next_multiple_of(RAM_UNIT) >> 10)
            }
            Self::TooMuchMemory { .. } => at_most(RAM_MOST),
            Self::MemoryBeyondHost { most, .. } => at_most(most),
            Self::MemoryBeyondSlots { slots, slot_bytes, .. } => {
                at_most(u64::from(slots).saturating_mul(slot_bytes))
            }
            Self::PciWithoutIts { gic: GicChoice::V2 } => {
                "ask for a GICv3, or for virtio devices on MMIO (`--transport mmio`)".to_owned()
            }
            Self::PciWithoutIts { .. } => {
                "ask for virtio devices on MMIO (`--transport mmio`)".to_owned()
            }
            Self::NoCpus => "ask for at least one vCPU".to_owned(),
            Self::TooManyCpus { most, .. } => format!("ask for at most {most} vCPUs"),
            Self::TooManyCpusForGic { gic, .. } => {
                format!("ask for at most {} vCPUs", gic.most_cpus())
            }
        })
    }
}

/// More devices than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooManyDevices {
    /// More virtio devices than there are interrupts for.
    #[error("a machine has room for {most} virtio devices, not for more")]
    Virtio {
        /// How many there can be.
        most: u32,
    },
    /// More devices of the program around the machine than there are addresses for.
    #[error("a machine has room for {OWN_DEVICES_MOST} devices of a program, not for more")]
    Own,
}

impl Fix for TooManyDevices {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Virtio { most } => format!("give the machine at most {most} virtio devices"),
            Self::Own => format!("bring at most {OWN_DEVICES_MOST} along"),
        })
    }
}
