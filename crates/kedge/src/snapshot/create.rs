//! `kedge snapshot create`: a machine that runs, saved by its own process.

use std::path::PathBuf;

use clap::{ArgMatches, Command};
use kedge_api::call::{CreateSnapshot, SnapshotType};

use crate::flags::{file, help, path, switch};
use crate::remote::{Machine, RemoteError};
use crate::status::{Failure, Status};

/// The command.
pub(super) fn command() -> Command {
    Command::new("create")
        .about("Save a machine into two files; one that runs stands still meanwhile")
        .disable_help_flag(true)
        .args(Machine::flags())
        .args([
            file("state").required(true).help("The file for the machine's state"),
            file("memory").required(true).help("The file for the guest's memory"),
            switch("diff").help("Only memory that has changed since the last snapshot"),
            switch("sync").help("Wait until both files are on the disk"),
            switch("no-checksums").help(
                "Make no checksums of memory: a third less time, and\n\
                 `kedge snapshot verify` has nothing to go by",
            ),
            help(),
        ])
}

/// Does what the flags ask for.
///
/// # Errors
/// The machine does not answer, or cannot be saved.
pub(super) fn enter(flags: &ArgMatches) -> Result<Status, Failure> {
    let files = [path(flags, "state"), path(flags, "memory")].map(absolute);
    let [snapshot_path, mem_file_path] = files;
    let order = CreateSnapshot {
        snapshot_path,
        mem_file_path,
        snapshot_type: match flags.get_flag("diff") {
            true => SnapshotType::Diff,
            false => SnapshotType::Full,
        },
        sync: flags.get_flag("sync"),
        resume_vm: false,
        checksums: !flags.get_flag("no-checksums"),
    };
    create(&Machine::of(flags), &order).map_err(|error| Failure::new(Status::ERROR, error))?;
    Ok(Status::OK)
}

/// Saves `machine`, and leaves it running where it ran, saved or not.
///
/// # Errors
/// It does not answer, or cannot be saved.
pub(crate) fn create(machine: &Machine, order: &CreateSnapshot) -> Result<(), RemoteError> {
    let runs = machine.runs()?;
    if runs {
        machine.pause()?;
    }
    let saved = machine.save(order);
    if runs {
        // What went wrong first is what counts.
        return saved.and(machine.resume());
    }
    saved
}

/// The machine's process may be in another folder.
fn absolute(path: Option<PathBuf>) -> PathBuf {
    let path = path.unwrap_or_default();
    std::path::absolute(&path).unwrap_or(path)
}
