//! `kedge metrics`: what a machine counts.

use clap::{ArgMatches, Command};
use serde_json::Value;

use super::Machine;
use crate::flags::help;
use crate::output;
use crate::status::{Failure, Status};

/// `kedge metrics`.
pub(super) fn command() -> Command {
    Command::new("metrics")
        .bin_name("kedge metrics")
        .about("Print what a machine counts, as Prometheus reads it")
        .disable_help_flag(true)
        .args(Machine::flags())
        .arg(help())
}

/// Does it.
///
/// # Errors
/// The machine does not answer.
pub(super) fn enter(flags: &ArgMatches) -> Result<Status, Failure> {
    let told = Machine::of(flags).show("/metrics");
    match told.map_err(|error| Failure::new(Status::ERROR, error))? {
        Value::String(text) => output::answer(&text),
        other => output::answer(&format!("{other}\n")),
    }
}
