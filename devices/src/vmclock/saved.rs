//! The machine clock's saved state. Types here are frozen once released: a change
//! is a new version and a conversion.

use kedge_saved_state::Versioned;
use serde::{Deserialize, Serialize};

/// Version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmClockV1 {
    /// `seq_count`: even, and 2 more with each change.
    pub sequence: u32,
    /// `disruption_marker`.
    pub disruptions: u64,
    /// `vm_generation_counter`.
    pub generations: u64,
}

impl Versioned for VmClockV1 {
    const KIND: &'static str = "vmclock";
    const VERSION: u16 = 1;
}
