//! Virtio devices as a user asks for them. What kinds there are, and what their
//! words mean, is the catalogue's business.

use clap::{Arg, ArgAction};
use kedge_devices::virtio::catalog::{Clash, DeviceConfig, KINDS, Kind, arrange};
use kedge_diag::{Fix, Trouble};
use serde_json::Value;

use crate::flags::{Given, is_set, option, switch, text, texts};

/// Devices in the order in which the guest finds them.
pub(crate) type Devices = Vec<Box<dyn DeviceConfig>>;

/// Devices that a machine cannot have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadDevice {
    /// A flag's value, or an object of the configuration file, describes none.
    #[error(transparent)]
    Words(Trouble),
    /// An object of an array describes none.
    #[error("entry {number} of `{key}` describes no {noun}")]
    Entry {
        /// Its place in the array, from 1.
        number: usize,
        /// The array's key.
        key: &'static str,
        /// What it should describe.
        noun: &'static str,
        /// What the kind says.
        source: Trouble,
    },
    /// A key of the configuration file holds no array.
    #[error("`{key}` must hold an array of objects")]
    NoArray {
        /// The key.
        key: &'static str,
    },
    /// They cannot be together.
    #[error(transparent)]
    Clash(#[from] Clash),
}

impl Fix for BadDevice {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Words(source) | Self::Entry { source, .. } => source.fix(),
            Self::NoArray { key } => Some(format!("put it in brackets: \"{key}\": [ ... ]")),
            Self::Clash(source) => source.fix(),
        }
    }
}

/// The flags of `kedge run` for devices.
pub(crate) fn flags() -> impl Iterator<Item = Arg> {
    KINDS.iter().map(|kind| {
        let flag = match (kind.flag_value, kind.many) {
            ("", false) => switch(kind.flag),
            ("", true) => switch(kind.flag).action(ArgAction::Count),
            // All of it is optional.
            (value, false) if value.starts_with('[') => {
                option(kind.flag, value).num_args(0..=1).default_missing_value("")
            }
            (value, false) => option(kind.flag, value),
            (value, true) => option(kind.flag, value).action(ArgAction::Append),
        };
        flag.help(kind.flag_help)
    })
}

/// The devices that the flags ask for.
///
/// # Errors
/// A value makes no sense, or devices cannot be together.
pub(crate) fn from_flags(flags: &dyn Given) -> Result<Devices, BadDevice> {
    let mut devices = Devices::new();
    for kind in KINDS {
        for (index, value) in values(kind, flags).into_iter().enumerate() {
            devices.push((kind.from_flag)(value, index).map_err(BadDevice::Words)?);
        }
    }
    arrange(&mut devices)?;
    Ok(devices)
}

fn values<'a>(kind: &Kind, flags: &'a dyn Given) -> Vec<&'a str> {
    match (kind.flag_value, kind.many) {
        ("", false) => vec![""; usize::from(is_set(flags, kind.flag))],
        ("", true) => vec![""; text(flags, kind.flag).parse().unwrap_or(0)],
        _ => texts(flags, kind.flag),
    }
}

/// The devices that keys of the configuration file hold.
///
/// # Errors
/// A value describes none, or devices cannot be together.
pub(crate) fn from_json(
    keys: impl IntoIterator<Item = (&'static Kind, Value)>,
) -> Result<Devices, BadDevice> {
    let mut devices = Devices::new();
    for (kind, value) in keys {
        match (kind.many, value) {
            (false, value) => devices.push((kind.from_json)(value).map_err(BadDevice::Words)?),
            (true, Value::Array(entries)) => {
                for (index, entry) in entries.into_iter().enumerate() {
                    devices.push(from_entry(kind, index + 1, entry)?);
                }
            }
            (true, _) => return Err(BadDevice::NoArray { key: kind.key }),
        }
    }
    arrange(&mut devices)?;
    Ok(devices)
}

fn from_entry(
    kind: &Kind,
    number: usize,
    entry: Value,
) -> Result<Box<dyn DeviceConfig>, BadDevice> {
    let Kind { key, noun, .. } = *kind;
    (kind.from_json)(entry).map_err(|source| BadDevice::Entry { number, key, noun, source })
}
