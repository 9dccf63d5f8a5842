//! What is cloned: a snapshot, or a machine that is saved for it.

use std::env;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process;

use clap::ArgMatches;
use kedge_api::call::{CreateSnapshot, SnapshotType};
use kedge_devices::virtio::catalog::DeviceConfig;
use kedge_diag::Fix;
use kedge_saved_state::{OpenError, Snapshot};
use kedge_vmm::{
    Checksums, ControlError, Handle, Restoration, RestoreError, SaveKind, SaveOrder, SaveProgress,
};

use super::flags::Wanted;
use super::folder::PrivateFolder;
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
pub(crate) enum SourceError {
    /// Another process's machine cannot be saved.
    #[error(transparent)]
    Machine(#[from] RemoteError),
    /// This process's machine cannot be saved.
    #[error(transparent)]
    Control(#[from] ControlError),
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
            Self::Control(source) => source.fix(),
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
            None => {
                let machine = Machine::of(flags);
                Self::saved(|files| Ok(create(&machine, &create_order(files))?))
            }
        }
    }

    /// The machine behind `handle`, which stays as it is: what is saved of it as a difference
    /// later is one to the snapshot before this. `watcher` hears how far the saving is.
    ///
    /// # Errors
    /// It cannot be saved, or `watcher` wants no more of it.
    pub(super) fn of_machine(
        handle: &Handle,
        watcher: impl FnMut(SaveProgress) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Self, SourceError> {
        Self::saved(|[state, memory]| {
            let order = SaveOrder { kind: SaveKind::Copy, ..SaveOrder::new(state, memory) };
            // Nobody keeps the files long enough to doubt them.
            let order = SaveOrder { checksums: Checksums::Samples, ..order };
            Ok(handle.save_watched(order, watcher).map(drop)?)
        })
    }

    /// A machine that `save` saves, into files that nobody else sees, and that go with this
    /// process.
    fn saved(
        save: impl FnOnce([PathBuf; 2]) -> Result<(), SourceError>,
    ) -> Result<Self, SourceError> {
        let folder = PrivateFolder::make(&env::temp_dir())
            .map_err(|(folder, source)| SourceError::Folder { folder, source })?;
        let path = folder.path().to_owned();
        let files = ["state", "memory"].map(|name| path.join(name));
        let held = save(files.clone()).map(|()| files.map(File::open));
        let failed = |source| SourceError::Folder { folder: path.clone(), source };
        folder.remove().map_err(failed)?;
        let [state, memory] = held?;
        let held = [state.map_err(failed)?, memory.map_err(failed)?];
        let [state, memory] = held
            .each_ref()
            .map(|file| PathBuf::from(format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd())));
        Ok(Self { state, memory, held: Some(held) })
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

/// How another process is to save its machine.
fn create_order([state, memory]: [PathBuf; 2]) -> CreateSnapshot {
    CreateSnapshot {
        snapshot_path: state,
        mem_file_path: memory,
        snapshot_type: SnapshotType::Copy,
        sync: false,
        resume_vm: false,
        // Nobody keeps the files long enough to doubt them.
        checksums: false,
    }
}
