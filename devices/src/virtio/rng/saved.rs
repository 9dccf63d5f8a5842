//! The entropy device's saved state. Types here are frozen once released: a change
//! is a new version and a conversion.

use kedge_saved_state::Versioned;
use serde::{Deserialize, Serialize};

/// Version 1: nothing. Entropy is never saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RngV1 {}

impl Versioned for RngV1 {
    const KIND: &'static str = "virtio-rng";
    const VERSION: u16 = 1;
}
