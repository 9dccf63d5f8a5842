//! `kedge events`: what becomes of a machine.

use std::io::{self, Write};

use clap::{ArgMatches, Command};
use kedge_api::http::listen;

use super::{Machine, RemoteError};
use crate::flags::help;
use crate::status::{Failure, Status};

const LINES: &str = "\
A line of JSON for each event, as it happens, until the machine ends: docs/events.md. The first one
says how the machine is.";

/// `kedge events`.
pub(super) fn command() -> Command {
    Command::new("events")
        .bin_name("kedge events")
        .about("Print what becomes of a machine, as it happens")
        .disable_help_flag(true)
        .after_help(LINES)
        .args(Machine::flags())
        .arg(help())
}

/// Does it.
///
/// # Errors
/// The machine does not answer.
pub(super) fn enter(flags: &ArgMatches) -> Result<Status, Failure> {
    let machine = Machine::of(flags);
    let mut output = io::stdout();
    // A reader that has seen enough, as `head` has, is the end and no error.
    let print = |lines: &[u8]| output.write_all(lines).and_then(|()| output.flush());
    let failed = |source| RemoteError::Call { done: "listened to", source };
    let heard = listen(machine.socket(), "/events", print);
    heard.map_err(|source| Failure::new(Status::ERROR, failed(source)))?;
    Ok(Status::OK)
}
