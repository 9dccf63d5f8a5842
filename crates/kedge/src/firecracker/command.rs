//! The flags of Firecracker's command line, and kedge's own beside them.

use clap::{Arg, Command, value_parser};
use kedge_api::call::{LEVELS, LOG_FORMATS};

use super::{Name, refused};
use crate::flags::{
    dry_run, dump_dtb, file, help, io_threads, on_reset, one_of, option, pci_slots, removable,
    switch,
};
use crate::guest_abi;

/// The instance's name where none is given.
const ANONYMOUS: &str = "anonymous-instance";

/// Where Firecracker's clients look for the API.
const SOCKET: &str = "/run/firecracker.socket";

/// When the process began: by the monotonic clock, by the CPU's, and how much of the latter
/// its parent had used.
pub(super) const BEGINNING: [&str; 3] =
    ["start-time-us", "start-time-cpu-us", "parent-cpu-time-us"];

const USAGE: &str = "\
kedge run --kernel FILE [OPTIONS]
       kedge [--config-file FILE] --api-sock SOCKET [OPTIONS]
       kedge ps
       kedge (info | console | metrics | events | pause | resume | stop) ID
       kedge (snapshot | clone) ID
       kedge abi COMMAND
       kedge (completion SHELL | man COMMAND)";

/// The command line at the top level.
pub(crate) fn command(name: Name) -> Command {
    let command = match name {
        Name::Kedge => Command::new("kedge").override_usage(USAGE),
        Name::Firecracker => Command::new("firecracker"),
    };
    command
        .about("kedge runs virtual machines on arm64 Linux with KVM")
        .after_help(refused::NOTE)
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .args_conflicts_with_subcommands(true)
        .next_help_heading("Firecracker's command line")
        .args(machine())
        .args(log())
        .args(accepted())
        .args(beginning())
        .args(refused::flags())
        .args(snapshots())
        .next_help_heading("kedge's own")
        .args([guest_abi::flag(), pci_slots("4 with --enable-pci"), removable(), on_reset("exit")])
        .arg(io_threads())
        .args([dry_run(), dump_dtb()].map(of_the_file))
        .args([version(), help()])
}

fn machine() -> [Arg; 10] {
    [
        switch("no-api").requires("config-file").help("Run without an API"),
        file("config-file").help(
            "The machine: Firecracker's configuration file (JSON);\n\
             without it, the API describes or loads one",
        ),
        switch("enable-pci").help("Put virtio devices on PCI"),
        option("id", "ID").default_value(ANONYMOUS).help("The machine's name in the log"),
        file("api-sock").default_value(SOCKET).help("The API's socket"),
        file("metadata").help("What the guest's metadata service has at first (JSON)"),
        file("metrics-path").help("The metrics' file or FIFO"),
        switch("boot-timer").help("Log how long the guest takes, which says when it is up"),
        option("mmds-size-limit", "BYTES").value_parser(value_parser!(usize)).hide(true),
        option("http-api-max-payload-size", "BYTES").value_parser(value_parser!(usize)).hide(true),
    ]
}

fn log() -> [Arg; 6] {
    [
        file("log-path").help("The log's file or FIFO [default: standard output]"),
        one_of("level", "LEVEL", LEVELS)
            .ignore_case(true)
            .help("Error, Warning, Info, Debug, Trace or Off [default: Info]"),
        switch("show-level").help("Give the log's lines a level"),
        switch("show-log-origin").help("Give the log's lines a file and a line number"),
        option("module", "PATH").help("Log this module alone"),
        one_of("log-format", "FORMAT", LOG_FORMATS).help(
            "What the log's lines are like: text, as Firecracker's, or json, an object each\n\
             [default: text]",
        ),
    ]
}

/// Questions about snapshots.
fn snapshots() -> [Arg; 2] {
    [
        switch("snapshot-version").help("Print the version of the snapshots that are written"),
        file("describe-snapshot").help("Print the version of the snapshot with this state file"),
    ]
}

/// What has no effect, and needs none.
fn accepted() -> [Arg; 1] {
    [switch("no-seccomp").help("Install no system-call filter: as yet there is none")]
}

/// When the process began, as the jailer says.
fn beginning() -> [Arg; 3] {
    BEGINNING.map(|name| option(name, "MICROSECONDS").value_parser(value_parser!(u64)).hide(true))
}

/// What is for the machine of a configuration file.
fn of_the_file(flag: Arg) -> Arg {
    flag.requires("config-file")
}

fn version() -> Arg {
    switch("version").help("Print the version")
}
