//! What functions have in common, saved. Frozen: a change is a new version.

use kedge_saved_state::{Bytes, Versioned};
use serde::{Deserialize, Serialize};

/// An entry of an MSI-X table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MsixVectorV1 {
    /// Where its message is stored to.
    pub address: u64,
    /// What is stored.
    pub data: u32,
    /// Whether it is held back.
    pub masked: bool,
    /// Whether a message was held back.
    pub pending: bool,
}

/// A root port with a slot; the card is saved by itself. Version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortV1 {
    /// The 256 bytes of its configuration space.
    pub config: Bytes,
    /// Its MSI-X table, of one entry.
    pub vectors: Vec<MsixVectorV1>,
    /// Whether the guest is to be asked for the card once it has switched it on.
    pub is_to_ask: bool,
}

impl Versioned for PortV1 {
    const KIND: &'static str = "pci-port";
    const VERSION: u16 = 1;
}
