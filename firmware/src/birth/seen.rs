//! What the guest of a machine being born will read that no register tells.

use kedge_ids::RegId;

use super::{BirthError, KnownHost, Newborn};
use crate::abi::GuestAbi;
use crate::pmu::PmuEventSet;
use crate::probe::PMCR_EL0;

/// Hides the events that are not promised, and says which the host has; nothing where the
/// vCPUs have no performance monitors, by the registers `listed`, ascending, or nothing is
/// promised of them.
pub(super) fn settle_events(
    newborn: &Newborn<'_>,
    abi: &GuestAbi,
    host: &KnownHost<'_>,
    listed: &[RegId],
) -> Result<Option<PmuEventSet>, BirthError> {
    let Some(promised) = abi.machine.pmu_events else { return Ok(None) };
    let first = newborn.first()?;
    // All vCPUs with performance monitors have it.
    if listed.binary_search(&PMCR_EL0).is_err() {
        return Ok(None);
    }
    let Some(has) = host.seen()?.events else { return Ok(None) };
    for events in has.without(promised).runs() {
        first.hide_pmu_events(events)?;
    }
    Ok(Some(has))
}
