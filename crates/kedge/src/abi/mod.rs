//! `kedge abi`: what a guest sees of its firmware and its CPU, what a host can offer of
//! it, and what a guest can be promised.

mod baseline;
pub(crate) mod check;
mod diff;
mod found;
pub(crate) mod load;
mod probe;
mod registers;
mod show;
mod write;

use std::ffi::OsString;

use clap::Command;
use kedge_diag::Fix;
use serde::Serialize;

use crate::flags::help;
use crate::output;
use crate::status::{Failure, Status};
use crate::usage::{self, Line};

const EXAMPLES: &str = "\
Examples:
  What guests can be given here:             kedge abi probe
  The same for a program, or another day:    kedge abi probe --output host.json
  What all hosts of a fleet can promise:     kedge abi baseline a.json b.json --output fleet.json
  Whether this host can keep a promise:      kedge abi check --profile arm64-v1
  What guests are promised:                  kedge abi show arm64-v1
  How two hosts, or two profiles, differ:    kedge abi diff a.json b.json
  What there is to know of each register:    kedge abi registers";

/// `kedge abi`.
pub(crate) fn command() -> Command {
    Command::new("abi")
        .bin_name("kedge abi")
        .about(ABOUT)
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .after_help(EXAMPLES)
        .arg(help())
        .subcommands([
            probe::command(),
            baseline::command(),
            check::command(),
            show::command(),
            diff::command(),
            registers::command(),
        ])
}

/// What the command is for.
pub(crate) const ABOUT: &str = "Show what guests are promised of firmware, and what hosts offer";

/// Does what `words`, from `abi` on, ask for.
///
/// # Errors
/// They make no sense, a document cannot be used, or a host cannot be probed.
pub(crate) fn enter(words: &[OsString]) -> Result<Status, Failure> {
    let line = usage::parse(command(), words, "kedge abi --help")
        .map_err(|error| Failure::new(Status::USAGE, error))?;
    let flags = match line {
        Line::Answer(text) => return output::answer(&text),
        Line::Flags(flags) => flags,
    };
    match flags.subcommand() {
        Some(("probe", flags)) => output::answer(&probe::text(flags).map_err(failed)?),
        Some(("show", flags)) => output::answer(&show::text(flags).map_err(failed)?),
        Some(("baseline", flags)) => output::answer(&baseline::text(flags).map_err(failed)?),
        Some(("check", flags)) => {
            let (text, refused) = check::plan(flags).map_err(failed)?;
            verdict(&text, refused)
        }
        Some(("diff", flags)) => {
            let (text, differ) = diff::compare(flags).map_err(failed)?;
            verdict(&text, differ)
        }
        _ => output::answer(&registers::table()),
    }
}

/// Prints `text`; what it is a `complaint` about makes scripts stop.
fn verdict(text: &str, complaint: bool) -> Result<Status, Failure> {
    output::answer(text)?;
    Ok(if complaint { Status::ERROR } else { Status::OK })
}

fn failed(error: impl Fix + Send + Sync + 'static) -> Failure {
    Failure::new(Status::ERROR, error)
}

/// `value` as JSON for a program.
fn document(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("texts and numbers are always JSON") + "\n"
}
