//! `PUT /logger` (FIRECRACKER_API.md, 3.6): what the log says, and where. The configuration
//! file holds the same object.

use std::path::PathBuf;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};
use tracing::level_filters::LevelFilter;

use super::{Call, Fault, Parsed, body};

/// Firecracker's names of levels, in any case.
pub const LEVELS: &[(&str, LevelFilter)] = &[
    ("Error", LevelFilter::ERROR),
    ("Warning", LevelFilter::WARN),
    ("Info", LevelFilter::INFO),
    ("Debug", LevelFilter::DEBUG),
    ("Trace", LevelFilter::TRACE),
    ("Off", LevelFilter::OFF),
];

/// What lines of the log are like. kedge's own: Firecracker's are text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Firecracker's.
    #[default]
    Text,
    /// A JSON object each.
    Json,
}

/// The formats by their names.
pub const LOG_FORMATS: &[(&str, LogFormat)] =
    &[("text", LogFormat::Text), ("json", LogFormat::Json)];

/// What the log is to be; what is left out stays, but for the level, which is `Info` then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logger {
    /// Its file or FIFO.
    pub log_path: Option<PathBuf>,
    /// How much it says.
    #[serde(default, deserialize_with = "level")]
    pub level: Option<LevelFilter>,
    /// Whether its lines have a level.
    pub show_level: Option<bool>,
    /// Whether its lines have a file and a line number.
    pub show_log_origin: Option<bool>,
    /// The path of the module that alone is heard, with those within.
    pub module: Option<String>,
    /// What its lines are like; kedge's own.
    pub log_format: Option<LogFormat>,
}

pub(super) fn read(bytes: &[u8]) -> Result<Parsed, Fault> {
    Ok(Call::SetLogger(body::read(bytes)?).into())
}

/// A level of the log by Firecracker's name, in any case.
fn level<'de, D: Deserializer<'de>>(from: D) -> Result<Option<LevelFilter>, D::Error> {
    let Some(name) = Option::<String>::deserialize(from)? else { return Ok(None) };
    let row = LEVELS.iter().find(|row| row.0.eq_ignore_ascii_case(&name));
    let names = "Error, Warning, Info, Debug, Trace or Off";
    row.map(|row| Some(row.1))
        .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&name), &names))
}
