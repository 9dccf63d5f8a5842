//! What no vCPU register shows.

use kedge_hv::GicVersion;

use super::error::takes;
use super::{Findings, Fleet};
use crate::abi::{FilterAction, FilterRange, MachineAbi, Promises};
use crate::hex::Hex;
use crate::host::HostAbi;
use crate::pmu::PmuEventSet;
use crate::register::{Firmware, FwReg};

/// Everything around the vCPUs that all hosts have.
pub(super) fn promises(
    fleet: &Fleet<'_>,
    firmware: &Promises,
    features: &[String],
    found: &mut Findings,
) -> MachineAbi {
    counter(fleet, found);
    let gic = gic(fleet, found);
    let suspends = |host: &HostAbi| host.limits.system_suspend;
    MachineAbi {
        system_suspend: Some(offered(fleet, "system_suspend", suspends, found)),
        pv_time: Some(pv_time(fleet, firmware, found)),
        smccc_filter: answered(firmware),
        gic,
        gicd_revision: gic.and_then(|version| revision(fleet, version, found)),
        gicd_typer2: gic.and_then(|version| typer2(fleet, version, found)),
        pmu_events: features.iter().any(|name| name == "pmu").then(|| pmu_events(fleet, found)),
        ipa_bits: ipa_bits(fleet, found),
        ..MachineAbi::default()
    }
}

/// Whether all hosts have it; where only some do, it is lost.
fn offered(
    fleet: &Fleet<'_>,
    subject: &str,
    has: impl Fn(&HostAbi) -> bool,
    found: &mut Findings,
) -> bool {
    if fleet.any(&has) {
        found.lost(fleet, subject, &has, |_| "does not have it".to_owned());
    }
    fleet.all(has)
}

fn pv_time(fleet: &Fleet<'_>, firmware: &Promises, found: &mut Findings) -> bool {
    let calls = firmware.get(Firmware::Known(FwReg::StdHypBmap)).unwrap_or(0);
    offered(fleet, "pv_time", |host| host.abilities.pv_time, found) && calls & 1 != 0
}

/// The functions that a guest is told of and the kernel leaves to its user.
fn answered(firmware: &Promises) -> Vec<FilterRange> {
    let told = firmware.get(Firmware::Known(FwReg::VendorHypBmap2)).unwrap_or(0);
    let bits = FwReg::VendorHypBmap2.spec().domain.symbols().iter();
    let functions = bits.filter(|bit| told & bit.value != 0).flat_map(|bit| bit.opens);
    let range = |base: &u32| FilterRange {
        base: Hex(u64::from(*base)),
        count: 1,
        action: FilterAction::Forward,
    };
    functions.map(range).collect()
}

/// Guests read how fast their counter ticks, and nothing can change it.
fn counter(fleet: &Fleet<'_>, found: &mut Findings) {
    let mut known = fleet.hosts().map(|host| host.limits.counter_hz).filter(|hz| *hz != 0);
    let first = known.next();
    if known.any(|hz| Some(hz) != first) {
        found.conflict(fleet, "CNTFRQ_EL0", |host| {
            format!("ticks {} times a second", host.limits.counter_hz)
        });
    }
}

/// The events that all hosts count.
fn pmu_events(fleet: &Fleet<'_>, found: &mut Findings) -> PmuEventSet {
    let of = |host: &HostAbi| host.limits.pmu_events.unwrap_or_default();
    let common = fleet.hosts().map(of).reduce(PmuEventSet::common).unwrap_or_default();
    let mut lost: Vec<u16> =
        fleet.hosts().flat_map(|host| of(host).without(common).numbers()).collect();
    lost.sort_unstable();
    lost.dedup();
    for event in lost {
        let counts = |host: &HostAbi| of(host).numbers().contains(&event);
        let subject = format!("pmu_events {event:#x}");
        found.lost(fleet, &subject, counts, |_| "does not count it".to_owned());
    }
    common
}

fn ipa_bits(fleet: &Fleet<'_>, found: &mut Findings) -> Option<u8> {
    let bits = |host: &HostAbi| host.limits.ipa_bits;
    let (least, most) = (fleet.hosts().map(bits).min()?, fleet.hosts().map(bits).max()?);
    if least != most {
        let all = |host: &HostAbi| bits(host) == most;
        found.lost(fleet, &format!("ipa_bits {most}"), all, |host| format!("has {}", bits(host)));
    }
    Some(least)
}

/// The one interrupt controller that all hosts have; of two, a machine may ask for
/// either.
fn gic(fleet: &Fleet<'_>, found: &mut Findings) -> Option<GicVersion> {
    let mut common = Vec::new();
    for (version, subject) in [(GicVersion::V2, "gic v2"), (GicVersion::V3, "gic v3")] {
        if offered(fleet, subject, |host| host.gic(version).is_some(), found) {
            common.push(version);
        }
    }
    match common.as_slice() {
        [] => {
            found.conflict(fleet, "gic", |host| match host.limits.gics.first() {
                Some(gic) => format!("has {:?}", gic.version),
                None => "has none".to_owned(),
            });
            None
        }
        [only] => Some(*only),
        _ => None,
    }
}

fn revision(fleet: &Fleet<'_>, version: GicVersion, found: &mut Findings) -> Option<u32> {
    let all_of = |host: &HostAbi| {
        let gic = host.gic(version);
        let mut all = gic.map_or(Vec::new(), |gic| [&gic.revisions[..], &[gic.revision]].concat());
        all.sort_unstable();
        all.dedup();
        all
    };
    let stores = |host: &HostAbi, revision: u32| all_of(host).contains(&revision);
    let words = |host: &HostAbi| takes(all_of(host).into_iter().map(u64::from));
    let mut all: Vec<u32> = fleet.hosts().flat_map(all_of).collect();
    all.sort_unstable();
    let chosen = all.iter().rfind(|revision| fleet.all(|host| stores(host, **revision))).copied();
    match (chosen, all.last()) {
        (None, _) => found.conflict(fleet, "gicd_revision", words),
        (Some(chosen), Some(best)) if *best > chosen => {
            let subject = format!("gicd_revision {best}");
            found.lost(fleet, &subject, |host| stores(host, *best), words);
        }
        _ => {}
    }
    chosen
}

/// It tells of the host's own interrupt controller, and no trial showed that it can tell
/// of another.
fn typer2(fleet: &Fleet<'_>, version: GicVersion, found: &mut Findings) -> Option<Hex> {
    let of = |host: &HostAbi| host.gic(version).and_then(|gic| gic.typer2);
    let first = fleet.hosts().next().and_then(of);
    if fleet.all(|host| of(host) == first) {
        return first;
    }
    found.conflict(fleet, "gicd_typer2", |host| {
        of(host).map_or_else(|| "has none".to_owned(), |typer2| format!("takes only {typer2}"))
    });
    None
}
