//! `kedge abi`: what a guest sees of its firmware and its CPU, and what a host can
//! offer of it.

mod columns;
mod found;
mod registers;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::{ArgMatches, Command};
use kedge_diag::Fix;
use kedge_firmware::{HostAbi, ProbeError};
use kedge_hv::OpenError;
use kedge_hv_kvm::Kvm;

use crate::flags::{file, help, path, switch};
use crate::output;
use crate::status::{Failure, Status};
use crate::usage::{self, Line};

const EXAMPLES: &str = "\
Examples:
  What guests can be given here:             kedge abi probe
  The same for a program, or another day:    kedge abi probe --output host.json
  What there is to know of each register:    kedge abi registers";

/// Why a host cannot be shown.
#[derive(Debug, thiserror::Error)]
enum AbiError {
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

impl Fix for AbiError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Hypervisor(source) => source.fix(),
            Self::Probe(source) => source.fix(),
            Self::Write { .. } => None,
        }
    }
}

/// `kedge abi`.
pub(crate) fn command() -> Command {
    Command::new("abi")
        .bin_name("kedge abi")
        .about("Show what a host's firmware offers its guests")
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .after_help(EXAMPLES)
        .arg(help())
        .subcommands([probe(), registers()])
}

fn probe() -> Command {
    Command::new("probe")
        .about("Find out what this host can give its guests, by trial on scratch machines")
        .disable_help_flag(true)
        .arg(switch("json").help("Print JSON instead of tables"))
        .arg(file("output").help("Write JSON to FILE, and print nothing unless --json is there"))
        .arg(help())
}

fn registers() -> Command {
    Command::new("registers")
        .about("List the firmware registers that kedge knows, with their values")
        .disable_help_flag(true)
        .arg(help())
}

/// Does what `words`, from `abi` on, ask for.
///
/// # Errors
/// They make no sense, there is no hypervisor, or the host cannot be probed.
pub(crate) fn enter(words: &[OsString]) -> Result<Status, Failure> {
    let line = usage::parse(command(), words, "kedge abi --help")
        .map_err(|error| Failure::new(Status::USAGE, error))?;
    let flags = match line {
        Line::Answer(text) => return output::answer(&text),
        Line::Flags(flags) => flags,
    };
    match flags.subcommand() {
        Some(("probe", flags)) => {
            let text = probed(flags).map_err(|error| Failure::new(Status::ERROR, error))?;
            output::answer(&text)
        }
        _ => output::answer(&registers::table()),
    }
}

/// What `kedge abi probe` prints.
fn probed(flags: &ArgMatches) -> Result<String, AbiError> {
    let host = kedge_firmware::probe(&Kvm::open()?)?;
    let json = flags.get_flag("json");
    let output = path(flags, "output");
    if let Some(output) = &output {
        write(output, &host)?;
    }
    Ok(match (json, output) {
        (true, _) => document(&host),
        (false, Some(_)) => String::new(),
        (false, None) => found::tables(&host),
    })
}

fn write(path: &Path, host: &HostAbi) -> Result<(), AbiError> {
    fs::write(path, document(host))
        .map_err(|source| AbiError::Write { path: path.to_owned(), source })
}

fn document(host: &HostAbi) -> String {
    serde_json::to_string_pretty(host).expect("texts and numbers are always JSON") + "\n"
}
