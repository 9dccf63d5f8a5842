//! `kedge run`: a machine described by flags.

mod command;
mod quick;
mod request;
mod rom;

use std::ffi::OsString;

use crate::flags::Given;
use crate::logging::{self, Logging};
use crate::machine;
use crate::output;
use crate::status::{Failure, Status};
use crate::usage::{self, Line};

use quick::Quick;

pub(crate) use command::{command, log_level_flag, reachable_flags};
pub(crate) use request::{BadSerial, log_level, reachable, serial_of};

/// Does what `words`, from `run` on, ask for.
///
/// # Errors
/// They make no sense, or the machine cannot be built or run.
pub(crate) fn enter(words: &[OsString]) -> Result<Status, Failure> {
    if let Some(flags) = Quick::read(words) {
        return run(&flags);
    }
    let line = usage::parse(command(), words, "kedge run --help")
        .map_err(|error| Failure::new(Status::USAGE, error))?;
    match line {
        Line::Answer(text) => output::answer(&text),
        Line::Flags(flags) => run(&flags),
    }
}

fn run(flags: &dyn Given) -> Result<Status, Failure> {
    let request = request::from_flags(flags).map_err(|error| Failure::new(Status::USAGE, error))?;
    let failed = |error| Failure::new(Status::ERROR, error);
    logging::start(Logging::to_stderr(log_level(flags)))?;
    let outcome = machine::enter(request).map_err(failed)?;
    Ok(outcome.into())
}
