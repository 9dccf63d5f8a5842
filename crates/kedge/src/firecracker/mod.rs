//! Firecracker's command line: `kedge --no-api --config-file vm.json`, and
//! `kedge --api-sock vm.sock` for a machine that the API describes.
//!
//! FIRECRACKER_API.md, sections 7 (flags and exit statuses), 8 (configuration
//! file) and 12 (log), has the facts.

mod cmdline;
mod command;
mod config;
mod configuration;
mod draft;
mod machine_config;
mod refused;

use std::ffi::OsString;

use clap::ArgMatches;
use kedge_api::call::{LEVELS, LOG_FORMATS, Logger, Metrics};
use kedge_api::http::Limits;
use kedge_diag::{Fix, one_line};
use kedge_vmm::spec::Transport;
use tracing::level_filters::LevelFilter;
use tracing::{error, info};

use command::BEGINNING;
pub(crate) use command::command;

use crate::api::{Identity, Reachable, View};
use crate::awaited;
use crate::companions::Companions;
use crate::flags::{
    Given as _, IO_THREADS, PCI_SLOTS, chosen, count_of, on_reset_of, path, removable_of, text,
};
use crate::guest_abi;
use crate::logging::{self, Control as LogControl, Destination, Form, Logging};
use crate::machine::{self, MachineError, Outcome, Request};
use crate::machines;
use crate::output;
use crate::snapshot;
use crate::status::{Failure, Status};
use crate::usage::{self, Line};
use config::Config;
pub(crate) use config::NOT_YET as ABSENT;
pub(crate) use configuration::{Beside, Configuration, NoMachine};
pub(crate) use draft::{BadSetting, Draft};

/// The release whose interfaces kedge answers to.
pub(crate) const FIRECRACKER_VERSION: &str = "1.17.0";

/// The slots of a machine with `--enable-pci`: each takes its guest some hundred accesses to
/// set up.
const USUAL_SLOTS: u8 = 4;

/// What the program is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// By its own name.
    Kedge,
    /// As its users' clients know it.
    Firecracker,
}

impl Name {
    fn help(self) -> &'static str {
        match self {
            Self::Kedge => "kedge --help",
            Self::Firecracker => "firecracker --help",
        }
    }

    /// What `--version` says; the second is what clients parse.
    fn version(self) -> String {
        match self {
            Self::Kedge => format!("kedge {}\n", env!("CARGO_PKG_VERSION")),
            Self::Firecracker => format!("Firecracker v{FIRECRACKER_VERSION}\n"),
        }
    }

    /// What the log calls the program, and its version.
    fn in_log(self) -> (&'static str, &'static str) {
        match self {
            Self::Kedge => ("kedge", env!("CARGO_PKG_VERSION")),
            Self::Firecracker => ("Firecracker", FIRECRACKER_VERSION),
        }
    }
}

/// Does what `words`, the program's name first, ask for.
///
/// # Errors
/// They make no sense, or the machine cannot be built or run.
pub(crate) fn enter(name: Name, words: &[OsString]) -> Result<Status, Failure> {
    let is_command = |word: &OsString| !word.as_encoded_bytes().starts_with(b"-");
    let usage = match words.get(1) {
        // Firecracker has no commands: a misspelt one is kedge's.
        Some(word) if name == Name::Kedge && is_command(word) => Status::USAGE,
        _ => Status::BAD_ARGUMENTS,
    };
    let line =
        usage::parse(top(name), words, name.help()).map_err(|error| Failure::new(usage, error))?;
    let flags = match line {
        Line::Answer(text) => return output::answer(&text),
        Line::Flags(flags) if flags.get_flag("version") => {
            return output::answer(&name.version());
        }
        Line::Flags(flags) if flags.get_flag("snapshot-version") => {
            return output::answer(&snapshot::version());
        }
        Line::Flags(flags) => flags,
    };
    if let Some(state) = path(&flags, "describe-snapshot") {
        return output::answer(&snapshot::version_of(&state)?);
    }
    refused::check(&flags).map_err(|error| Failure::new(Status::BAD_ARGUMENTS, error))?;
    machines::check_id(text(&flags, "id"))
        .map_err(|error| Failure::new(Status::BAD_ARGUMENTS, error))?;
    let abi = guest_abi::from_flags(&flags)
        .map_err(|error| Failure::new(Status::BAD_ARGUMENTS, error))?;
    let transport = if flags.get_flag("enable-pci") { Transport::Pci } else { Transport::Mmio };
    let pci_slots = match (transport, flags.all(PCI_SLOTS).is_empty()) {
        (Transport::Pci, true) => USUAL_SLOTS,
        _ => count_of(&flags, PCI_SLOTS),
    };
    let (on_reset, io_threads) = (on_reset_of(&flags), count_of(&flags, IO_THREADS));
    let removable = removable_of(&flags);
    let beside = Beside { guest_abi: abi, on_reset, transport, pci_slots, removable, io_threads };
    run(name, &flags, beside)
}

/// The command line with the other commands' names, for the help.
fn top(name: Name) -> clap::Command {
    let command = command(name);
    match name {
        Name::Kedge => command
            .subcommands([
                clap::Command::new("run").about("Run a virtual machine described by flags"),
                clap::Command::new("abi").about(crate::abi::ABOUT),
                clap::Command::new("snapshot").about(snapshot::ABOUT),
                clap::Command::new("clone").about(crate::clone::ABOUT),
                clap::Command::new("completion").about("Print a shell's completion script"),
                clap::Command::new("man").about("Print a manual page"),
            ])
            .subcommands(crate::remote::commands()),
        Name::Firecracker => command,
    }
}

fn run(name: Name, flags: &ArgMatches, beside: Beside) -> Result<Status, Failure> {
    let config = path(flags, "config-file").map(|file| config::read(&file));
    let read = config.as_ref().and_then(|config| config.as_ref().ok());
    let log = logging::start(log(flags, read.and_then(|config| config.logger.as_ref())))?;
    let (program, version) = name.in_log();
    info!("Running {program} v{version}");
    let reachable = reachable(name, flags, log);
    let companions = reachable.companions.clone();
    companions.metering.began(BEGINNING.map(|name| flags.get_one(name).copied()));
    let metrics = path(flags, "metrics-path").filter(|_| !flags.get_flag("dry-run"));
    if let Some(path) = metrics {
        let opened = companions.metering.open(&Metrics::to(path));
        opened.map_err(|error| Failure::new(Status::ERROR, error))?;
    }
    let metadata = path(flags, "metadata");
    if let Some(path) = &metadata {
        companions.read_metadata(path).map_err(misconfigured)?;
        info!("Successfully added metadata to mmds from file");
    }
    let outcome = match config {
        Some(config) => config.map_err(misconfigured).and_then(|config| {
            let Config { machine, logger: _, metrics } = config;
            if let Some(metrics) = metrics.filter(|_| !flags.get_flag("dry-run")) {
                companions.metering.open(&metrics).map_err(misconfigured)?;
            }
            let spec = machine.spec(&beside).map_err(misconfigured)?;
            let reachable = reachable.showing(View::of(&machine));
            machine::enter(Request {
                spec,
                companions: Some(companions.clone()),
                dry_run: flags.get_flag("dry-run"),
                dump_dtb: path(flags, "dump-dtb"),
                notes_changes: machine.size().is_ok_and(|size| size.notes_changes),
                reachable: (!flags.get_flag("no-api")).then_some(reachable),
            })
            .map_err(failure)
        }),
        None => awaited::enter(reachable, beside).map_err(failure),
    };
    companions.metering.finish();
    let status = match &outcome {
        Ok(outcome) => status(*outcome),
        Err(failure) => failure.status,
    };
    match status {
        Status::OK => info!("{program} exiting successfully. exit_code=0"),
        Status(code) => error!("{program} exiting with error. exit_code={code}"),
    }
    outcome.map(|_| status)
}

fn misconfigured(error: impl Fix + Send + Sync + 'static) -> Failure {
    error!("Configuration for VMM from one single json failed: {}", one_line(&error));
    Failure::new(Status::BAD_CONFIGURATION, error)
}

/// A specification's shortcomings are the configuration's, a host's are not.
fn failure(error: MachineError) -> Failure {
    error!("{}", one_line(&error));
    let status = match error {
        MachineError::Build(_) => Status::BAD_CONFIGURATION,
        _ => Status::ERROR,
    };
    Failure::new(status, error)
}

fn status(outcome: Outcome) -> Status {
    match outcome {
        Outcome::Done => Status::OK,
        Outcome::GuestPanic => Status::ERROR,
        Outcome::Signal(signal) => Status::from_signal(signal),
    }
}

/// The log that the flags ask for, or else the configuration file's `logger`.
fn log(flags: &ArgMatches, logger: Option<&Logger>) -> Logging {
    let file = logger.and_then(|logger| logger.log_path.clone()).or(path(flags, "log-path"));
    let level = match logger {
        // As a request to the API without a level: the default.
        Some(logger) => logger.level,
        None => chosen(flags, "level", LEVELS),
    };
    let switch = |name, key: Option<bool>| key.unwrap_or_else(|| flags.get_flag(name));
    let module = logger.and_then(|logger| logger.module.clone());
    Logging {
        destination: match file {
            Some(path) => Destination::File(path),
            // The machine's description alone goes to standard output.
            None if flags.get_flag("dry-run") => Destination::Stderr,
            None => Destination::Stdout,
        },
        level: level.unwrap_or(LevelFilter::INFO),
        module: module.or_else(|| flags.get_one("module").cloned()),
        form: Form::Firecracker {
            id: text(flags, "id").to_owned(),
            show_level: switch("show-level", logger.and_then(|logger| logger.show_level)),
            show_origin: switch(
                "show-log-origin",
                logger.and_then(|logger| logger.show_log_origin),
            ),
            format: logger
                .and_then(|logger| logger.log_format)
                .or_else(|| chosen(flags, "log-format", LOG_FORMATS))
                .unwrap_or_default(),
        },
    }
}

/// The machine's API.
fn reachable(name: Name, flags: &ArgMatches, log: LogControl) -> Reachable {
    let limits = Limits::default();
    let body = flags.get_one("http-api-max-payload-size").copied().unwrap_or(limits.body);
    let program = match name {
        Name::Kedge => "kedge",
        Name::Firecracker => "Firecracker",
    };
    let identity = Identity { id: text(flags, "id").to_owned(), program };
    let (socket, limits) = (path(flags, "api-sock"), Limits { body, ..limits });
    let most = flags.get_one("mmds-size-limit").copied().unwrap_or(limits.body);
    let mut companions = Companions::new(&identity.id, most, Some(log.clone()));
    companions.boot_timer = flags.get_flag("boot-timer");
    Reachable { log: Some(log), companions, ..Reachable::new(identity, socket, limits) }
}
