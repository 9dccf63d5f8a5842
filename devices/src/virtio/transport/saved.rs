//! A transport's saved state. Types here are frozen once released: a change is a
//! new version and a conversion.

use kedge_saved_state::{Bytes, Part, Versioned};
use serde::{Deserialize, Serialize};

use crate::pci::saved::MsixVectorV1;

/// What all transports have in common, and all that one on MMIO has. Version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransportV1 {
    /// What kind of device it is (Virtio 1.2, 5).
    pub device_id: u32,
    /// The status as the driver set it (2.1), without `DEVICE_NEEDS_RESET`.
    pub status: u32,
    /// Whether the device needs a reset.
    pub needs_reset: bool,
    /// The features that the guest was offered, the transport's own among them.
    pub offered: u64,
    /// The features that the driver accepted.
    pub accepted: u64,
    /// Whether the driver accepted any feature from 64 on.
    pub strange_features: bool,
    /// `DeviceFeaturesSel`.
    pub device_features_select: u32,
    /// `DriverFeaturesSel`.
    pub driver_features_select: u32,
    /// `QueueSel`.
    pub queue_select: u32,
    /// `InterruptStatus`.
    pub interrupt_status: u32,
    /// `ConfigGeneration`.
    pub config_generation: u32,
    /// The queues, in order of their indices.
    pub queues: Vec<QueueV1>,
    /// The device's own state.
    pub device: Part,
}

impl Versioned for TransportV1 {
    const KIND: &'static str = "virtio-mmio";
    const VERSION: u16 = 1;
}

/// A split virtqueue at rest (2.7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueV1 {
    /// The largest size that the guest was offered.
    pub max_size: u16,
    /// The size as the driver set it.
    pub size: u16,
    /// Whether the driver has set it up.
    pub ready: bool,
    /// The address of the descriptor table.
    pub descriptor_table: u64,
    /// The address of the available ring.
    pub available_ring: u64,
    /// The address of the used ring.
    pub used_ring: u64,
    /// The index of the next chain to take from the available ring.
    pub next_available: u16,
    /// The index of the next element to write to the used ring.
    pub next_used: u16,
}

/// A virtio device as a PCI function. Version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PciTransportV1 {
    /// The 256 bytes of its configuration space.
    pub config: Bytes,
    /// The vector that tells of a changed configuration; 0xffff for none.
    pub config_vector: u16,
    /// The vector of each queue; 0xffff for none.
    pub queue_vectors: Vec<u16>,
    /// Its MSI-X table.
    pub vectors: Vec<MsixVectorV1>,
    /// The rest: a [`TransportV1`].
    pub transport: Part,
}

impl Versioned for PciTransportV1 {
    const KIND: &'static str = "virtio-pci";
    const VERSION: u16 = 1;
}
