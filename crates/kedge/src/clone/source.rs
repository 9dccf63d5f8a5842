//! What is cloned: a snapshot, or a machine that is saved for it.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;

use clap::ArgMatches;
use kedge_api::call::{CreateSnapshot, SnapshotType};
use kedge_devices::virtio::catalog::DeviceConfig;
use kedge_diag::Fix;
use kedge_saved_state::{OpenError, Snapshot};
use kedge_vmm::{Restoration, RestoreError};

use super::flags::Wanted;
use crate::flags::path;
use crate::remote::{Machine, RemoteError};
use crate::snapshot::create;

/// A snapshot's files.
pub(super) struct Source {
    state: PathBuf,
    memory: PathBuf,
    /// Of a machine's: held open, since they have no names any more.
    held: Option<[File; 2]>,
}

/// Why there is nothing to clone.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// The machine cannot be saved.
    #[error(transparent)]
    Machine(#[from] RemoteError),
    /// There is no place to save it to.
    #[error("cannot keep the machine's snapshot in `{folder}`")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// It is no snapshot.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It holds no machine that could go on.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Several machines would write to one disk.
    #[error("all clones would write to the disk `{id}`, and spoil it for each other")]
    Shared {
        /// The disk's name.
        id: String,
    },
}

impl Fix for SourceError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Machine(source) => source.fix(),
            Self::Folder { .. } => Some("set TMPDIR to a folder with more room".to_owned()),
            Self::Open(source) => source.fix(),
            Self::Restore(source) => source.fix(),
            Self::Shared { id } => {
                Some(format!("give each its own copy: --disk 'id={id},path=FILE-{{n}}'"))
            }
        }
    }
}

impl Source {
    /// What `flags` name.
    ///
    /// # Errors
    /// The machine cannot be saved.
    pub(super) fn of(flags: &ArgMatches) -> Result<Self, SourceError> {
        match path(flags, "memory") {
            Some(memory) => {
                let state = flags.get_one::<String>("machine").map(PathBuf::from);
                Ok(Self { state: state.unwrap_or_default(), memory, held: None })
            }
            None => save(&Machine::of(flags)),
        }
    }

    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    pub(super) fn memory(&self) -> &Path {
        &self.memory
    }

    /// Checks that there is something to clone, and that clones do not harm each other.
    ///
    /// # Errors
    /// It is no snapshot, or a disk that is written to would be several machines'.
    pub(super) fn check(&self, wanted: &Wanted) -> Result<(), SourceError> {
        let snapshot = Snapshot::open(&self.state, &self.memory)?;
        let machine = Restoration::of(&snapshot)?.spec;
        // One clone of a snapshot is the machine itself.
        if wanted.count == 1 && self.held.is_none() {
            return Ok(());
        }
        let devices = machine.devices.iter().map(AsRef::as_ref);
        let is_disk = |device: &&dyn DeviceConfig| device.kind().key == "drives";
        let disks: Vec<_> = devices.filter(is_disk).collect();
        for disk in &disks {
            let is_written = disk.to_json()["is_read_only"] != true;
            if is_written && !wanted.gives_each(disk.kind().flag, disk.id(), disks.len()) {
                return Err(SourceError::Shared { id: disk.id().to_owned() });
            }
        }
        Ok(())
    }
}

/// Saves a machine into files that nobody else sees, and that go with this process.
fn save(machine: &Machine) -> Result<Source, SourceError> {
    let folder = env::temp_dir().join(format!("kedge-clone-{}", process::id()));
    // The machine's process may be in another folder.
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    let failed = |source| SourceError::Folder { folder: folder.clone(), source };
    DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
    let saved = save_in(machine, &folder);
    fs::remove_dir_all(&folder).map_err(failed)?;
    saved
}

fn save_in(machine: &Machine, folder: &Path) -> Result<Source, SourceError> {
    let [state, memory] = ["state", "memory"].map(|name| folder.join(name));
    create(
        machine,
        &CreateSnapshot {
            snapshot_path: state.clone(),
            mem_file_path: memory.clone(),
            snapshot_type: SnapshotType::Full,
            sync: false,
            resume_vm: false,
            // Nobody keeps the files long enough to doubt them.
            checksums: false,
        },
    )?;
    let failed = |source| SourceError::Folder { folder: folder.to_owned(), source };
    let held = [File::open(state).map_err(failed)?, File::open(memory).map_err(failed)?];
    let [state, memory] = held
        .each_ref()
        .map(|file| PathBuf::from(format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd())));
    Ok(Source { state, memory, held: Some(held) })
}
