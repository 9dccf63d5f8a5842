//! `--rom`: memory that the guest can load from but not store to.

use std::path::PathBuf;

use clap::{Arg, ArgAction};
use kedge_devices::virtio::options::{OptionError, Options};
use kedge_vmm::spec::RomSpec;

use crate::flags::{Given, option, texts};

const FLAG: &str = "rom";
const USAGE: &str = "path=FILE,at=ADDRESS";
const OPTIONS: &[&str] = &["path", "at"];

/// The flag.
pub(super) fn flag() -> Arg {
    option(FLAG, USAGE)
        .action(ArgAction::Append)
        .help("Read-only memory: a file's bytes at a multiple of 64 KiB")
}

/// What it asks for, each time it is there.
///
/// # Errors
/// A value is not as [`USAGE`] says.
pub(super) fn from_flags(flags: &dyn Given) -> Result<Vec<RomSpec>, OptionError> {
    texts(flags, FLAG).into_iter().map(parse).collect()
}

fn parse(value: &str) -> Result<RomSpec, OptionError> {
    let options = Options::parse(FLAG, USAGE, OPTIONS, value)?;
    let path = PathBuf::from(options.needed("path")?);
    let at = options.needed("at")?;
    let address = at.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    match address {
        Some(address) => Ok(RomSpec { path, address }),
        None => Err(options.refuse("at", at, "an address in hexadecimal, such as 0x10000000")),
    }
}
