//! `kedge snapshot load`: a saved machine goes on, in this process.

use std::collections::BTreeSet;

use clap::{Arg, ArgAction, ArgMatches, Command};
use kedge_devices::virtio::catalog::KINDS;
use kedge_devices::virtio::overrides::Override;
use kedge_diag::{Fix, Trouble};
use kedge_firmware::{NoRegister, register_named};
use kedge_ids::RegId;
use kedge_vmm::spec::SerialSpec;
use kedge_vmm::{Clock, Pages};

use super::{files, memory_file, state_file};
use crate::flags::{
    Choices, TRACK_CHANGES, chosen, file, help, one_of, option, path, switch, text, track_changes,
};
use crate::logging::{self, Logging};
use crate::machine::{self, LoadRequest, MemoryFrom};
use crate::report::Report;
use crate::run::{BadSerial, log_level, log_level_flag, reachable, reachable_flags, serial_of};
use crate::status::{Failure, Status};

const CLOCKS: Choices<Clock> =
    &[("profile", Clock::Profile), ("stop", Clock::Stop), ("advance", Clock::Advance)];

const PAGES: Choices<Pages> = &[
    ("snapshot", Pages::AsSaved),
    ("none", Pages::Small),
    ("transparent", Pages::Transparent),
    ("2M", Pages::Huge2M),
];

/// A flag's value that makes no sense.
#[derive(Debug, thiserror::Error)]
enum BadFlag {
    /// No change of a device.
    #[error(transparent)]
    Device(Trouble),
    /// No register.
    #[error(transparent)]
    Register(#[from] NoRegister),
    /// No place for the serial port's output.
    #[error(transparent)]
    Serial(#[from] BadSerial),
}

impl Fix for BadFlag {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Device(source) => source.fix(),
            Self::Register(source) => source.fix(),
            Self::Serial(source) => source.fix(),
        }
    }
}

/// The name of the flag that has it report.
pub(crate) const REPORT: &str = "report";

/// The command.
pub(super) fn command() -> Command {
    Command::new("load")
        .about("Let a saved machine go on, here and now")
        .disable_help_flag(true)
        .override_usage(
            "kedge snapshot load STATE (--memory FILE | --page-server SOCKET) [OPTIONS]",
        )
        .arg(state_file())
        .arg(memory_file().required(false).required_unless_present("page-server"))
        .arg(page_server().help_heading(MEMORY))
        .args(flags())
        .args(reachable_flags())
        .args([switch(REPORT).requires("id").hide(true), file("log").hide(true), help()])
}

const MEMORY: &str = "How its memory comes back";

fn page_server() -> Arg {
    file("page-server").value_name("SOCKET").conflicts_with("memory").help(
        "Another process has it, instead of a memory file: one that\n\
         fills pages as Firecracker's userfaultfd handlers do",
    )
}

/// The flags that say how a machine goes on.
pub(crate) fn flags() -> impl Iterator<Item = Arg> {
    let how = [
        switch("paused").help("Do not let it go on yet: `kedge resume` does"),
        one_of("clock", "POLICY", CLOCKS).default_value("profile").help(
            "What the time since is to the guest's clock: stop, advance,\n\
             or what its profile says",
        ),
        option("allow", "REGISTER,...")
            .value_delimiter(',')
            .action(ArgAction::Append)
            .help("Accept that these registers are not what the guest was saved with"),
        track_changes(),
        log_level_flag(),
    ];
    let memory = [
        file("working-set").help(
            "Have the pages of this file in place at once. If there is none,\n\
             write it at the first pause: the pages needed until then",
        ),
        one_of("huge-pages", "SIZE", PAGES).default_value("snapshot").help(
            "The host's pages behind it: none, transparent, 2M,\n\
             or as they were in the snapshot",
        ),
    ];
    const HERE: &str = "What it uses here, where that is something else";
    let serial = option("serial", "PORT").help("Serial port: stdio, socket, file=PATH or none");
    how.into_iter()
        .chain(memory.map(|flag| flag.help_heading(MEMORY)))
        .chain([serial].into_iter().chain(overrides()).map(|flag| flag.help_heading(HERE)))
}

/// A flag for each kind of device that uses something of the host's by name.
fn overrides() -> impl Iterator<Item = Arg> {
    let kinds = KINDS.iter().filter(|kind| !kind.override_value.is_empty());
    kinds.map(|kind| {
        option(kind.flag, kind.override_value)
            .action(ArgAction::Append)
            .help(format!("What a {} uses", kind.noun))
    })
}

/// Does it.
///
/// # Errors
/// The snapshot cannot be loaded here, or the machine cannot run on.
pub(super) fn enter(flags: &ArgMatches) -> Result<Status, Failure> {
    let request = request(flags).map_err(|error| Failure::new(Status::USAGE, error))?;
    let report = match flags.get_flag(REPORT) {
        true => Some(Report::prepare(text(flags, "id"), path(flags, "log"))?),
        false => None,
    };
    let reachable = reachable(flags).map_err(|error| Failure::new(Status::USAGE, error))?;
    logging::start(Logging::to_stderr(log_level(flags)))?;
    let outcome = machine::load(request, reachable, report);
    Ok(outcome.map_err(|error| Failure::new(Status::ERROR, error))?.into())
}

fn request(flags: &ArgMatches) -> Result<LoadRequest, BadFlag> {
    let [state, memory] = files(flags);
    let memory = path(flags, "page-server").map_or(MemoryFrom::File(memory), MemoryFrom::Server);
    let mut overrides = Vec::new();
    for kind in KINDS.iter().filter(|kind| !kind.override_value.is_empty()) {
        for value in flags.get_many::<String>(kind.flag).unwrap_or_default() {
            overrides.push(Override::from_flag(kind, value).map_err(BadFlag::Device)?);
        }
    }
    let serial: Option<SerialSpec> = match text(flags, "serial") {
        "" => None,
        value => Some(serial_of(value)?),
    };
    let allow = flags.get_many::<String>("allow").unwrap_or_default();
    let allow = allow.map(|name| register_named(name)).collect::<Result<BTreeSet<RegId>, _>>()?;
    let clock = chosen(flags, "clock", CLOCKS).unwrap_or_default();
    let resume = (!flags.get_flag("paused")).then_some(clock);
    let notes_changes = flags.get_flag(TRACK_CHANGES);
    let pages = chosen(flags, "huge-pages", PAGES).unwrap_or_default();
    let working_set = path(flags, "working-set");
    Ok(LoadRequest {
        state,
        memory,
        pages,
        working_set,
        overrides,
        serial,
        allow,
        resume,
        notes_changes,
    })
}
