//! Putting a snapshot's two files in place, so that whenever kedge is killed, a whole
//! snapshot is there: the old one or the new one.
//!
//! Both files are written under temporary names in their folders: `<name>.saving`,
//! locked while they are written. Two files cannot be renamed at once, so the steps are
//!
//! | | step | a load after it finds |
//! |---|---|---|
//! | 1 | the old memory file is linked as `<memory>.<its id>` | the old state, and its memory under either name |
//! | 2 | the new memory file is renamed over the old | the old state, and its memory as `<memory>.<id>` |
//! | 3 | the new state file is renamed over the old | the new snapshot |
//! | 4 | `<memory>.<id>` is removed | the new snapshot |
//!
//! and a load takes `<memory>.<id>` first, with the id its state file asks for: then no
//! memory file is ever taken for another's, even where the two differ in few pages.
//! A kill between 3 and 4 leaves `<memory>.<id>` behind, which no state file asks for.
//!
//! All of this is about kedge being killed. For the host losing power, ask for
//! [`Durability::Synced`]: what a step needs is then on the disk before the step.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kedge_diag::Fix;
use rustix::fs::{FlockOperation, OFlags, flock};

use crate::image::check_identity;
use crate::{
    About, Contents, Header, ImageWriter, Region, Section, SnapshotId, StateFile, WrittenImage,
};

/// Whether a snapshot has to survive the loss of the host's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It is in the host's page cache, and written to disk when the host likes: kedge
    /// can be killed.
    Cached,
    /// It is on the disk before the save ends.
    Synced,
}

/// Why a snapshot cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Both files would have the same name.
    #[error("state and memory would both be written to {}", path.display())]
    Same {
        /// The name.
        path: PathBuf,
    },
    /// The name has no last part, or is that of something else than a file.
    #[error("{} is no name for a file of a snapshot", path.display())]
    Name {
        /// The name.
        path: PathBuf,
    },
    /// Somebody writes to the same place.
    #[error("another snapshot is being saved as {}", path.display())]
    Busy {
        /// The place.
        path: PathBuf,
    },
    /// A difference would replace what it is a difference to.
    #[error("a difference to the snapshot in {} cannot replace it", path.display())]
    OwnBase {
        /// The memory file.
        path: PathBuf,
    },
    /// The host cannot create, write or rename a file.
    #[error("{} cannot be {done}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What cannot be done with it: "written".
        done: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

impl Fix for PlaceError {
    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::Same { .. } => "name two files",
            Self::Name { .. } => "name a file in a folder that exists",
            Self::Busy { .. } => "wait for it to end, or name another file",
            Self::OwnBase { .. } => "name other files, or save a full snapshot",
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "make room, or save to another disk; what was there before is unchanged"
                }
                io::ErrorKind::NotFound => "create the folder first",
                _ => return None,
            },
        };
        Some(text.to_owned())
    }
}

fn file_error(path: &Path, done: &'static str) -> impl FnOnce(io::Error) -> PlaceError {
    let path = path.to_owned();
    move |source| PlaceError::File { path, done, source }
}

/// A snapshot's files while they are written. Dropped before [`PendingPair::commit`],
/// it leaves nothing behind.
#[derive(Debug)]
pub struct PendingPair {
    state: Pending,
    memory: Pending,
    contents: Contents,
}

impl PendingPair {
    /// Begins files that are to be `state` and `memory`: that of a snapshot with these
    /// contents.
    ///
    /// # Errors
    /// The folders do not take them, or somebody else is saving there.
    pub fn create(state: &Path, memory: &Path, contents: Contents) -> Result<Self, PlaceError> {
        let (state, memory) = (Target::new(state)?, Target::new(memory)?);
        if let Some(path) = state.clash(&memory) {
            return Err(PlaceError::Same { path: path.to_owned() });
        }
        let (state, memory) = (Pending::create(state)?, Pending::create(memory)?);
        let replaced = replaced_snapshot(&state.target).map(|header| header.memory.id);
        match contents {
            Contents::Difference { of } if replaced == Some(of) => {
                Err(PlaceError::OwnBase { path: memory.target.clone() })
            }
            _ => Ok(Self { state, memory, contents }),
        }
    }

    /// Begins the memory file: that of `regions`, in pages of `page_size` bytes.
    ///
    /// # Errors
    /// The host cannot make it.
    pub fn begin_memory(
        &self,
        regions: &[Region],
        page_size: u32,
    ) -> Result<ImageWriter<'_>, PlaceError> {
        let Pending { temporary, file, .. } = &self.memory;
        ImageWriter::new(file, self.contents, regions, page_size)
            .map_err(file_error(temporary, "written"))
    }

    /// What an error of the [`ImageWriter`] means.
    pub fn memory_error(&self, source: io::Error) -> PlaceError {
        file_error(&self.memory.temporary, "written")(source)
    }

    /// Writes the state file, with what the writer of the memory file said of it, and
    /// puts both in place.
    ///
    /// # Errors
    /// The host cannot write, sync or rename them. What was there before is there again.
    pub fn commit(
        mut self,
        about: &About,
        memory: &WrittenImage,
        sections: &[Section],
        durability: Durability,
    ) -> Result<(), PlaceError> {
        self.write_state(about, memory, sections)?;
        if durability == Durability::Synced {
            self.memory.sync()?;
            self.state.sync()?;
        }
        let mut placing = Placing { pair: &mut self, durability, kept: None };
        placing.keep_old()?;
        placing.place_memory()?;
        placing.place_state()?;
        placing.remove_old();
        Ok(())
    }

    fn write_state(
        &self,
        about: &About,
        memory: &WrittenImage,
        sections: &[Section],
    ) -> Result<(), PlaceError> {
        let sections = [sections, memory.sections.as_slice()].concat();
        let mut to = BufWriter::new(&self.state.file);
        StateFile::write(&mut to, about, &memory.identity, &sections)
            .and_then(|()| to.flush())
            .map_err(file_error(&self.state.temporary, "written"))
    }
}

/// The renames, one after the other.
#[derive(Debug)]
struct Placing<'p> {
    pair: &'p mut PendingPair,
    durability: Durability,
    /// The old memory file, under its id.
    kept: Option<PathBuf>,
}

impl Placing<'_> {
    /// Step 1: the old memory file gets a second name, if it is the old state file's.
    fn keep_old(&mut self) -> Result<(), PlaceError> {
        let memory = &self.pair.memory.target;
        let Some(old) = replaced_snapshot(&self.pair.state.target) else { return Ok(()) };
        let kept = kept_memory(memory, old.memory.id);
        // From a save that was killed: what is called as it is now may not be it.
        if !kept.exists() {
            let Ok(file) = File::open(memory) else { return Ok(()) };
            if check_identity(&file, &old.memory, old.about.page_size).is_err() {
                return Ok(());
            }
            // Where the file system has no links, the load finds it all the same.
            fs::hard_link(memory, &kept)
                .or_else(|_| fs::rename(memory, &kept))
                .map_err(file_error(memory, "kept until it is replaced"))?;
        }
        self.kept = Some(kept);
        self.sync_folder(&self.pair.memory)
    }

    /// Step 2.
    fn place_memory(&mut self) -> Result<(), PlaceError> {
        let renamed = self.pair.memory.rename();
        self.or_undo(renamed)?;
        let synced = self.sync_folder(&self.pair.memory);
        self.or_undo(synced)
    }

    /// Step 3.
    fn place_state(&mut self) -> Result<(), PlaceError> {
        let renamed = self.pair.state.rename();
        self.or_undo(renamed)?;
        self.sync_folder(&self.pair.state)
    }

    /// Step 4. What cannot be removed is in nobody's way.
    fn remove_old(&mut self) {
        if let Some(kept) = self.kept.take() {
            let _ = fs::remove_file(kept);
        }
    }

    /// After a failure, gives the old memory file its name back.
    fn or_undo(&mut self, step: Result<(), PlaceError>) -> Result<(), PlaceError> {
        if step.is_err() {
            let memory = &mut self.pair.memory;
            let undone = match self.kept.take() {
                // The rename of a file over itself leaves both names.
                Some(kept) => {
                    fs::rename(&kept, &memory.target).and_then(|()| fs::remove_file(kept))
                }
                None if memory.placed => fs::remove_file(&memory.target),
                None => Ok(()),
            };
            // A load finds it under either name.
            let _ = undone;
        }
        step
    }

    fn sync_folder(&self, of: &Pending) -> Result<(), PlaceError> {
        if self.durability == Durability::Cached {
            return Ok(());
        }
        let folder = folder(&of.target);
        File::open(folder).and_then(|f| f.sync_all()).map_err(file_error(folder, "synced"))
    }
}

/// Where the memory file of snapshot `id` is kept while another takes its place.
pub(crate) fn kept_memory(memory: &Path, id: SnapshotId) -> PathBuf {
    with_suffix(memory, &id.to_string())
}

/// The header of the snapshot that is to be replaced, if it is one.
fn replaced_snapshot(state: &Path) -> Option<Header> {
    Header::read(&mut File::open(state).ok()?).ok()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    name.into()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The two names of a file.
#[derive(Debug)]
struct Target {
    path: PathBuf,
    temporary: PathBuf,
}

impl Target {
    fn new(path: &Path) -> Result<Self, PlaceError> {
        let bad = || PlaceError::Name { path: path.to_owned() };
        // Where there is a file, through links to it.
        let path = match path.canonicalize() {
            Ok(there) => there,
            Err(_) => {
                let name = path.file_name().ok_or_else(bad)?;
                folder(path).canonicalize().map_err(file_error(path, "created"))?.join(name)
            }
        };
        // A rename would put a file in place of a device.
        if path.exists() && !path.is_file() {
            return Err(bad());
        }
        Ok(Self { temporary: with_suffix(&path, "saving"), path })
    }

    /// A name that both have.
    fn clash(&self, other: &Self) -> Option<&Path> {
        let ours = [&self.path, &self.temporary];
        let clash = ours.into_iter().find(|&name| [&other.path, &other.temporary].contains(&name));
        clash.map(PathBuf::as_path)
    }
}

/// A file under its temporary name.
#[derive(Debug)]
struct Pending {
    target: PathBuf,
    temporary: PathBuf,
    /// Locked.
    file: File,
    /// Whether it has its name.
    placed: bool,
}

impl Pending {
    fn create(target: Target) -> Result<Self, PlaceError> {
        let Target { path: target, temporary } = target;
        let locked = lock(&temporary).map_err(file_error(&target, "created"))?;
        let file = locked.ok_or_else(|| PlaceError::Busy { path: target.clone() })?;
        let pending = Self { target, temporary, file, placed: false };
        // A save that was killed may have left one.
        pending.file.set_len(0).map_err(file_error(&pending.temporary, "emptied"))?;
        Ok(pending)
    }

    fn sync(&self) -> Result<(), PlaceError> {
        self.file.sync_all().map_err(file_error(&self.temporary, "synced"))
    }

    fn rename(&mut self) -> Result<(), PlaceError> {
        fs::rename(&self.temporary, &self.target).map_err(file_error(&self.target, "replaced"))?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.placed {
            // The next save to the same place empties and takes what is left.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Opens or creates a file and locks it; None where somebody else has it locked.
fn lock(path: &Path) -> io::Result<Option<File>> {
    const PRIVATE: u32 = 0o600;
    // A link here is somebody's trap: memory holds secrets.
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    loop {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.mode(PRIVATE).custom_flags(flags).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // Between the two, its owner may have renamed or removed it.
        if same_file(&file, path)? {
            return Ok(Some(file));
        }
    }
}

fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
