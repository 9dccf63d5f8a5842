//! The generation's saved state. Types here are frozen once released: a change is
//! a new version and a conversion.

use kedge_saved_state::Versioned;
use serde::{Deserialize, Serialize};

/// Version 1: nothing. Who is restored is never who was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationV1 {}

impl Versioned for GenerationV1 {
    const KIND: &'static str = "vmgenid";
    const VERSION: u16 = 1;
}
