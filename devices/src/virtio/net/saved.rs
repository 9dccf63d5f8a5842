//! A network card's saved state. Types here are frozen once released: a change is
//! a new version and a conversion.

use kedge_saved_state::{Bytes, Versioned};
use serde::{Deserialize, Serialize};

use crate::virtio::limits::saved::LimitsV1;

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
    /// Of the pairs of queues, where it was made with several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<PairsV1>,
    /// What is left of the limits on what the guest receives; none where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_limits: Option<LimitsV1>,
    /// The same, on what it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_limits: Option<LimitsV1>,
}

/// Version 1 of what a card with several pairs of queues has besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairsV1 {
    /// How many pairs the driver uses, from 1.
    pub in_use: u16,
    /// What `frame` is for the first pair, for each of the others.
    pub frames: Vec<Bytes>,
}

impl Versioned for NetV1 {
    const KIND: &'static str = "virtio-net";
    const VERSION: u16 = 1;
}
