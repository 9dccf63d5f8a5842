//! `kedge abi check`: whether a host can give what a profile promises, or what a snapshot's
//! guest knows.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use clap::{ArgAction, ArgMatches, Command};
use kedge_diag::Fix;
use kedge_firmware::{NoRegister, Plan, PlanLine, Verdict, register_named};
use kedge_hv::OpenError;

use kedge_saved_state::{FileError, StateFile};
use kedge_vmm::{Forecast, RestoreError, Surroundings};

use super::document;
use super::load::{self, BadFile};
use super::probe::{self, HostError};
use crate::columns::{aligned, row};
use crate::flags::{file, help, option, path, switch, text};
use crate::hypervisor::Host;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    /// A document cannot be had.
    #[error(transparent)]
    File(#[from] BadFile),
    /// This host cannot be probed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// There is no hypervisor.
    #[error(transparent)]
    Hypervisor(#[from] OpenError),
    /// A state file cannot be read.
    #[error("the state file {} cannot be loaded", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FileError,
    },
    /// There can be no such machine.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// No register.
    #[error(transparent)]
    Register(#[from] NoRegister),
}

impl Fix for CheckError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::File(source) => source.fix(),
            Self::Host(source) => source.fix(),
            Self::Hypervisor(source) => source.fix(),
            Self::State { source, .. } => {
                source.fix().or_else(|| Some("name the state file of a snapshot".to_owned()))
            }
            Self::Restore(source) => source.fix(),
            Self::Register(source) => source.fix(),
        }
    }
}

/// The command.
pub(super) fn command() -> Command {
    Command::new("check")
        .about(
            "Say, register by register, whether a host can give what a profile promises,\n\
             or what the guest of a snapshot knows",
        )
        .disable_help_flag(true)
        .after_help("Exit status: 0 when it can, 1 when it cannot or after an error.")
        .arg(
            option("profile", "NAME|FILE")
                .required_unless_present("snapshot")
                .conflicts_with("snapshot")
                .help("The profile"),
        )
        .arg(file("snapshot").help("The snapshot's state file: its memory is not looked at"))
        .arg(
            option("allow", "REGISTER,...")
                .conflicts_with("profile")
                .value_delimiter(',')
                .action(ArgAction::Append)
                .help("Accept that these registers are not what the guest was saved with"),
        )
        .arg(option("host", "FILE").help("What a probe found there [default: probe this host]"))
        .arg(switch("json").help("Print JSON instead of a table"))
        .arg(help())
}

/// What it prints, and whether the host cannot.
///
/// # Errors
/// There is no such profile, snapshot or host.
pub(super) fn plan(flags: &ArgMatches) -> Result<(String, bool), CheckError> {
    let (plan, words) = match path(flags, "snapshot") {
        Some(state) => (of_snapshot(flags, state)?, &OF_SNAPSHOT),
        None => (of_profile(flags)?, &OF_PROFILE),
    };
    let text = if flags.get_flag("json") { document(&plan) } else { table(&plan, words) };
    Ok((text, plan.is_refused()))
}

fn of_profile(flags: &ArgMatches) -> Result<Plan, CheckError> {
    let abi = load::profile(text(flags, "profile"))?;
    let host = match text(flags, "host") {
        "" => probe::this_host()?,
        path => load::host(path)?,
    };
    Ok(kedge_firmware::check(&abi, &host))
}

/// The plan that a load of the snapshot makes.
fn of_snapshot(flags: &ArgMatches, path: PathBuf) -> Result<Plan, CheckError> {
    let state = read(path)?;
    let allow = flags.get_many::<String>("allow").unwrap_or_default();
    let machine = forecast(&state, allow)?;
    Ok(match text(flags, "host") {
        "" => machine.here(&Host::open()?, &Surroundings::new(io::sink()))?,
        path => machine.on(&load::host(path)?)?,
    })
}

/// The plan that a load of the snapshot with the state file `path` makes here, where it is
/// to `allow` that these registers are lost.
///
/// # Errors
/// There is no such snapshot, or no hypervisor.
pub(crate) fn here(path: PathBuf, allow: &[String]) -> Result<Plan, CheckError> {
    let state = read(path)?;
    let machine = forecast(&state, allow)?;
    Ok(machine.here(&Host::open()?, &Surroundings::new(io::sink()))?)
}

fn read(path: PathBuf) -> Result<StateFile, CheckError> {
    let state = File::open(&path).map_err(FileError::Read);
    let state = state.and_then(|mut file| StateFile::read(&mut file));
    state.map_err(|source| CheckError::State { path, source })
}

fn forecast<'n>(
    state: &StateFile,
    allow: impl IntoIterator<Item = &'n String>,
) -> Result<Forecast, CheckError> {
    let mut machine = Forecast::of(state)?;
    for name in allow {
        machine.allow.insert(register_named(name)?);
    }
    Ok(machine)
}

/// How a table of a plan is worded.
struct Words {
    wanted: &'static str,
    kept: &'static str,
    one: &'static str,
    /// What comes before and behind the count of what is refused.
    many: [&'static str; 2],
}

const OF_PROFILE: Words = Words {
    wanted: "PROMISED",
    kept: "The host can keep every promise.",
    one: "The host cannot keep one promise.",
    many: ["The host cannot keep", "promises."],
};
const OF_SNAPSHOT: Words = Words {
    wanted: "SAVED",
    kept: "The machine can go on there.",
    one: "The machine cannot go on there for one thing.",
    many: ["The machine cannot go on there for", "things."],
};

fn table(plan: &Plan, words: &Words) -> String {
    let mut rows = vec![row(["", "REGISTER OR PART", words.wanted, "HOST", ""])];
    rows.extend(plan.lines.iter().map(line));
    let mut text = aligned(&rows);
    let refused = plan.refusals().count();
    text += &match refused {
        0 => format!("\n{}\n", words.kept),
        1 => format!("\n{}\n", words.one),
        more => format!("\n{} {more} {}\n", words.many[0], words.many[1]),
    };
    for cure in plan.cures() {
        text += &format!("  fix: {cure}\n");
    }
    text
}

fn line(line: &PlanLine) -> [String; 5] {
    let PlanLine { subject, wanted, offered, verdict } = line;
    let (word, why) = match verdict {
        Verdict::Keep => ("keep", String::new()),
        Verdict::Adapt { why } => ("adapt", why.clone()),
        Verdict::Refuse { why, .. } => ("REFUSE", why.clone()),
    };
    [word.to_owned(), subject.to_string(), wanted.clone(), offered.clone(), why]
}
