//! Which of a guest's memory was written since it was last saved or restored: what a
//! differential snapshot holds.

use kedge_guest_memory::{DirtySet, GuestMemory, GuestMemoryBackend, dirty};
use kedge_hv::{DirtyLog, HvError, Vm};
use kedge_ids::usize_from;
use kedge_saved_state::SnapshotId;

/// The changes of a machine's memory.
#[derive(Debug)]
pub(crate) struct Changes {
    memory: GuestMemory,
    noted: Noted,
    /// The snapshot that they are changes of.
    since: Option<SnapshotId>,
}

/// Whether changes are noted, which costs the guest a little with every page that it
/// writes to for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Noted {
    Yes,
    No,
}

impl Changes {
    /// Those of `memory`, which nobody notes yet; it began as snapshot `since`.
    pub(crate) fn new(memory: GuestMemory, since: Option<SnapshotId>) -> Self {
        Self { memory, noted: Noted::No, since }
    }

    /// Notes them from now on: `memory` is mapped to the slots of `vm` from the first on,
    /// region by region.
    ///
    /// # Errors
    /// The hypervisor refuses.
    pub(crate) fn note(&mut self, vm: &dyn Vm) -> Result<(), HvError> {
        dirty::track(&self.memory);
        self.slots().try_for_each(|slot| vm.set_dirty_log(slot, DirtyLog::On))?;
        self.noted = Noted::Yes;
        Ok(())
    }

    /// The snapshot since which all changes are noted.
    pub(crate) fn base(&self) -> Option<SnapshotId> {
        self.since.filter(|_| self.noted == Noted::Yes)
    }

    /// Takes what was noted, to save it: from now on, changes are noted anew. None where
    /// nothing is.
    ///
    /// # Errors
    /// The hypervisor refuses; what was noted still is.
    pub(crate) fn take(&self, vm: &dyn Vm) -> Result<Option<DirtySet>, HvError> {
        if self.noted == Noted::No {
            return Ok(None);
        }
        let mut changed = dirty::take(&self.memory);
        for slot in self.slots() {
            match vm.take_dirty_log(slot) {
                // There is a region for each slot.
                Ok(log) => changed.merge(usize_from(slot.into()), &log).unwrap_or_default(),
                Err(refused) => {
                    dirty::put_back(&self.memory, &changed);
                    return Err(refused);
                }
            }
        }
        Ok(Some(changed))
    }

    /// The machine was saved as `snapshot`, with all that was taken last.
    pub(crate) fn saved_as(&mut self, snapshot: SnapshotId) {
        self.since = Some(snapshot);
    }

    fn slots(&self) -> impl Iterator<Item = u32> {
        (0..).take(self.memory.num_regions())
    }
}
