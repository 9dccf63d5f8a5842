//! `kedge clone`: many machines from one snapshot, or from one machine.
//!
//! Each is a process of its own, `kedge snapshot load` by another name, that leaves this
//! one's session, says in a line that its machine goes on, and then stays. A machine's API
//! has this done to the machine itself.

mod child;
mod descriptors;
mod fields;
mod flags;
mod folder;
mod machine;
mod numbered;
mod source;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::thread;

use clap::ArgMatches;
use kedge_diag::Fix;

pub(crate) use flags::{ABOUT, command};
pub(crate) use machine::{CloneError, Clones};

use crate::output;
use crate::status::{Failure, Status};
use crate::usage::{self, Line};
use child::Child;
use flags::{STANDS_IN, Wanted};
use numbered::PLACE;
use source::Source;

/// Some clones are not there.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {count} clones could not be started")]
struct Missing {
    failed: usize,
    count: u32,
}

impl Fix for Missing {
    fn fix(&self) -> Option<String> {
        Some("see why in their lines; the others run".to_owned())
    }
}

/// Does what `words`, from `clone` on, ask for.
///
/// # Errors
/// They make no sense, there is nothing to clone, or a clone could not be started.
pub(crate) fn enter(words: &[OsString]) -> Result<Status, Failure> {
    let line = usage::parse(command(), words, "kedge clone --help")
        .map_err(|error| Failure::new(Status::USAGE, error))?;
    match line {
        Line::Answer(text) => output::answer(&text.replace(STANDS_IN, PLACE)),
        Line::Flags(flags) => clone(&flags),
    }
}

fn clone(flags: &ArgMatches) -> Result<Status, Failure> {
    let wanted = Wanted::from_flags(flags).map_err(|error| Failure::new(Status::USAGE, error))?;
    let failed = |error| Failure::new(Status::ERROR, error);
    let source = Source::of(flags).map_err(failed)?;
    source.check(&wanted).map_err(failed)?;
    let failed = start_all(&source, &wanted)?;
    if failed > 0 {
        return Err(Failure::new(Status::ERROR, Missing { failed, count: wanted.count }));
    }
    Ok(Status::OK)
}

/// Starts all clones, a few at a time, and prints a line for each in their order. How many
/// there are not.
fn start_all(source: &Source, wanted: &Wanted) -> Result<usize, Failure> {
    let at_once = 2 * thread::available_parallelism().map_or(1, usize::from);
    let mut starting = VecDeque::new();
    let mut failed = 0;
    let mut numbers = wanted.numbers();
    loop {
        while starting.len() < at_once
            && let Some(number) = numbers.next()
        {
            starting.push_back(Child::start(source, wanted, number));
        }
        let Some(child) = starting.pop_front() else { return Ok(failed) };
        let (line, started) = child.line();
        failed += usize::from(!started);
        output::answer(&format!("{line}\n"))?;
    }
}
