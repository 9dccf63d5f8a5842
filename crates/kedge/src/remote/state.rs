//! `kedge pause` and `kedge resume`.

use clap::{ArgMatches, Command};

use super::Machine;
use crate::flags::help;
use crate::status::{Failure, Status};

/// `kedge pause`.
pub(super) fn pause_command() -> Command {
    command("pause", "Make a running machine stand still: its guest notices nothing")
}

/// `kedge resume`.
pub(super) fn resume_command() -> Command {
    command("resume", "Let a machine that stands still go on")
}

fn command(name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .bin_name(format!("kedge {name}"))
        .about(about)
        .disable_help_flag(true)
        .after_help("Where the machine is so already, nothing happens.")
        .args(Machine::flags())
        .arg(help())
}

/// Does it.
///
/// # Errors
/// The machine does not answer, or cannot be paused.
pub(super) fn pause(flags: &ArgMatches) -> Result<Status, Failure> {
    done(Machine::of(flags).pause())
}

/// Does it.
///
/// # Errors
/// The machine does not answer, or cannot go on.
pub(super) fn resume(flags: &ArgMatches) -> Result<Status, Failure> {
    done(Machine::of(flags).resume())
}

fn done(result: Result<(), super::machine::RemoteError>) -> Result<Status, Failure> {
    result.map_err(|error| Failure::new(Status::ERROR, error))?;
    Ok(Status::OK)
}
