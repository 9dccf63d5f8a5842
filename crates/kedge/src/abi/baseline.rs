//! `kedge abi baseline`: the greatest profile that every host of a fleet can give.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};
use kedge_diag::Fix;
use kedge_firmware::{Baseline, BaselineError, HostAbi, Loss, baseline};
use serde_json::json;

use super::load::{self, BadFile};
use super::{document, show, write};
use crate::columns::{aligned, row};
use crate::flags::{file, help, path, switch};

/// Why there is no baseline.
#[derive(Debug, thiserror::Error)]
pub(super) enum FleetError {
    /// A document cannot be had.
    #[error(transparent)]
    File(#[from] BadFile),
    /// The hosts have too little in common.
    #[error(transparent)]
    Baseline(#[from] BaselineError),
    /// The profile cannot be written.
    #[error("cannot write the profile to `{}`", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

impl Fix for FleetError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::File(source) => source.fix(),
            Self::Baseline(source) => source.fix(),
            Self::Write { .. } => None,
        }
    }
}

/// The command.
pub(super) fn command() -> Command {
    let hosts = Arg::new("hosts").value_name("HOST").num_args(1..).required(true);
    Command::new("baseline")
        .about(
            "Make the greatest profile that every host of a fleet can give, and say what is lost",
        )
        .disable_help_flag(true)
        .override_usage("kedge abi baseline HOST... [OPTIONS]")
        .arg(hosts.help("What `kedge abi probe --output FILE` wrote on each host"))
        .arg(file("output").help("Write the profile to FILE [default: print it]"))
        .arg(switch("json").help("Print JSON instead of tables"))
        .arg(help())
}

/// What it prints.
///
/// # Errors
/// A document cannot be had or written, or the hosts have too little in common.
pub(super) fn text(flags: &ArgMatches) -> Result<String, FleetError> {
    let paths: Vec<&String> = flags.get_many("hosts").unwrap_or_default().collect();
    let hosts = paths.iter().map(|path| Ok((name(path, &paths), load::host(path)?)));
    let hosts: Vec<(String, HostAbi)> = hosts.collect::<Result<_, BadFile>>()?;
    let found = baseline(&hosts)?;
    let output = path(flags, "output");
    if let Some(path) = &output {
        write::whole(path, &found.abi.to_json())
            .map_err(|source| FleetError::Write { path: path.clone(), source })?;
    }
    Ok(match (flags.get_flag("json"), output) {
        (true, _) => document(&json!({ "profile": found.abi, "losses": found.losses })),
        (false, None) => format!("{}\n{}", show::profile(&found.abi), losses(&found)),
        (false, Some(_)) => losses(&found),
    })
}

/// A host's file without folder and ending, where no other has the same.
fn name(path: &str, all: &[&String]) -> String {
    let stem = |path: &str| Path::new(path).file_stem().map(|stem| stem.display().to_string());
    let same = all.iter().filter(|other| stem(other) == stem(path)).count();
    stem(path).filter(|_| same == 1).unwrap_or_else(|| path.to_owned())
}

fn losses(found: &Baseline) -> String {
    if found.losses.is_empty() {
        return "Nothing is lost: every host has all of it.\n".to_owned();
    }
    let mut rows = vec![row(["LOST", "SINCE HOST", ""])];
    rows.extend(
        found
            .losses
            .iter()
            .map(|Loss { subject, host, reason }| [subject.clone(), host.clone(), reason.clone()]),
    );
    aligned(&rows)
}
