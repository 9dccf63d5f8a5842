//! Where the memory of a machine comes from: of one that begins, and of one that goes on.

use std::sync::Arc;

use kedge_arch::Layout;
use kedge_devices::virtio::catalog::DeviceConfig;
use kedge_guest_memory::{
    GuestAddress, GuestMemory, GuestRange, Lost, MapError, PageAdvice, ServedPages, advise,
    fill_from, map_anonymous, map_file_private, map_served, map_shared,
};
use kedge_saved_state::SnapshotId;

use super::{BuildError, Parts};
use crate::restore::working_set::{self, Recorder, WorkingSetError};
use crate::restore::{MemorySource, Pages, RestoreError, WantedMemory};
use crate::run::page_server;
use crate::spec::MachineSpec;

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

/// Memory for a machine that begins.
///
/// # Errors
/// The host cannot.
pub(super) fn begin(spec: &MachineSpec, layout: &Layout) -> Result<GuestMemory, MapError> {
    match sharer(spec) {
        Some(_) => map_shared(layout.ram()),
        None => map_anonymous(layout.ram()),
    }
}

/// A device that another process serves, with which guest memory is shared.
fn sharer(spec: &MachineSpec) -> Option<&dyn DeviceConfig> {
    spec.devices.iter().map(AsRef::as_ref).find(|device| device.shares_memory())
}

/// Checks that what is `wanted` for a machine of `spec` can be: where another process shares
/// the memory, nothing of it can come as the guest touches it; and where the host's kernel
/// works on it, nothing for which the kernel would have to wait.
///
/// # Errors
/// It cannot.
pub(super) fn check(wanted: &WantedMemory<'_>, spec: &MachineSpec) -> Result<(), RestoreError> {
    let in_kernel = spec.devices.iter().find(|device| device.is_in_kernel());
    if let (MemorySource::Served(_), Some(device)) = (&wanted.source, in_kernel) {
        let (noun, id) = (device.kind().noun, device.id().to_owned());
        return Err(RestoreError::InKernel { noun, id });
    }
    let Some(sharer) = sharer(spec) else { return Ok(()) };
    let what = match (&wanted.source, &wanted.working_set, wanted.pages) {
        (MemorySource::Served(_), ..) => "come from a page server",
        (_, Some(_), _) => "come by a working set",
        (_, _, Pages::Huge2M) => "be on huge pages of 2 MiB",
        (MemorySource::File(_), None, _) => return Ok(()),
    };
    let (noun, id) = (sharer.kind().noun, sharer.id().to_owned());
    Err(RestoreError::Shared { noun, id, what })
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
        MemorySource::File(image) if sharer(parts.spec).is_some() => {
            let memory = map_shared(ranges).map_err(BuildError::from)?;
            fill_from(image.file(), &memory).map_err(BuildError::from)?;
            Ok(Recalled { memory, backing: Backing::None, recorder: None })
        }
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use expect_test::expect;
    use kedge_devices::virtio::{block, net};
    use kedge_diag::report;

    use super::*;

    #[test]
    fn memory_that_the_kernel_works_on_does_not_come_from_a_page_server() {
        let mut spec = MachineSpec::new(crate::spec::Boot::new("Image"));
        spec.devices.push((net::KIND.from_flag)("tap=tap0,vhost=on,id=lan", 0).unwrap());
        let wanted = WantedMemory {
            source: MemorySource::Served(PathBuf::from("pages")),
            pages: Pages::AsSaved,
            working_set: None,
        };
        expect![[r#"
            error: the host's kernel serves the network interface `lan` (`vhost`): guest memory cannot come from a page server then
              fix: load it from its memory file, or with `--net id=lan,vhost=off`"#]].assert_eq(&report(&check(&wanted, &spec).unwrap_err()));
    }

    #[test]
    fn memory_that_another_process_shares_does_not_come_as_the_guest_touches_it() {
        let mut spec = MachineSpec::new(crate::spec::Boot::new("Image"));
        let served = || WantedMemory {
            source: MemorySource::Served(PathBuf::from("pages")),
            pages: Pages::AsSaved,
            working_set: None,
        };
        check(&served(), &spec).unwrap();
        spec.devices.push((block::KIND.from_flag)("socket=/s,id=root", 0).unwrap());
        expect![[r#"
            error: the disk `root` is served by another process, which shares the guest's memory: that cannot come from a page server
              fix: load it from its memory file alone, all of which is read at once then"#]]
        .assert_eq(&report(&check(&served(), &spec).unwrap_err()));
    }
}
