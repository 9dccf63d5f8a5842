//! `kedge snapshot`: machines saved, loaded, and looked at.

mod create;
mod inspect;
mod load;
mod rebase;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::flags::{file, help, path};
use crate::output;
use crate::status::{Failure, Status};
use crate::usage::{self, Line};

pub(crate) use create::create;
pub(crate) use inspect::{version, version_of};
pub(crate) use load::{REPORT, flags as load_flags};

const EXAMPLES: &str = "\
Examples:
  kedge snapshot create web --state web.state --memory web.mem
  kedge snapshot load web.state --memory web.mem --id web-2 --net tap=tap2
  kedge snapshot inspect web.state
  kedge snapshot verify web.state --memory web.mem";

/// What the command is for.
pub(crate) const ABOUT: &str = "Save machines, load them, and look at what was saved";

/// `kedge snapshot`.
pub(crate) fn command() -> Command {
    Command::new("snapshot")
        .bin_name("kedge snapshot")
        .about(ABOUT)
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .after_help(EXAMPLES)
        .arg(help())
        .subcommands([
            create::command(),
            load::command(),
            inspect::command(),
            inspect::verify_command(),
            rebase::command(),
        ])
}

/// Does what `words`, from `snapshot` on, ask for.
///
/// # Errors
/// They make no sense, or it cannot be done.
pub(crate) fn enter(words: &[OsString]) -> Result<Status, Failure> {
    let line = usage::parse(command(), words, "kedge snapshot --help")
        .map_err(|error| Failure::new(Status::USAGE, error))?;
    let flags = match line {
        Line::Answer(text) => return output::answer(&text),
        Line::Flags(flags) => flags,
    };
    match flags.subcommand() {
        Some(("create", flags)) => create::enter(flags),
        Some(("load", flags)) => load::enter(flags),
        Some(("inspect", flags)) => inspect::enter(flags),
        Some(("verify", flags)) => inspect::verify(flags),
        Some(("rebase", flags)) => rebase::enter(flags),
        _ => Ok(Status::USAGE),
    }
}

/// The state file, by its place on the command line.
fn state_file() -> Arg {
    Arg::new("state")
        .value_name("STATE")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("The snapshot's state file")
}

/// The memory file.
fn memory_file() -> Arg {
    file("memory").required(true).help("The snapshot's memory file")
}

/// The files that the flags name.
fn files(flags: &ArgMatches) -> [PathBuf; 2] {
    ["state", "memory"].map(|name| path(flags, name).unwrap_or_default())
}
