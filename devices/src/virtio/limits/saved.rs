//! What is left of a device's limits when it is saved: part of the device's own
//! state. Types here are frozen once released.
//!
//! How fast the device may go is its configuration's to say, which may be another
//! where the machine is restored; a budget goes over as far as it fits.

use serde::{Deserialize, Serialize};

/// Version 1: what each bucket holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsV1 {
    /// Of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<BucketV1>,
    /// Of operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<BucketV1>,
}

/// What a bucket holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketV1 {
    /// Tokens; below 0 where more were taken than there were.
    pub budget: i64,
    /// Tokens that are spent first and never come back.
    pub burst: u64,
}
