//! `kedge snapshot inspect` and `verify`: what a snapshot is, and whether it is whole.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};
use kedge_diag::Fix;
use kedge_saved_state::{FORMAT, FileError, Header, ImageError, Need, OpenError, Snapshot};
use serde_json::{Value, json};

use super::{files, memory_file, state_file};
use crate::flags::{help, path};
use crate::output;
use crate::status::{Failure, Status};

/// Why a snapshot cannot be looked at, or is damaged.
#[derive(Debug, thiserror::Error)]
enum InspectError {
    /// It cannot be opened.
    #[error("cannot open `{path}`")]
    Open {
        /// The state file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// It is not whole, or of another release.
    #[error("`{path}` is no state file that can be read")]
    State {
        /// The state file.
        path: PathBuf,
        /// What is wrong.
        source: FileError,
    },
    /// Its two files are not a snapshot.
    #[error(transparent)]
    Snapshot(#[from] OpenError),
    /// Its memory is damaged, or nothing says what it was.
    #[error("the snapshot's memory cannot be verified")]
    Memory(#[from] ImageError),
}

impl Fix for InspectError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Open { .. } => Some("name the state file of a snapshot".to_owned()),
            Self::State { source, .. } => source.fix(),
            Self::Snapshot(source) => source.fix(),
            Self::Memory(source) => source.fix(),
        }
    }
}

/// `kedge snapshot inspect`.
pub(super) fn command() -> Command {
    Command::new("inspect")
        .about("Say what a snapshot is: by whom and where it was saved, and what it holds (JSON)")
        .disable_help_flag(true)
        .arg(state_file())
        .arg(help())
}

/// `kedge snapshot verify`.
pub(super) fn verify_command() -> Command {
    Command::new("verify")
        .about("Read all of a snapshot and hold it against its checksums")
        .disable_help_flag(true)
        .args([state_file(), memory_file(), help()])
}

/// Prints what a state file says of itself.
///
/// # Errors
/// It cannot be read.
pub(super) fn enter(flags: &ArgMatches) -> Result<Status, Failure> {
    let path = path(flags, "state").unwrap_or_default();
    let header = header(&path).map_err(|error| Failure::new(Status::ERROR, error))?;
    let text = serde_json::to_string_pretty(&describe(&header));
    output::answer(&(text.expect("texts and numbers are always JSON") + "\n"))
}

/// The version of the snapshots that this release writes, as Firecracker's
/// `--snapshot-version` says it.
pub(crate) fn version() -> String {
    format!("v{FORMAT}.0.0\n")
}

/// That of the snapshot with this state file, as `--describe-snapshot` says it.
///
/// # Errors
/// It is none, or has a format that this release does not read.
pub(crate) fn version_of(state: &Path) -> Result<String, Failure> {
    // What can be read has the one format that there is.
    header(state).map_err(|error| Failure::new(Status::ERROR, error)).map(|_| version())
}

fn header(path: &Path) -> Result<Header, InspectError> {
    let opened = |source| InspectError::Open { path: path.to_owned(), source };
    let read = |source| InspectError::State { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(opened)?;
    Header::read(&mut file).map_err(read)
}

fn describe(header: &Header) -> Value {
    let Header { about, memory, sections } = header;
    let sections: Vec<Value> = sections
        .iter()
        .map(|section| {
            json!({
                "kind": section.kind,
                "instance": section.instance,
                "version": section.version,
                "required": section.need == Need::Required,
                "bytes": section.length,
            })
        })
        .collect();
    json!({
        "id": memory.id.to_string(),
        "difference_to": memory.base.map(|base| base.to_string()),
        "release": about.release,
        "architecture": about.architecture,
        "page_size": about.page_size,
        "kernel": about.kernel,
        "cpu": format!("{:#x}", about.cpu),
        "saved_at": about.saved_at,
        "memory_bytes": memory.length,
        "machine": serde_json::from_str::<Value>(&about.machine).unwrap_or_default(),
        "sections": sections,
    })
}

/// Reads all of a snapshot.
///
/// # Errors
/// It is damaged.
pub(super) fn verify(flags: &ArgMatches) -> Result<Status, Failure> {
    whole(flags).map_err(|error| Failure::new(Status::ERROR, error))?;
    Ok(Status::OK)
}

fn whole(flags: &ArgMatches) -> Result<(), InspectError> {
    let [state, memory] = files(flags);
    Ok(Snapshot::open(&state, &memory)?.image().verify()?)
}
