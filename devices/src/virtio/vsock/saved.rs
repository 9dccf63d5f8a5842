//! A vsock device's saved state. Types here are frozen once released: a change is a new
//! version and a conversion.

use kedge_saved_state::Versioned;
use serde::{Deserialize, Serialize};

/// Version 1. Connections are not saved: the other end of each is a process of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockV1 {
    /// The guest's address.
    pub guest_cid: u32,
    /// The port of the host's for the next connection to the guest: those before it may
    /// still be in use as far as the guest knows.
    pub next_port: u32,
}

impl Versioned for VsockV1 {
    const KIND: &'static str = "virtio-vsock";
    const VERSION: u16 = 1;
}
