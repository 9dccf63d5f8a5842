//! What a user says about the entropy device.

use kedge_diag::Trouble;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Rng;
use super::syscalls::SYSCALLS;
use crate::virtio::body::{self, object_or_null};
use crate::virtio::catalog::{ApiWords, DeviceConfig, Kind, Parsed};
use crate::virtio::device::VirtioDevice;
use crate::virtio::limits::RateLimiter;
use crate::virtio::options::Options;

/// The row of the catalogue.
pub static KIND: Kind = Kind {
    noun: "entropy device",
    flag: "rng",
    flag_value: "[bandwidth=RATE][,ops=RATE]",
    flag_help: "Give the guest random bytes from the host",
    key: "entropy",
    many: false,
    from_flag,
    from_json,
    id_field: "",
    host_fields: &[],
    override_value: "",
    syscalls: SYSCALLS,
    change: None,
    api: ApiWords {
        noun: "Entropy",
        unopened: "Could not create entropy device: ",
        deprecated: &[],
    },
};

/// An entropy device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RngConfig {
    /// How much it gives.
    pub limits: RateLimiter,
}

/// `PUT /entropy`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default, deserialize_with = "object_or_null")]
    rate_limiter: Option<RateLimiter>,
}

fn from_flag(value: &str, _index: usize) -> Parsed {
    let options = Options::parse(KIND.flag, KIND.flag_value, &["bandwidth", "ops"], value);
    let limits = options
        .and_then(|options| RateLimiter::from_options(&options, "bandwidth", "ops"))
        .map_err(Trouble::new)?;
    Ok(Box::new(RngConfig { limits }))
}

fn from_json(value: Value) -> Parsed {
    let Body { rate_limiter } = body::parse(KIND.key, value).map_err(Trouble::new)?;
    Ok(Box::new(RngConfig { limits: rate_limiter.unwrap_or_default() }))
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
        match self.limits.to_json() {
            Value::Null => json!({}),
            limits => json!({ "rate_limiter": limits }),
        }
    }

    fn open(&self) -> Result<Box<dyn VirtioDevice>, Trouble> {
        Ok(Box::new(Rng::new().limited(self.limits)))
    }
}
