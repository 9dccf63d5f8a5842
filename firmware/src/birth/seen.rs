//! What the guest of a machine being born will read that no register tells.

use std::cell::OnceCell;

use kedge_hv::Hypervisor;
use kedge_ids::RegId;

use super::{BirthError, Newborn};
use crate::abi::GuestAbi;
use crate::pmu::PmuEventSet;
use crate::probe::{PMCR_EL0, Seen};

/// A guest of a machine of its own that tells what it reads; it costs as much as a
/// machine, and runs only if it is asked.
pub(super) struct ScratchGuest<'a> {
    hypervisor: &'a dyn Hypervisor,
    seen: OnceCell<Seen>,
}

impl<'a> ScratchGuest<'a> {
    pub(super) fn new(hypervisor: &'a dyn Hypervisor) -> Self {
        Self { hypervisor, seen: OnceCell::new() }
    }

    /// What it reads.
    pub(super) fn seen(&self) -> Result<Seen, BirthError> {
        if let Some(seen) = self.seen.get() {
            return Ok(*seen);
        }
        let seen = Seen::of_a_guest(self.hypervisor)?;
        Ok(*self.seen.get_or_init(|| seen))
    }
}

/// Hides the events that are not promised, and says which the host has; nothing where the
/// vCPUs have no performance monitors, by the registers `listed`, ascending, or nothing is
/// promised of them.
pub(super) fn settle_events(
    newborn: &Newborn<'_>,
    abi: &GuestAbi,
    guest: &ScratchGuest<'_>,
    listed: &[RegId],
) -> Result<Option<PmuEventSet>, BirthError> {
    let Some(promised) = abi.machine.pmu_events else { return Ok(None) };
    let first = newborn.first()?;
    // All vCPUs with performance monitors have it.
    if listed.binary_search(&PMCR_EL0).is_err() {
        return Ok(None);
    }
    let Some(has) = guest.seen()?.events else { return Ok(None) };
    for events in has.without(promised).runs() {
        first.hide_pmu_events(events)?;
    }
    Ok(Some(has))
}
