//! `kedge abi probe`: what this host can give its guests.

use std::io;
use std::path::PathBuf;

use clap::{ArgMatches, Command};
use kedge_diag::Fix;
use kedge_firmware::{HostAbi, ProbeError};
use kedge_hv::OpenError;

use super::{found, write};
use crate::flags::{file, help, path, switch};
use crate::hypervisor::Host;

/// Why a host cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    /// There is no hypervisor.
    #[error(transparent)]
    Hypervisor(#[from] OpenError),
    /// The host could not be probed.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The document cannot be written.
    #[error("cannot write what the host offers to `{}`", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

impl Fix for HostError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Hypervisor(source) => source.fix(),
            Self::Probe(source) => source.fix(),
            Self::Write { .. } => None,
        }
    }
}

/// The command.
pub(super) fn command() -> Command {
    Command::new("probe")
        .about("Find out what this host can give its guests, by trial on scratch machines")
        .disable_help_flag(true)
        .arg(switch("json").help("Print JSON instead of tables"))
        .arg(file("output").help("Write JSON to FILE, and print nothing unless --json is there"))
        .arg(help())
}

/// What this host can give its guests.
///
/// # Errors
/// There is no hypervisor, or it cannot be probed.
pub(super) fn this_host() -> Result<HostAbi, HostError> {
    Ok(kedge_firmware::probe(&Host::open()?)?)
}

/// What it prints.
///
/// # Errors
/// The host cannot be probed, or the file cannot be written.
pub(super) fn text(flags: &ArgMatches) -> Result<String, HostError> {
    let host = this_host()?;
    let json = flags.get_flag("json");
    let output = path(flags, "output");
    if let Some(path) = &output {
        write::whole(path, &host.to_json())
            .map_err(|source| HostError::Write { path: path.clone(), source })?;
    }
    Ok(match (json, output) {
        (true, _) => host.to_json(),
        (false, Some(_)) => String::new(),
        (false, None) => found::tables(&host),
    })
}
