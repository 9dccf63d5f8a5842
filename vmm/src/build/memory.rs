//! Where the memory of a machine that goes on comes from.

use std::sync::Arc;

use kedge_guest_memory::{
    GuestAddress, GuestMemory, GuestRange, Lost, PageAdvice, ServedPages, advise, map_file_private,
    map_served,
};
use kedge_saved_state::SnapshotId;

use super::{BuildError, Parts};
use crate::restore::working_set::{self, Recorder, WorkingSetError};
use crate::restore::{MemorySource, Pages, RestoreError, WantedMemory};
use crate::run::page_server;

/// Guest RAM as it was saved, and what may become of it.
pub(super) struct Recalled {
    pub(super) memory: GuestMemory,
    pub(super) backing: Backing,
    /// Who writes down which pages of it the guest needs first.
    pub(super) recorder: Option<Recorder>,
}

/// What is behind guest RAM, besides the host's own memory.
pub(crate) enum Backing {
    /// Nothing.
    None,
    /// A file that others can take away.
    File(Arc<Lost>),
    /// Another process that can end.
    Served(page_server::Watch),
}

impl Backing {
    /// Whether all pages were there while a machine was restored.
    ///
    /// # Errors
    /// Some were not.
    pub(super) fn check(&self) -> Result<(), RestoreError> {
        match self {
            Self::File(lost) => lost
                .first()
                .map_or(Ok(()), |GuestAddress(address)| Err(RestoreError::MemoryLost { address })),
            Self::Served(watch) if watch.has_given_up() => Err(RestoreError::PageServerEnded),
            Self::None | Self::Served(_) => Ok(()),
        }
    }

    /// The same, of a machine that is restored: it is ended from now on where pages are not
    /// there.
    ///
    /// # Errors
    /// Some were not there until now.
    pub(super) fn for_life(self) -> Result<Self, RestoreError> {
        match &self {
            Self::Served(watch) if !watch.is_restored() => Err(RestoreError::PageServerEnded),
            Self::None | Self::File(_) | Self::Served(_) => Ok(self),
        }
    }
}

/// Maps what is `wanted` for `ranges`, the guest's RAM.
///
/// # Errors
/// The host cannot, or there is nobody to have it from.
pub(super) fn recall(
    wanted: &WantedMemory<'_>,
    ranges: &[GuestRange],
    (parts, snapshot): (&Parts<'_>, SnapshotId),
) -> Result<Recalled, RestoreError> {
    match &wanted.source {
        MemorySource::File(_) if wanted.pages == Pages::Huge2M => Err(RestoreError::HugeFile),
        MemorySource::File(image) => {
            let file = image.file().try_clone();
            let file = file.map_err(BuildError::host("open the memory file once more"))?;
            let memory = map_file_private(ranges, &Arc::new(file)).map_err(BuildError::from)?;
            advise_of(wanted.pages, &memory);
            let lost = Lost::new(&memory).map_err(BuildError::host("make an event"))?;
            let lost = Arc::new(lost);
            parts.surroundings.guard(Arc::clone(&lost));
            let recorder = match &wanted.working_set {
                Some(path) => working_set::begin(path, snapshot, &memory)?,
                None => None,
            };
            Ok(Recalled { memory, backing: Backing::File(lost), recorder })
        }
        MemorySource::Served(_) if wanted.working_set.is_some() => {
            Err(WorkingSetError::Served.into())
        }
        MemorySource::Served(socket) => {
            let pages = match wanted.pages {
                Pages::Huge2M => ServedPages::Huge2M,
                Pages::AsSaved | Pages::Small | Pages::Transparent => ServedPages::Small,
            };
            let (memory, server) = map_served(ranges, pages, socket)?;
            advise_of(wanted.pages, &memory);
            let watch = page_server::Watch::begin(server, parts.events, parts.surroundings);
            let watch = watch.map_err(BuildError::host("start a thread for the page server"))?;
            Ok(Recalled { memory, backing: Backing::Served(watch), recorder: None })
        }
    }
}

fn advise_of(pages: Pages, memory: &GuestMemory) {
    match pages {
        Pages::Small => advise(memory, PageAdvice::Small),
        Pages::Transparent => advise(memory, PageAdvice::Huge),
        // No machine of ours was saved on huge pages of the host's pool, and those cannot
        // be others.
        Pages::AsSaved | Pages::Huge2M => {}
    }
}
