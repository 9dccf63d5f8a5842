//! What functions have in common, saved. Frozen: a change is a new version.

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
