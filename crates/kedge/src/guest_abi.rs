//! `--guest-abi` and its like in configuration files: the profile of a machine.

use std::path::Path;

use clap::Arg;
use kedge_diag::Fix;
use kedge_firmware::{ARM64_V1, BadDocument, CpuConfig, GuestAbi, builtin};
use serde_json::value::RawValue;

use crate::abi::load::{self, BadFile};
use crate::flags::{Given, option, text};

const FLAG: &str = "guest-abi";

/// The flag.
pub(crate) fn flag() -> Arg {
    option(FLAG, "NAME|FILE").help(
        "What the guest is promised of its firmware and its CPU, for life:\n\
         a profile's name or file; see `kedge abi show` [default: arm64-v1]",
    )
}

/// The profile that the flag names, if it is there.
///
/// # Errors
/// There is none, or the file is no profile.
pub(crate) fn from_flags(flags: &dyn Given) -> Result<Option<GuestAbi>, BadFile> {
    match text(flags, FLAG) {
        "" => Ok(None),
        name => load::profile(name).map(Some),
    }
}

/// The profile of a machine for which nobody asks for another.
pub(crate) fn default() -> GuestAbi {
    builtin(ARM64_V1).expect("every release has its default profile")
}

/// What is wrong with a profile, or with a CPU configuration, that a configuration file
/// names or holds.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadKey {
    /// The file that it names.
    #[error(transparent)]
    File(#[from] BadFile),
    /// What it holds.
    #[error("cannot use the value of `{key}`")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong in it, with its place in the file.
        source: Box<BadDocument>,
    },
}

impl Fix for BadKey {
    fn fix(&self) -> Option<String> {
        match self {
            Self::File(source) => source.fix(),
            Self::Value { source, .. } => source.fix(),
        }
    }
}

/// The profile that `value`, part of the configuration file `text`, names or is.
///
/// # Errors
/// It is none.
pub(crate) fn profile(text: &str, value: &RawValue) -> Result<GuestAbi, BadKey> {
    if let Ok(name) = serde_json::from_str::<String>(value.get()) {
        return Ok(load::profile(&name)?);
    }
    let read = GuestAbi::read(in_place(text, value).as_bytes());
    read.map_err(|source| BadKey::Value { key: "guest-abi", source: Box::new(source) })
}

/// The CPU configuration that `value`, part of the configuration file `text`, is or
/// whose file it names.
///
/// # Errors
/// It is none.
pub(crate) fn cpu_config(text: &str, value: &RawValue) -> Result<CpuConfig, BadKey> {
    if let Ok(name) = serde_json::from_str::<String>(value.get()) {
        return Ok(load::cpu_config(Path::new(&name))?);
    }
    let read = CpuConfig::read(in_place(text, value).as_bytes());
    read.map_err(|source| BadKey::Value { key: "cpu-config", source: Box::new(source) })
}

/// The text of `value`, a part of `text`, alone and in its place: all before it is blank.
fn in_place(text: &str, value: &RawValue) -> String {
    let offset = value.get().as_ptr().addr().saturating_sub(text.as_ptr().addr());
    let before = text.get(..offset).unwrap_or_default();
    let blank = before.chars().map(|char| if char == '\n' { '\n' } else { ' ' });
    blank.chain(value.get().chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_text_keeps_its_lines_and_columns() {
        let text = "[ \"ä\",\n  {} ]";
        let parts: Vec<&RawValue> = serde_json::from_str(text).unwrap();
        assert_eq!(in_place(text, parts[1]), "      \n  {}");
    }
}
