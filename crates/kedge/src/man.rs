//! `kedge man`: manual pages (man(7)), written from the same table of flags that the command
//! line is read by.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, Command};

use crate::completion;
use crate::flags::texts;
use crate::output;
use crate::status::{Failure, Status};
use crate::usage::{self, Line};

const EXAMPLES: &str = "\
Examples:
  kedge man | man -l -
  kedge man snapshot load > ~/.local/share/man/man1/kedge-snapshot-load.1";

/// `kedge man`.
pub(crate) fn command() -> Command {
    Command::new("man")
        .bin_name("kedge man")
        .about("Print a manual page: kedge's, or that of one of its commands")
        .after_help(EXAMPLES)
        .arg(Arg::new("command").value_name("COMMAND").num_args(0..).help("The command's words"))
}

/// Prints the page that `words`, from `man` on, ask for.
///
/// # Errors
/// There is no such command.
pub(crate) fn enter(words: &[OsString]) -> Result<Status, Failure> {
    let failed = |error| Failure::new(Status::USAGE, error);
    match usage::parse(command(), words, "kedge man --help").map_err(failed)? {
        Line::Answer(text) => output::answer(&text),
        Line::Flags(flags) => output::answer(&of(&flags).map_err(failed)?),
    }
}

fn of(flags: &ArgMatches) -> Result<String, usage::Usage> {
    let mut command = completion::whole();
    let mut name = "kedge".to_owned();
    for word in texts(flags, "command") {
        let found = command.find_subcommand(word).cloned();
        command = found.ok_or_else(|| usage::no_command(word, "kedge --help"))?;
        name = format!("{name} {word}");
    }
    Ok(page(&name, command))
}

/// The page of a command called `name`.
fn page(name: &str, command: Command) -> String {
    let mut command = command.bin_name(name);
    let title = name.replace(' ', "-");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut page = format!(".TH {} 1\n.SH NAME\n", escaped(&title.to_uppercase()));
    page += &format!("{} \\- {}\n", escaped(&title), escaped(&about));
    let usage = command.render_usage().to_string();
    page += &verbatim("SYNOPSIS", usage.strip_prefix("Usage: ").unwrap_or(&usage));
    let mut heading = String::new();
    for flag in command.get_arguments().filter(|flag| !flag.is_hide_set()) {
        let of_it = flag.get_help_heading().unwrap_or("Options");
        if of_it != heading {
            heading = of_it.to_owned();
            page += &format!(".SH {}\n", escaped(&of_it.to_uppercase()));
        }
        page += &entry(flag);
    }
    let commands: Vec<_> = command.get_subcommands().filter(|one| !one.is_hide_set()).collect();
    if !commands.is_empty() {
        page += ".SH COMMANDS\n";
    }
    for one in commands {
        let about = one.get_about().map(ToString::to_string).unwrap_or_default();
        page += &format!(".TP\n.B {}\n{}\n", escaped(one.get_name()), escaped(&about));
    }
    match command.get_after_help() {
        Some(notes) => page + &verbatim("NOTES", &notes.to_string()),
        None => page,
    }
}

/// A flag, what it takes, and what it is for.
fn entry(flag: &Arg) -> String {
    let long = flag.get_long().map(|long| format!("--{long}"));
    let names = flag.get_short().map(|short| format!("-{short}")).into_iter().chain(long);
    let values = flag.get_action().takes_values().then(|| flag.get_value_names()).flatten();
    let values = values.unwrap_or_default().iter().map(ToString::to_string);
    let words: Vec<_> = names.chain(values).collect();
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let default = match flag.is_hide_default_value_set() {
        true => String::new(),
        false => flag.get_default_values().iter().map(|value| value.to_string_lossy()).collect(),
    };
    let default = match default.is_empty() || !flag.get_action().takes_values() {
        true => String::new(),
        false => format!(" [default: {default}]"),
    };
    format!(".TP\n.B {}\n{}\n", escaped(&words.join(" ")), escaped(&(help + &default)))
}

/// Lines as they are.
fn verbatim(heading: &str, text: &str) -> String {
    format!(".SH {heading}\n.nf\n{}\n.fi\n", escaped(text.trim_end()))
}

/// Text in which nothing is a request of roff's (groff(7)).
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let line = |line: &str| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::flags::{option, switch};

    #[test]
    fn a_page_has_what_the_table_has() {
        let command = Command::new("do")
            .about("Do it")
            .disable_help_flag(true)
            .arg(switch("much").help(".much of 'it'"))
            .next_help_heading("More")
            .arg(option("by", "WHOM").default_value("me").help("A\\B"))
            .arg(option("secret", "X").hide(true))
            .after_help("Notes");
        expect![[r"
            .TH KEDGE\-DO 1
            .SH NAME
            kedge\-do \- Do it
            .SH SYNOPSIS
            .nf
            kedge do [OPTIONS]
            .fi
            .SH OPTIONS
            .TP
            .B \-\-much
            \&.much of 'it'
            .SH MORE
            .TP
            .B \-\-by WHOM
            A\eB [default: me]
            .SH NOTES
            .nf
            Notes
            .fi
        "]]
        .assert_eq(&page("kedge do", command));
    }
}
