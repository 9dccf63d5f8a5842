//! A snapshot on disk: its state file and its memory file, opened together.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use kedge_diag::Fix;

use crate::image::{MEMORY_KINDS, MergeError, merge};
use crate::pair::kept_memory;
use crate::{
    Contents, Durability, FileError, Image, ImageError, PendingPair, PlaceError, Section,
    SnapshotId, StateFile,
};

/// Why a snapshot cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file, or it cannot be opened.
    #[error("{} cannot be opened", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The state file is not one that this release reads.
    #[error("the state file {} cannot be loaded", path.display())]
    State {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        source: FileError,
    },
    /// The memory file is not the state file's.
    #[error("the memory file {} cannot be loaded", path.display())]
    Memory {
        /// The memory file.
        path: PathBuf,
        /// What is wrong with it.
        source: ImageError,
    },
}

impl Fix for OpenError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::File { source, .. } => {
                let missing = source.kind() == io::ErrorKind::NotFound;
                missing.then(|| "name the two files of a snapshot".to_owned())
            }
            Self::State { source, .. } => source.fix(),
            Self::Memory { source, .. } => source.fix(),
        }
    }
}

/// A snapshot that can be loaded: its state is whole, and its memory file is the one
/// that was saved with it.
#[derive(Debug)]
pub struct Snapshot {
    state: StateFile,
    image: Image,
}

impl Snapshot {
    /// Opens the snapshot of these two files. Of its memory, a few pages are read.
    ///
    /// # Errors
    /// A file is missing, damaged, of a newer release, or not the other's.
    pub fn open(state: &Path, memory: &Path) -> Result<Self, OpenError> {
        let state = open_state(state)?;
        let image = open_memory(&state, memory)?;
        Ok(Self { state, image })
    }

    /// Its id.
    pub fn id(&self) -> SnapshotId {
        self.image.identity().id
    }

    /// The machine but for its memory.
    pub fn state(&self) -> &StateFile {
        &self.state
    }

    /// Its memory.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// What its memory file holds.
    pub fn contents(&self) -> Contents {
        self.state.header().contents()
    }
}

/// Opens a snapshot's state file alone: of a machine whose memory another process has.
///
/// # Errors
/// It is missing, damaged, or of a newer release.
pub fn open_state(path: &Path) -> Result<StateFile, OpenError> {
    let bad = |source| OpenError::State { path: path.to_owned(), source };
    StateFile::read(&mut open(path)?).map_err(bad)
}

fn open(path: &Path) -> Result<File, OpenError> {
    File::open(path).map_err(|source| OpenError::File { path: path.to_owned(), source })
}

/// The memory file of `state`: kept under its id if a save was killed just as it was to
/// be replaced, or `memory` itself. The one that was kept comes first: that it is the
/// right one, its name says.
fn open_memory(state: &StateFile, memory: &Path) -> Result<Image, OpenError> {
    // A save puts it beside the file, not beside a link to it.
    let place = memory.canonicalize().unwrap_or_else(|_| memory.to_owned());
    let kept = kept_memory(&place, state.header().memory.id);
    let kept = File::open(kept).ok().and_then(|file| Image::open(file, state).ok());
    match kept {
        Some(image) => Ok(image),
        None => Image::open(open(memory)?, state)
            .map_err(|source| OpenError::Memory { path: memory.to_owned(), source }),
    }
}

/// Why a chain of differences cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum RebaseError {
    /// A difference is to another snapshot than the one before it.
    #[error("snapshot {index} is {}, and the one before it is snapshot {before}", follows(*of))]
    Broken {
        /// Its place in the chain, from 0.
        index: usize,
        /// What it is a difference to, if it is one.
        of: Option<SnapshotId>,
        /// The one before it.
        before: SnapshotId,
    },
    /// A difference has other memory than the one before it.
    #[error("snapshot {index} is of a machine with other memory than the one before it")]
    OtherMemory {
        /// Its place in the chain, from 0.
        index: usize,
    },
    /// A memory file of the chain is damaged.
    #[error("the memory file of snapshot {index} cannot be merged")]
    Memory {
        /// Its place in the chain, from 0.
        index: usize,
        /// What is wrong with it.
        source: ImageError,
    },
    /// The merged snapshot cannot be written.
    #[error("the merged snapshot cannot be saved")]
    Place(#[from] PlaceError),
}

fn follows(of: Option<SnapshotId>) -> String {
    of.map_or("a full one".to_owned(), |of| format!("a difference to snapshot {of}"))
}

impl Fix for RebaseError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Broken { .. } | Self::OtherMemory { .. } => {
                Some("name all snapshots of the chain, the oldest first".to_owned())
            }
            Self::Memory { source, .. } => source.fix(),
            Self::Place(source) => source.fix(),
        }
    }
}

/// What [`rebase`] will write: the contents with which to create its files.
///
/// # Errors
/// The snapshots are no chain.
pub fn rebased_contents(
    base: &Snapshot,
    differences: &[Snapshot],
) -> Result<Contents, RebaseError> {
    let mut before = base;
    for (index, snapshot) in (1..).zip(differences) {
        let identity = snapshot.image.identity();
        if identity.base != Some(before.id()) {
            let of = identity.base;
            return Err(RebaseError::Broken { index, of, before: before.id() });
        }
        if identity.regions != before.image.identity().regions {
            return Err(RebaseError::OtherMemory { index });
        }
        before = snapshot;
    }
    Ok(base.contents())
}

/// Merges a chain of snapshots, each the difference to the one before it, into one: the
/// state of the last with the memory of all. Every checksum there is is verified on the
/// way, and the merged snapshot has them all.
/// `to` was created for [`rebased_contents`].
///
/// # Errors
/// The snapshots are no chain, one is damaged, or the result cannot be written.
pub fn rebase(
    base: &Snapshot,
    differences: &[Snapshot],
    to: PendingPair,
    durability: Durability,
) -> Result<(), RebaseError> {
    rebased_contents(base, differences)?;
    let images: Vec<_> =
        [base].into_iter().chain(differences).map(|snapshot| &snapshot.image).collect();
    for (index, image) in images.iter().enumerate() {
        match image.verify() {
            Ok(()) | Err(ImageError::Unchecked) => {}
            Err(source) => return Err(RebaseError::Memory { index, source }),
        }
    }
    let last = &differences.last().unwrap_or(base).state;
    let about = &last.header().about;
    let mut writer = to.begin_memory(&base.image.identity().regions, about.page_size)?;
    merge(&images, &mut writer).map_err(|error| match error {
        MergeError::Read { index, source } => RebaseError::Memory { index, source },
        MergeError::Write(source) => to.memory_error(source).into(),
    })?;
    let written = writer.finish().map_err(|source| to.memory_error(source))?;
    let is_ours = |section: &&Section| !MEMORY_KINDS.contains(&section.part.kind.as_str());
    let sections: Vec<_> = last.sections().iter().filter(is_ours).cloned().collect();
    Ok(to.commit(about, &written, &sections, durability)?)
}

#[cfg(test)]
mod tests;
