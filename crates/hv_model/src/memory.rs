//! The memory slots of a model machine, and the log of what was written to them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use kedge_guest_memory::{Bytes, GuestMemoryRegion, RamRegion};
use kedge_hv::{Access, DirtyLog};
use kedge_ids::{u64_from, usize_from};

use crate::state::VmState;

/// A memory slot.
pub(crate) struct Slot {
    pub(crate) region: Arc<RamRegion>,
    pub(crate) access: Access,
    /// The host's pages that were written, where they are noted.
    written: Option<BTreeSet<u64>>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Slot {
    /// One whose writes nobody notes.
    pub(crate) fn new(region: Arc<RamRegion>, access: Access) -> Self {
        Self { region, access, written: None }
    }

    /// The first address, and the first behind it.
    pub(crate) fn bounds(&self) -> (u64, u64) {
        let start = self.region.start_addr().0;
        (start, start.saturating_add(self.region.len()))
    }

    /// Reads from what `address` is in, none where the host lost it.
    pub(crate) fn read(&self, address: u64, data: &mut [u8]) -> Option<()> {
        let offset = usize_from(address - self.bounds().0);
        self.region.as_volatile_slice().ok()?.read_slice(data, offset).ok()
    }

    /// Writes to it, and notes so.
    pub(crate) fn write(&mut self, address: u64, data: &[u8]) -> Option<()> {
        let offset = address - self.bounds().0;
        self.region.as_volatile_slice().ok()?.write_slice(data, usize_from(offset)).ok()?;
        let last = offset + u64_from(data.len()).saturating_sub(1);
        if let Some(written) = &mut self.written {
            written.extend(offset / page()..=last / page());
        }
        Some(())
    }

    /// Switches the log.
    pub(crate) fn set_log(&mut self, log: DirtyLog) {
        match log {
            DirtyLog::On => drop(self.written.get_or_insert_default()),
            DirtyLog::Off => self.written = None,
        }
    }

    /// What the log has, which starts again; none where there is no log.
    pub(crate) fn take_log(&mut self) -> Option<Vec<u64>> {
        let written = std::mem::take(self.written.as_mut()?);
        let pages = self.region.len().div_ceil(page());
        let mut bits = vec![0; usize_from(pages.div_ceil(64))];
        for page in written {
            bits[usize_from(page / 64)] |= 1 << (page % 64);
        }
        Some(bits)
    }
}

/// The size of the host's pages, in bytes: of the real one.
fn page() -> u64 {
    u64_from(rustix::param::page_size())
}

/// The memory slot that has all of these bytes.
pub(crate) fn slot_at(vm: &mut VmState, address: u64, length: usize) -> Option<&mut Slot> {
    let last = address.checked_add(u64_from(length) - 1)?;
    vm.slots.values_mut().find(|slot| {
        let (start, end) = slot.bounds();
        (start..end).contains(&address) && (start..end).contains(&last)
    })
}
