//! Building blocks of flags, and the flags that both command lines have.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, value_parser};
use kedge_vmm::spec::OnReset;

/// The words a flag takes, and what each stands for.
pub(crate) type Choices<T> = &'static [(&'static str, T)];

const ON_RESET: Choices<OnReset> = &[("exit", OnReset::Exit), ("restart", OnReset::Restart)];

/// `--name VALUE`.
pub(crate) fn option(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

/// `--name`.
pub(crate) fn switch(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

/// `--name FILE`.
pub(crate) fn file(name: &'static str) -> Arg {
    option(name, "FILE").value_parser(value_parser!(PathBuf))
}

/// `--name VALUE` with one of `choices`, which its help is to list.
pub(crate) fn one_of<T>(name: &'static str, value: &'static str, choices: Choices<T>) -> Arg {
    let words = PossibleValuesParser::new(choices.iter().map(|choice| choice.0));
    option(name, value).value_parser(words).hide_possible_values(true)
}

/// The value of `--name`, or nothing where it is not given.
pub(crate) fn text<'a>(flags: &'a ArgMatches, name: &str) -> &'a str {
    flags.get_one::<String>(name).map_or("", String::as_str)
}

/// The file that `--name` names.
pub(crate) fn path(flags: &ArgMatches, name: &str) -> Option<PathBuf> {
    flags.get_one::<PathBuf>(name).cloned()
}

/// What the word given to `--name` stands for.
pub(crate) fn chosen<T: Copy>(flags: &ArgMatches, name: &str, choices: Choices<T>) -> Option<T> {
    let word = flags.get_one::<String>(name)?;
    choices.iter().find(|choice| choice.0.eq_ignore_ascii_case(word)).map(|choice| choice.1)
}

/// `--on-reset`, with another default on each command line.
pub(crate) fn on_reset(default: &'static str) -> Arg {
    one_of("on-reset", "ACTION", ON_RESET)
        .default_value(default)
        .help("When the guest resets: restart it, or exit")
}

/// What `--on-reset` says.
pub(crate) fn on_reset_of(flags: &ArgMatches) -> OnReset {
    chosen(flags, "on-reset", ON_RESET).expect("the flag has a default")
}

/// `--dry-run`.
pub(crate) fn dry_run() -> Arg {
    switch("dry-run").help("Print the machine as JSON and end: opens nothing, needs no KVM")
}

/// `--dump-dtb`.
pub(crate) fn dump_dtb() -> Arg {
    file("dump-dtb").help(
        "Write the guest's device tree to FILE, then go on\n\
         (with --dry-run end there, which does need KVM)",
    )
}

/// The name of [`track_changes`].
pub(crate) const TRACK_CHANGES: &str = "track-changes";

/// `--track-changes`.
pub(crate) fn track_changes() -> Arg {
    switch(TRACK_CHANGES).help("Note what the guest changes, for `kedge snapshot create --diff`")
}

/// `--help`, among other flags instead of under a heading of its own.
pub(crate) fn help() -> Arg {
    Arg::new("help").short('h').long("help").action(ArgAction::Help).help("Print this help")
}
