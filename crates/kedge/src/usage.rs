//! What is wrong with a command line, in kedge's words.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command};
use kedge_diag::Fix;

/// A command line that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{wrong}")]
pub(crate) struct Usage {
    wrong: String,
    fix: String,
}

impl Fix for Usage {
    fn fix(&self) -> Option<String> {
        Some(self.fix.clone())
    }
}

/// What a command line turned out to be.
#[derive(Debug)]
pub(crate) enum Line {
    /// Flags and their values.
    Flags(ArgMatches),
    /// A question that this text answers.
    Answer(String),
}

/// Takes `words`, the program's name first, as `command` says; `help` is the
/// command line that explains the flags.
///
/// # Errors
/// The words do not suit the command.
pub(crate) fn parse(command: Command, words: &[OsString], help: &str) -> Result<Line, Usage> {
    let error = match command.try_get_matches_from(words) {
        Ok(flags) => return Ok(Line::Flags(flags)),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Line::Answer(error.to_string())),
        _ => Err(explain(&error, help)),
    }
}

/// There is no command `word`; `help` is the command line that lists those that there are.
pub(crate) fn no_command(word: &str, help: &str) -> Usage {
    Usage { wrong: format!("there is no command `{word}`"), fix: format!("see `{help}`") }
}

fn explain(error: &clap::Error, help: &str) -> Usage {
    let flag = first_word(error, ContextKind::InvalidArg);
    let value = text(error, ContextKind::InvalidValue);
    let see_help = format!("see `{help}`");
    let (wrong, fix) = match error.kind() {
        ErrorKind::UnknownArgument if flag.starts_with('-') => {
            (format!("there is no flag `{flag}`"), suggestion(error, ContextKind::SuggestedArg))
        }
        ErrorKind::UnknownArgument => (format!("`{flag}` belongs to no flag"), None),
        ErrorKind::InvalidSubcommand => {
            let command = text(error, ContextKind::InvalidSubcommand);
            let near = suggestion(error, ContextKind::SuggestedSubcommand);
            (format!("there is no command `{command}`"), near)
        }
        ErrorKind::MissingSubcommand => {
            let legal = text(error, ContextKind::ValidSubcommand);
            ("a command is missing".to_owned(), Some(format!("add one of: {legal}")))
        }
        ErrorKind::InvalidValue if value.is_empty() => (
            format!("`{flag}` wants a value"),
            Some(format!("write `{}`", text(error, ContextKind::InvalidArg))),
        ),
        ErrorKind::InvalidValue => {
            let legal = text(error, ContextKind::ValidValue);
            (format!("`{flag}` cannot be `{value}`"), Some(format!("write one of: {legal}")))
        }
        ErrorKind::ValueValidation => (format!("`{flag}` cannot be `{value}`"), None),
        ErrorKind::ArgumentConflict => conflict(error, &flag),
        ErrorKind::MissingRequiredArgument => {
            let missing = text(error, ContextKind::InvalidArg);
            let name = missing.split(' ').next().unwrap_or(&missing);
            (format!("`{name}` is missing"), Some(format!("add `{missing}`; {see_help}")))
        }
        ErrorKind::TooManyValues => (
            format!("`{flag}` takes no value, and was given `{value}`"),
            Some(format!("write `{flag}` alone")),
        ),
        ErrorKind::InvalidUtf8 => ("a value is not UTF-8".to_owned(), None),
        _ => (first_line(error), None),
    };
    Usage { wrong, fix: fix.unwrap_or(see_help) }
}

/// Two flags that exclude each other, or one flag given twice.
fn conflict(error: &clap::Error, flag: &str) -> (String, Option<String>) {
    let other = first_word(error, ContextKind::PriorArg);
    if other.is_empty() || other == flag {
        (format!("`{flag}` is there twice"), Some("leave one of them out".to_owned()))
    } else {
        let wrong = format!("`{flag}` and `{other}` exclude each other");
        (wrong, Some("leave one of them out".to_owned()))
    }
}

fn suggestion(error: &clap::Error, kind: ContextKind) -> Option<String> {
    let near = text(error, kind);
    let near = near.replace(", ", "` or `");
    (!near.is_empty()).then(|| format!("write `{near}`"))
}

fn text(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    }
}

fn first_word(error: &clap::Error, kind: ContextKind) -> String {
    let text = text(error, kind);
    text.split(' ').next().unwrap_or(&text).to_owned()
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or(&text);
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
