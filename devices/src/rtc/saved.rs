//! The real-time clock's saved state. Types here are frozen once released: a
//! change is a new version and a conversion.

use kedge_saved_state::Versioned;
use serde::{Deserialize, Serialize};

/// Version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pl031V1 {
    /// What the counter is ahead of the clock, in seconds modulo 2^32.
    pub offset: u32,
    /// When the counter next reaches the match register, in seconds since 1970.
    pub match_at: u64,
    /// What was last written to the load register.
    pub load: u32,
    /// Whether the interrupt is let through.
    pub masked_in: bool,
    /// Whether the interrupt is raised.
    pub raised: bool,
}

impl Versioned for Pl031V1 {
    const KIND: &'static str = "pl031";
    const VERSION: u16 = 1;
}
