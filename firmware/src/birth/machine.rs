//! What no register shows of a machine being born.

use kedge_hv::{Gic, Limits, Timer, VcpuFeatures};
use kedge_ids::{Ppi, RegId};

use super::{BirthError, Newborn, read};
use crate::abi::{GuestAbi, MachineAbi, TimerPpis};
use crate::host::{FoundGic, HostAbilities, HostLimits, names};
use crate::probe::{sve_lengths, typer2};

/// Puts into effect what is promised of the machine, as far as the host lets, and says
/// what came of it. Of what is not promised nothing is asked: a question is a call of the
/// kernel.
pub(super) fn settle(
    newborn: &Newborn<'_>,
    abi: &GuestAbi,
) -> Result<(HostLimits, HostAbilities), BirthError> {
    let machine = &abi.machine;
    let Limits { ipa_bits, vcpus, features, .. } = newborn.hypervisor.limits();
    let features = if abi.cpu.features.is_some() { features } else { VcpuFeatures::NONE };
    let mut limits =
        HostLimits { ipa_bits, vcpus, features: names(features), ..HostLimits::default() };
    limits.system_suspend =
        machine.system_suspend != Some(false) && newborn.vm.enable_system_suspend().is_ok();
    if let Some(gic) = newborn.gic {
        limits.gics.push(distributor(gic, machine)?);
    }
    if abi.cpu.sve_lengths.is_some() {
        let first = newborn.first()?;
        let listed = first.reg_list()?.contains(&RegId::SVE_VLS);
        let lengths = listed.then(|| read(first, RegId::SVE_VLS)).transpose()?;
        limits.sve_lengths = lengths.map(|lengths| sve_lengths(&lengths)).unwrap_or_default();
    }
    timers(newborn, machine.timer_ppis)?;
    Ok((limits, abilities(newborn, abi)))
}

fn abilities(newborn: &Newborn<'_>, abi: &GuestAbi) -> HostAbilities {
    let mut abilities = HostAbilities {
        smccc_filter: !abi.machine.smccc_filter.is_empty() && newborn.vm.supports_smccc_filter(),
        // Nothing is paused before it runs.
        counter_offset: true,
        ..HostAbilities::default()
    };
    if abi.machine.pv_time != Some(false) {
        abilities.pv_time = newborn.hypervisor.abilities().pv_time;
    }
    abilities
}

fn distributor(gic: &dyn Gic, machine: &MachineAbi) -> Result<FoundGic, BirthError> {
    let version = gic.version();
    let born = gic.distributor_revision()?;
    let wanted = machine.gicd_revision.filter(|wanted| *wanted != born);
    let stored = wanted.filter(|wanted| gic.set_distributor_revision(*wanted).is_ok());
    let revision = if stored.is_some() { gic.distributor_revision()? } else { born };
    let mut revisions = vec![born, revision];
    revisions.sort_unstable();
    revisions.dedup();
    let typer2 = machine.gicd_typer2.and_then(|_| typer2(gic));
    Ok(FoundGic { version, revision, revisions, typer2 })
}

/// The timers' interrupts, where they are not KVM's own. Those that are none are refused
/// with the rest of the profile.
fn timers(newborn: &Newborn<'_>, wanted: TimerPpis) -> Result<(), BirthError> {
    let own = TimerPpis::default();
    let first = newborn.first()?;
    for (timer, wanted, own) in [
        (Timer::Virtual, wanted.virtual_timer, own.virtual_timer),
        (Timer::Physical, wanted.physical_timer, own.physical_timer),
    ] {
        if let (true, Ok(ppi)) = (wanted != own, Ppi::try_from(wanted)) {
            first.set_timer_ppi(timer, ppi)?;
        }
    }
    Ok(())
}
