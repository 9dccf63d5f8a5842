//! Commands about a machine that runs already, in a process of its own: they speak to
//! its API.

mod console;
mod events;
mod info;
mod machine;
mod metrics;
mod ps;
mod state;
mod stop;

use std::ffi::OsString;

use clap::{ArgMatches, Command};

use crate::output;
use crate::status::{Failure, Status};
use crate::usage::{self, Line};
pub(crate) use machine::{Machine, RemoteError};

/// A command and what it does.
struct Verb {
    name: &'static str,
    command: fn() -> Command,
    enter: fn(&ArgMatches) -> Result<Status, Failure>,
}

const VERBS: &[Verb] = &[
    Verb { name: "ps", command: ps::command, enter: ps::enter },
    Verb { name: "info", command: info::command, enter: info::enter },
    Verb { name: "console", command: console::command, enter: console::enter },
    Verb { name: "metrics", command: metrics::command, enter: metrics::enter },
    Verb { name: "events", command: events::command, enter: events::enter },
    Verb { name: "pause", command: state::pause_command, enter: state::pause },
    Verb { name: "resume", command: state::resume_command, enter: state::resume },
    Verb { name: "stop", command: stop::command, enter: stop::enter },
];

/// The commands, for the help and for completion.
pub(crate) fn commands() -> impl Iterator<Item = Command> {
    VERBS.iter().map(|verb| (verb.command)())
}

/// Does what `words` ask for, the command's name first; nothing where it is no command
/// about a machine.
pub(crate) fn enter(words: &[OsString]) -> Option<Result<Status, Failure>> {
    let name = words.first()?.to_str()?;
    let verb = VERBS.iter().find(|verb| verb.name == name)?;
    let help = format!("kedge {name} --help");
    Some(match usage::parse((verb.command)(), words, &help) {
        Ok(Line::Answer(text)) => output::answer(&text),
        Ok(Line::Flags(flags)) => (verb.enter)(&flags),
        Err(error) => Err(Failure::new(Status::USAGE, error)),
    })
}
