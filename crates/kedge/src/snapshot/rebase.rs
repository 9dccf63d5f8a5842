//! `kedge snapshot rebase`: a chain of differences merged into one snapshot.

use std::path::{Path, PathBuf};

use clap::builder::ValueParser;
use clap::{Arg, ArgMatches, Command, value_parser};
use kedge_diag::Fix;
use kedge_saved_state::{
    Durability, OpenError, PendingPair, PlaceError, RebaseError, Snapshot, rebase, rebased_contents,
};

use crate::flags::{file, help, path, switch};
use crate::status::{Failure, Status};

/// Why snapshots cannot be merged.
#[derive(Debug, thiserror::Error)]
enum MergeError {
    /// State files and memory files do not come in pairs.
    #[error("after the new snapshot's files come pairs of a state file and its memory file")]
    Pairs,
    /// A snapshot cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// They are no chain, or one is damaged.
    #[error(transparent)]
    Rebase(#[from] RebaseError),
    /// The new one cannot be written.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

impl Fix for MergeError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Pairs => Some("write: full.state full.mem diff.state diff.mem ...".to_owned()),
            Self::Open(source) => source.fix(),
            Self::Rebase(source) => source.fix(),
            Self::Place(source) => source.fix(),
        }
    }
}

/// The command.
pub(super) fn command() -> Command {
    let files: ValueParser = value_parser!(PathBuf);
    Command::new("rebase")
        .about("Merge a snapshot and the differences that follow it into one")
        .disable_help_flag(true)
        .args([
            file("state").required(true).help("The new snapshot's state file"),
            file("memory").required(true).help("The new snapshot's memory file"),
            switch("sync").help("Wait until both files are on the disk"),
            Arg::new("files")
                .value_name("STATE MEMORY")
                .num_args(2..)
                .required(true)
                .value_parser(files)
                .help("The files of each, the oldest first, each the difference to the one before"),
            help(),
        ])
}

/// Does it.
///
/// # Errors
/// The snapshots are no chain, one is damaged, or the result cannot be written.
pub(super) fn enter(flags: &ArgMatches) -> Result<Status, Failure> {
    merge(flags).map_err(|error| Failure::new(Status::ERROR, error))?;
    Ok(Status::OK)
}

fn merge(flags: &ArgMatches) -> Result<(), MergeError> {
    let files: Vec<&Path> =
        flags.get_many::<PathBuf>("files").unwrap_or_default().map(PathBuf::as_path).collect();
    let mut snapshots = Vec::new();
    for pair in files.chunks(2) {
        let [state, memory] = pair else { return Err(MergeError::Pairs) };
        snapshots.push(Snapshot::open(state, memory)?);
    }
    let Some((base, differences)) = snapshots.split_first() else {
        return Err(MergeError::Pairs);
    };
    let contents = rebased_contents(base, differences)?;
    let [state, memory] = ["state", "memory"].map(|name| path(flags, name).unwrap_or_default());
    let to = PendingPair::create(&state, &memory, contents)?;
    let durability = if flags.get_flag("sync") { Durability::Synced } else { Durability::Cached };
    Ok(rebase(base, differences, to, durability)?)
}
