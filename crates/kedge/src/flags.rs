//! Building blocks of flags, and the flags that both command lines have.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, value_parser};
use kedge_vmm::spec::{self, OnReset};

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

/// Flags that are given, and what those that are not stand for.
pub(crate) trait Given {
    /// The values of `--name`, in their order.
    fn all(&self, name: &str) -> Vec<&OsStr>;
}

impl Given for ArgMatches {
    fn all(&self, name: &str) -> Vec<&OsStr> {
        // A command has not all flags that others have.
        self.try_get_raw(name).ok().flatten().map(Iterator::collect).unwrap_or_default()
    }
}

/// The values of `--name`, of which all are texts.
pub(crate) fn texts<'a>(flags: &'a dyn Given, name: &str) -> Vec<&'a str> {
    flags.all(name).into_iter().filter_map(OsStr::to_str).collect()
}

/// The value of `--name`, or nothing where it is not given.
pub(crate) fn text<'a>(flags: &'a dyn Given, name: &str) -> &'a str {
    texts(flags, name).first().copied().unwrap_or_default()
}

/// Whether `--name`, which has no value, is given.
pub(crate) fn is_set(flags: &dyn Given, name: &str) -> bool {
    text(flags, name) == "true"
}

/// The file that `--name` names.
pub(crate) fn path(flags: &dyn Given, name: &str) -> Option<PathBuf> {
    flags.all(name).first().map(PathBuf::from)
}

/// What the word given to `--name` stands for.
pub(crate) fn chosen<T: Copy>(flags: &dyn Given, name: &str, choices: Choices<T>) -> Option<T> {
    let word = texts(flags, name).first().copied()?;
    choices.iter().find(|choice| choice.0.eq_ignore_ascii_case(word)).map(|choice| choice.1)
}

/// `--on-reset`, with another default on each command line.
pub(crate) fn on_reset(default: &'static str) -> Arg {
    one_of("on-reset", "ACTION", ON_RESET)
        .default_value(default)
        .help("When the guest resets: restart it, or exit")
}

/// What `--on-reset` says.
pub(crate) fn on_reset_of(flags: &dyn Given) -> OnReset {
    chosen(flags, "on-reset", ON_RESET).expect("the flag has a default")
}

/// `--name N`, up to `most`.
pub(crate) fn count(name: &'static str, most: u8) -> Arg {
    option(name, "N").value_parser(value_parser!(u8).range(..=i64::from(most)))
}

/// What a [`count`] says; nothing is none.
pub(crate) fn count_of(flags: &dyn Given, name: &str) -> u8 {
    text(flags, name).parse().unwrap_or(0)
}

/// The name of [`pci_slots`].
pub(crate) const PCI_SLOTS: &str = "pci-slots";

/// `--pci-slots`; `default` says how many there are without.
pub(crate) fn pci_slots(default: &str) -> Arg {
    let help = "On PCI: slots into which devices can be plugged while the\n\
                guest runs, up to 8";
    count(PCI_SLOTS, spec::PCI_SLOTS).help(format!("{help} [default: {default}]"))
}

const REMOVABLE: &str = "removable";

/// `--removable`.
pub(crate) fn removable() -> Arg {
    option(REMOVABLE, "ID").action(ArgAction::Append).value_delimiter(',').help(
        "Have the disk or network interface ID begin in such a slot:\n\
         it can leave while the guest runs (several: in this order)",
    )
}

/// What `--removable` names.
pub(crate) fn removable_of(flags: &dyn Given) -> Vec<String> {
    texts(flags, REMOVABLE).into_iter().map(str::to_owned).collect()
}

/// The name of [`io_threads`].
pub(crate) const IO_THREADS: &str = "io-threads";

/// `--io-threads`.
pub(crate) fn io_threads() -> Arg {
    count(IO_THREADS, 64).help(
        "Threads on which virtio devices work, in turn, so that one\n\
         that waits is in the way of fewer [default: 0, one for all]",
    )
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
