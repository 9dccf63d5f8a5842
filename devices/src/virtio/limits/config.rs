//! What a user says about limits: in Firecracker's JSON, and in options of a flag.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::virtio::body::{BodyError, object_or_null};
use crate::virtio::options::{OptionError, Options};

/// Firecracker's `RateLimiter`: limits on bytes and on operations. Without either,
/// nothing is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimiter {
    /// On bytes.
    #[serde(default, deserialize_with = "object_or_null")]
    pub bandwidth: Option<TokenBucket>,
    /// On operations: requests, frames.
    #[serde(default, deserialize_with = "object_or_null")]
    pub ops: Option<TokenBucket>,
}

/// Firecracker's `TokenBucket`. One of size 0, or refilled in no time, limits
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBucket {
    /// What it holds when full, in bytes or operations.
    pub size: u64,
    /// Milliseconds in which an empty one fills.
    pub refill_time: u64,
    /// What it holds beside that at first, and never again.
    pub one_time_burst: Option<u64>,
}

impl RateLimiter {
    /// The limits that `options` ask for: the option `bandwidth` in bytes and the
    /// option `ops` in operations, each as `RATE[/TIME][+BURST]`.
    ///
    /// # Errors
    /// A value is of another form, or limits nothing.
    pub fn from_options(
        options: &Options,
        bandwidth: &'static str,
        ops: &'static str,
    ) -> Result<Self, OptionError> {
        let bucket = |name, unit, wanted| {
            let Some(text) = options.value(name) else { return Ok(None) };
            let bucket = TokenBucket::parse(text, unit);
            bucket.map(Some).ok_or_else(|| options.refuse(name, text, wanted))
        };
        Ok(Self {
            bandwidth: bucket(bandwidth, Unit::Bytes, BANDWIDTH)?,
            ops: bucket(ops, Unit::Operations, OPS)?,
        })
    }

    /// These limits after `change`, whose buckets take the place of those here; where
    /// it has none, those here stay.
    #[must_use]
    pub fn changed(self, change: Self) -> Self {
        let Self { bandwidth, ops } = change;
        Self { bandwidth: bandwidth.or(self.bandwidth), ops: ops.or(self.ops) }
    }

    /// As the configuration file would hold them: null where nothing is limited.
    pub fn to_json(self) -> Value {
        let bucket = |bucket: Option<TokenBucket>| bucket.filter(TokenBucket::is_limit);
        match (bucket(self.bandwidth), bucket(self.ops)) {
            (None, None) => Value::Null,
            (bandwidth, ops) => json!({ "bandwidth": bandwidth, "ops": ops }),
        }
    }

    /// Refuses a limit, for a device that has none yet; one that limits nothing is
    /// fine.
    ///
    /// # Errors
    /// `limiter`, under `field` of `key`, limits something.
    pub fn refuse(
        limiter: Option<Self>,
        key: &'static str,
        field: &'static str,
    ) -> Result<(), BodyError> {
        match limiter.unwrap_or_default().to_json() {
            Value::Null => Ok(()),
            _ => Err(BodyError::Unsupported { key, field }),
        }
    }
}

const BANDWIDTH: &str = "bytes in a second, as in `64M`; in another time, as in `64M/100ms`; and \
                         what may go at once at first, as in `64M+1G`";
const OPS: &str = "operations in a second, as in `5000`; in another time, as in `500/100ms`; and \
                   what may go at once at first, as in `5000+100000`";

/// What tokens stand for.
#[derive(Clone, Copy)]
enum Unit {
    /// A suffix multiplies them by a power of 1024.
    Bytes,
    Operations,
}

impl Unit {
    fn parse(self, text: &str) -> Option<u64> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match (self, &text[digits.len()..]) {
            (_, "") => 0,
            (Self::Bytes, "K") => 10,
            (Self::Bytes, "M") => 20,
            (Self::Bytes, "G") => 30,
            (Self::Bytes, "T") => 40,
            _ => return None,
        };
        plain(digits)?.checked_mul(1 << shift)
    }
}

/// Digits alone: `parse` takes a sign, too.
fn plain(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl TokenBucket {
    fn is_limit(&self) -> bool {
        self.size != 0 && self.refill_time != 0
    }

    /// `RATE[/TIME][+BURST]`; none where `text` is of another form or limits nothing.
    fn parse(text: &str, unit: Unit) -> Option<Self> {
        let (rate, burst) = match text.split_once('+') {
            Some((rate, burst)) => (rate, Some(unit.parse(burst)?)),
            None => (text, None),
        };
        let (size, time) = rate.split_once('/').unwrap_or((rate, "1s"));
        let refill_time = match time.strip_suffix("ms") {
            Some(milliseconds) => plain(milliseconds)?,
            None => plain(time.strip_suffix('s')?)?.checked_mul(1000)?,
        };
        let bucket = Self { size: unit.parse(size)?, refill_time, one_time_burst: burst };
        bucket.is_limit().then_some(bucket)
    }
}
