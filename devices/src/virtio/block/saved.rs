//! A block device's saved state. Types here are frozen once released: a change is
//! a new version and a conversion.

use kedge_saved_state::{Bytes, Versioned};
use serde::{Deserialize, Serialize};

use crate::virtio::limits::saved::LimitsV1;

/// Version 1: what the guest knows of its disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockV1 {
    /// The disk's size in sectors of 512 bytes.
    pub sectors: u64,
    /// The size of a block in bytes.
    pub block_size: u32,
    /// Buffers in a request, besides its header and its status.
    pub seg_max: u32,
    /// The serial number: 20 bytes.
    pub serial: Bytes,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// Whether the guest can flush.
    pub flush: bool,
    /// What is stored as one, as a power of two of blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_exp: Option<u8>,
    /// Whether all that the guest writes lasts at once: its disk has no cache, or it
    /// has turned it off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub write_through: bool,
    /// What is left of its limits; none where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsV1>,
}

impl Versioned for BlockV1 {
    const KIND: &'static str = "virtio-block";
    const VERSION: u16 = 1;
}
