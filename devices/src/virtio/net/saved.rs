//! A network card's saved state. Types here are frozen once released: a change is
//! a new version and a conversion.

use kedge_saved_state::{Bytes, Versioned};
use serde::{Deserialize, Serialize};

/// Version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetV1 {
    /// The card's address, where it was made with one.
    pub mac: Option<[u8; 6]>,
    /// The largest packet in bytes, where it was made with one.
    pub mtu: Option<u16>,
    /// A frame that was on its way from the network, with its header; empty where
    /// there was none.
    pub frame: Bytes,
}

impl Versioned for NetV1 {
    const KIND: &'static str = "virtio-net";
    const VERSION: u16 = 1;
}
