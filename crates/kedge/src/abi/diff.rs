//! `kedge abi diff`: two profiles, or two hosts, side by side.

use clap::{Arg, ArgMatches, Command};
use kedge_diag::Fix;
use kedge_firmware::Difference;

use super::document;
use super::load::{self, BadFile, Document};
use crate::columns::aligned;
use crate::flags::{help, switch, text};

/// Why two documents cannot be compared.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiffError {
    /// One of them cannot be had.
    #[error(transparent)]
    File(#[from] BadFile),
    /// A profile promises, a host offers.
    #[error("`{profile}` is a profile, and `{host}` is what a probe found on a host")]
    Unlike {
        /// The profile.
        profile: String,
        /// The host.
        host: String,
    },
}

impl Fix for DiffError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::File(source) => source.fix(),
            Self::Unlike { profile, host } => Some(format!(
                "ask whether the host can keep the promises: `kedge abi check --profile {profile} \
                 --host {host}`"
            )),
        }
    }
}

/// The command.
pub(super) fn command() -> Command {
    let side = |name, help| Arg::new(name).value_name(name).required(true).help(help);
    Command::new("diff")
        .about("Compare two profiles, or what probes found on two hosts, by register and field")
        .disable_help_flag(true)
        .after_help("Exit status: 0 when they are the same, 1 when they differ or after an error.")
        .arg(side("A", "A profile's name, or a file"))
        .arg(side("B", "Another"))
        .arg(switch("json").help("Print JSON instead of a table"))
        .arg(help())
}

/// What it prints, and whether there is any difference.
///
/// # Errors
/// There are no such documents, or they are not of one kind.
pub(super) fn compare(flags: &ArgMatches) -> Result<(String, bool), DiffError> {
    let (one, other) = (text(flags, "A"), text(flags, "B"));
    let differences = match (load::document(one)?, load::document(other)?) {
        (Document::Profile(one), Document::Profile(other)) => one.diff(&other),
        (Document::Host(one), Document::Host(other)) => one.diff(&other),
        (Document::Profile(_), Document::Host(_)) => {
            return Err(DiffError::Unlike { profile: one.to_owned(), host: other.to_owned() });
        }
        (Document::Host(_), Document::Profile(_)) => {
            return Err(DiffError::Unlike { profile: other.to_owned(), host: one.to_owned() });
        }
    };
    let differ = !differences.is_empty();
    let text = match flags.get_flag("json") {
        true => document(&differences),
        false if differ => table(&differences, one, other),
        false => String::new(),
    };
    Ok((text, differ))
}

fn table(differences: &[Difference], one: &str, other: &str) -> String {
    let mut rows = vec![[String::new(), String::new(), one.to_owned(), other.to_owned()]];
    let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "-".to_owned());
    rows.extend(differences.iter().map(|Difference { subject, part, one, other }| {
        [subject.clone(), part.clone(), side(one), side(other)]
    }));
    aligned(&rows)
}
