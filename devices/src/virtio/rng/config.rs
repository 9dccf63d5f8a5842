//! What a user says about the entropy device.

use kedge_diag::{Fix, Trouble};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Rng;
use crate::virtio::body;
use crate::virtio::catalog::{DeviceConfig, Kind, Parsed};
use crate::virtio::device::VirtioDevice;
use crate::virtio::limits::RateLimiter;

/// The row of the catalogue.
pub static KIND: Kind = Kind {
    noun: "entropy device",
    flag: "rng",
    flag_value: "",
    flag_help: "Give the guest random bytes from the host",
    key: "entropy",
    many: false,
    from_flag,
    from_json,
    id_field: "",
    host_fields: &[],
    override_value: "",
    change: None,
};

/// An entropy device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RngConfig;

/// `PUT /entropy`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    rate_limiter: Option<RateLimiter>,
}

/// The flag has a value.
#[derive(Debug, thiserror::Error)]
#[error("--rng takes no value, and has `{value}`")]
struct NoValue {
    value: String,
}

impl Fix for NoValue {
    fn fix(&self) -> Option<String> {
        Some("write --rng".to_owned())
    }
}

fn from_flag(value: &str, _index: usize) -> Parsed {
    if value.is_empty() {
        return Ok(Box::new(RngConfig));
    }
    Err(Trouble::new(NoValue { value: value.to_owned() }))
}

fn from_json(value: Value) -> Parsed {
    let Body { rate_limiter } = body::parse(KIND.key, value).map_err(Trouble::new)?;
    RateLimiter::refuse(rate_limiter, KIND.key, "rate_limiter").map_err(Trouble::new)?;
    Ok(Box::new(RngConfig))
}

impl DeviceConfig for RngConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    /// There is one at most, so Firecracker gives it no name.
    fn id(&self) -> &str {
        "rng"
    }

    fn to_json(&self) -> Value {
        json!({})
    }

    fn open(&self) -> Result<Box<dyn VirtioDevice>, Trouble> {
        Ok(Box::new(Rng::new()))
    }
}
