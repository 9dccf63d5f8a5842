//! The entropy device's saved state. Types here are frozen once released: a change
//! is a new version and a conversion.

use kedge_saved_state::Versioned;
use serde::{Deserialize, Serialize};

use crate::virtio::limits::saved::LimitsV1;

/// Version 1. Entropy is never saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RngV1 {
    /// What is left of its limits; none where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsV1>,
}

impl Versioned for RngV1 {
    const KIND: &'static str = "virtio-rng";
    const VERSION: u16 = 1;
}
