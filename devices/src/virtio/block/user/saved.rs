//! The saved state of a disk that another process has. Types here are frozen once
//! released: a change is a new version and a conversion.

use kedge_saved_state::{Bytes, Versioned};
use serde::{Deserialize, Serialize};

/// Version 1: what the guest knows of its disk. All else its back end has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserBlockV1 {
    /// The configuration space as the guest reads it: 60 bytes.
    pub space: Bytes,
}

impl Versioned for UserBlockV1 {
    const KIND: &'static str = "vhost-user-block";
    const VERSION: u16 = 1;
}
