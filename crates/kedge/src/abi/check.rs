//! `kedge abi check`: whether a host can give what a profile promises.

use clap::{ArgMatches, Command};
use kedge_diag::Fix;
use kedge_firmware::{Plan, PlanLine, Verdict};

use super::columns::{aligned, row};
use super::document;
use super::load::{self, BadFile};
use super::probe::{self, HostError};
use crate::flags::{help, option, switch, text};

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    /// A document cannot be had.
    #[error(transparent)]
    File(#[from] BadFile),
    /// This host cannot be probed.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl Fix for CheckError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::File(source) => source.fix(),
            Self::Host(source) => source.fix(),
        }
    }
}

/// The command.
pub(super) fn command() -> Command {
    Command::new("check")
        .about("Say, register by register, whether a host can give what a profile promises")
        .disable_help_flag(true)
        .after_help("Exit status: 0 when it can, 1 when it cannot or after an error.")
        .arg(option("profile", "NAME|FILE").required(true).help("The profile"))
        .arg(option("host", "FILE").help("What a probe found there [default: probe this host]"))
        .arg(switch("json").help("Print JSON instead of a table"))
        .arg(help())
}

/// What it prints, and whether the host cannot.
///
/// # Errors
/// There is no such profile or host.
pub(super) fn plan(flags: &ArgMatches) -> Result<(String, bool), CheckError> {
    let abi = load::profile(text(flags, "profile"))?;
    let host = match text(flags, "host") {
        "" => probe::this_host()?,
        path => load::host(path)?,
    };
    let plan = kedge_firmware::check(&abi, &host);
    let text = if flags.get_flag("json") { document(&plan) } else { table(&plan) };
    Ok((text, plan.is_refused()))
}

fn table(plan: &Plan) -> String {
    let mut rows = vec![row(["", "REGISTER OR PART", "PROMISED", "HOST", ""])];
    rows.extend(plan.lines.iter().map(line));
    let mut text = aligned(&rows);
    let refused = plan.refusals().count();
    text += &match refused {
        0 => "\nThe host can keep every promise.\n".to_owned(),
        1 => "\nThe host cannot keep one promise.\n".to_owned(),
        more => format!("\nThe host cannot keep {more} promises.\n"),
    };
    for cure in plan.cures() {
        text += &format!("  fix: {cure}\n");
    }
    text
}

fn line(line: &PlanLine) -> [String; 5] {
    let PlanLine { subject, wanted, offered, verdict } = line;
    let (word, why) = match verdict {
        Verdict::Keep => ("keep", String::new()),
        Verdict::Adapt { why } => ("adapt", why.clone()),
        Verdict::Refuse { why, .. } => ("REFUSE", why.clone()),
    };
    [word.to_owned(), subject.to_string(), wanted.clone(), offered.clone(), why]
}
