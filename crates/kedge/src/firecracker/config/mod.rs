//! The configuration file (FIRECRACKER_API.md, section 8): a JSON object whose
//! keys hold what the API's PUT requests would carry.
//!
//! Firecracker ignores keys it does not know; kedge refuses them, since a
//! misspelt `drives` is a machine without disks.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use kedge_api::call::{BootSource, Logger, MachineConfig, Metrics};
use kedge_devices::virtio::catalog::{KINDS, Kind};
use kedge_diag::{Fix, nearest};
use kedge_vmm::metadata::{BadConfig as BadMetadata, Config as MetadataConfig};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::configuration::Configuration;
use super::machine_config::{self, BadMachine};
use crate::devices::{self, BadDevice};
use crate::guest_abi::{self, BadKey};

/// What Firecracker knows besides and kedge does not have yet.
pub(crate) const NOT_YET: [&str; 3] = ["balloon", "memory-hotplug", "pmem"];
/// Keys that hold no device.
#[rustfmt::skip]
const PLAIN: [&str; 7] = [
    "boot-source", "machine-config", "logger", "metrics", "cpu-config", "guest-abi", "mmds-config",
];

/// A configuration file.
#[derive(Debug, Default)]
pub(super) struct Config {
    /// The machine.
    pub(super) machine: Configuration,
    /// The log; what it leaves out, the command line decides.
    pub(super) logger: Option<Logger>,
    /// Where metrics go.
    pub(super) metrics: Option<Metrics>,
}

/// A configuration file that describes no machine.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the configuration file `{}`", path.display())]
pub(super) struct BadFile {
    path: PathBuf,
    source: BadConfig,
}

impl Fix for BadFile {
    fn fix(&self) -> Option<String> {
        self.source.fix()
    }
}

/// What is wrong in a configuration file.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadConfig {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is no JSON, or not of this form.
    #[error("{0}")]
    Json(serde_json::Error),
    /// A key that nobody knows.
    #[error("there is no key `{key}`")]
    UnknownKey {
        /// The key.
        key: String,
        /// The one that is probably meant.
        near: Option<String>,
        /// Those there are.
        known: String,
    },
    /// A key that kedge does not know yet.
    #[error("kedge does not have `{0}` yet")]
    NotYet(&'static str),
    /// A machine needs a kernel.
    #[error("`boot-source` is missing")]
    NoBoot,
    /// A key that is there twice.
    #[error("`{0}` is there twice")]
    Twice(String),
    /// A machine that kedge does not have.
    #[error(transparent)]
    Machine(#[from] BadMachine),
    /// A device that cannot be had.
    #[error(transparent)]
    Device(#[from] BadDevice),
    /// A metadata service that cannot be had.
    #[error(transparent)]
    Metadata(#[from] BadMetadata),
    /// A profile or a CPU configuration that is none.
    #[error(transparent)]
    GuestAbi(#[from] BadKey),
}

impl Fix for BadConfig {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Read(_) => Some("name a file that exists and can be read".to_owned()),
            Self::Json(source) => fix_json(source),
            Self::UnknownKey { near, known, .. } => Some(match near {
                Some(near) => format!("write `{near}`"),
                None => format!("write one of: {known}"),
            }),
            Self::NotYet(_) => Some("leave it out, or set it to null".to_owned()),
            Self::NoBoot => {
                Some("add \"boot-source\": { \"kernel_image_path\": \"FILE\" }".to_owned())
            }
            Self::Twice(_) => Some("leave one of them out".to_owned()),
            Self::Machine(source) => source.fix(),
            Self::Device(source) => source.fix(),
            Self::Metadata(source) => source.fix(),
            Self::GuestAbi(source) => source.fix(),
        }
    }
}

/// Reads a configuration file.
///
/// # Errors
/// It cannot be read, or describes nothing that kedge can be.
pub(super) fn read(path: &Path) -> Result<Config, BadFile> {
    let text = fs::read_to_string(path).map_err(BadConfig::Read);
    text.and_then(|text| parse(&text)).map_err(|source| BadFile { path: path.to_owned(), source })
}

/// Reads the text of a configuration file.
///
/// # Errors
/// It describes nothing that kedge can be.
pub(super) fn parse(text: &str) -> Result<Config, BadConfig> {
    let mut json = serde_json::Deserializer::from_str(text);
    let document = json.deserialize_map(Keys).map_err(BadConfig::Json)?;
    json.end().map_err(BadConfig::Json)?;
    if let Some(wrong) = document.wrong {
        return Err(wrong);
    }
    document.machine.as_ref().map(machine_config::check).transpose()?;
    let mut machine = Configuration {
        boot: Some(document.boot.ok_or(BadConfig::NoBoot)?),
        machine: document.machine,
        devices: devices::from_json(document.devices)?,
        guest_abi: document.guest_abi.map(|raw| guest_abi::profile(text, raw)).transpose()?,
        cpu_config: document.cpu_config.map(|raw| guest_abi::cpu_config(text, raw)).transpose()?,
        serial: None,
        metadata: None,
    };
    if let Some(config) = document.metadata {
        machine.put_metadata(config)?;
    }
    Ok(Config { machine, logger: document.logger, metrics: document.metrics })
}

/// The top level as it is written.
#[derive(Default)]
struct Document<'a> {
    boot: Option<BootSource>,
    machine: Option<MachineConfig>,
    logger: Option<Logger>,
    metrics: Option<Metrics>,
    devices: Vec<(&'static Kind, Value)>,
    guest_abi: Option<&'a RawValue>,
    cpu_config: Option<&'a RawValue>,
    metadata: Option<MetadataConfig>,
    /// The first key that should not be there.
    wrong: Option<BadConfig>,
}

/// Reads the keys of the top level.
struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = Document<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a key `boot-source`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document<'de>, A::Error> {
        let mut document = Document::default();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let wrong = self.take(&key, &mut map, &mut document)?;
            let wrong = if seen.insert(key.clone()) { wrong } else { Some(BadConfig::Twice(key)) };
            document.wrong = document.wrong.or(wrong);
        }
        Ok(document)
    }
}

impl Keys {
    /// Takes the value of `key`, and says what is wrong with the key.
    fn take<'de, A: MapAccess<'de>>(
        &self,
        key: &str,
        map: &mut A,
        document: &mut Document<'de>,
    ) -> Result<Option<BadConfig>, A::Error> {
        match key {
            "boot-source" => document.boot = map.next_value()?,
            "machine-config" => document.machine = map.next_value()?,
            "logger" => document.logger = map.next_value()?,
            "metrics" => document.metrics = map.next_value()?,
            "guest-abi" => document.guest_abi = given(map.next_value()?),
            "cpu-config" => document.cpu_config = given(map.next_value()?),
            "mmds-config" => document.metadata = map.next_value()?,
            _ => {
                let value: Value = map.next_value()?;
                return Ok(self.take_other(key, value, document));
            }
        }
        Ok(None)
    }

    fn take_other(
        &self,
        key: &str,
        value: Value,
        document: &mut Document<'_>,
    ) -> Option<BadConfig> {
        // Firecracker's own examples list what they do not use as null.
        let is_absent = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        let kind = KINDS.iter().find(|kind| kind.key == key);
        match (kind, NOT_YET.iter().find(|known| **known == key)) {
            (None, None) => Some(self.unknown(key)),
            (_, _) if is_absent => None,
            (Some(kind), _) => {
                document.devices.push((kind, value));
                None
            }
            (None, Some(key)) => Some(BadConfig::NotYet(key)),
        }
    }

    fn unknown(&self, key: &str) -> BadConfig {
        let known = PLAIN.into_iter().chain(KINDS.iter().map(|kind| kind.key));
        BadConfig::UnknownKey {
            key: key.to_owned(),
            near: nearest(key, known.clone()).map(str::to_owned),
            known: known.collect::<Vec<_>>().join(", "),
        }
    }
}

/// A value that is there: Firecracker's own examples list what they do not use as null.
fn given(raw: &RawValue) -> Option<&RawValue> {
    (raw.get() != "null").then_some(raw)
}

/// What to do about JSON that is not as it should be. Where the parser names a
/// field and those it knows, each between backquotes, it may be a slip of the pen.
fn fix_json(error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    match error.classify() {
        Category::Data if text.starts_with("unknown field") => {
            let mut names = text.split('`').skip(1).step_by(2);
            let unknown = names.next()?;
            nearest(unknown, names).map(|near| format!("write `{near}`"))
        }
        Category::Data => None,
        _ => Some("mend the JSON at that line and column".to_owned()),
    }
}

#[cfg(test)]
mod tests;
