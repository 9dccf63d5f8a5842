//! `PUT /metrics` (FIRECRACKER_API.md, 3.6): where metrics go. The configuration file holds
//! the same object. Firecracker takes fields that it does not know, here alone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Call, Fault, Parsed, body};

/// Where metrics go, and what stands beside them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Metrics {
    /// Their file or FIFO.
    pub metrics_path: PathBuf,
    /// Whether each line has the machine's name.
    #[serde(default)]
    pub emit_id: bool,
    /// More that each line has, as its user likes.
    pub properties: Option<BTreeMap<String, String>>,
}

impl Metrics {
    /// Metrics in `path`, and nothing beside them.
    pub fn to(path: PathBuf) -> Self {
        Self { metrics_path: path, emit_id: false, properties: None }
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<Parsed, Fault> {
    Ok(Call::SetMetrics(body::read(bytes)?).into())
}
