//! Promises of what no register shows.

use kedge_hv::GicVersion;
use kedge_ids::Ppi;

use super::lines::Lines;
use super::{Subject, Verdict};
use crate::abi::{CounterPolicy, FilterAction, FilterRange, GuestAbi, Implementation, MachineAbi};
use crate::hex::Hex;
use crate::host::{FoundGic, HostAbi};
use crate::pmu::PmuEventSet;

/// A line for each of them.
pub(super) fn judge(lines: &mut Lines, abi: &GuestAbi, host: &HostAbi) {
    let machine = &abi.machine;
    if let Some(wanted) = &abi.cpu.features {
        features(lines, wanted, host);
    }
    if let Some(wanted) = &abi.cpu.sve_lengths {
        sve_lengths(lines, wanted, host);
    }
    if abi.cpu.implementation == Implementation::Promised {
        implementation(lines, host);
    }
    if let Some(wanted) = machine.system_suspend {
        can(lines, "system_suspend", (wanted, host.limits.system_suspend), "5.19");
    }
    if let Some(wanted) = machine.pv_time {
        can(lines, "pv_time", (wanted, host.abilities.pv_time), "5.10 with schedstats");
    }
    machine.smccc_filter.iter().for_each(|range| filter(lines, range, host));
    interrupts(lines, machine, host);
    ppis(lines, machine);
    if let (Some(wanted), Some(has)) = (machine.pmu_events, host.limits.pmu_events) {
        pmu_events(lines, wanted, has);
    }
    counter(lines, machine.counter, host);
    if let Some(bits) = machine.ipa_bits {
        ipa_bits(lines, bits, host);
    }
}

fn words(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn features(lines: &mut Lines, wanted: &[String], host: &HostAbi) {
    let lacks = |name: &&String| !host.limits.features.contains(name);
    let lacking: Vec<_> = wanted.iter().filter(lacks).cloned().collect();
    let verdict = match lacking.as_slice() {
        [] => Verdict::Keep,
        _ => Verdict::refuse(
            format!("the host has no {}", words(&lacking)),
            "run the guest on a host that has them, or with a profile without them",
        ),
    };
    lines.add_part("features", verdict, || (words(wanted), words(&host.limits.features)));
}

/// A host cannot hide a length below the greatest that it gives.
fn sve_lengths(lines: &mut Lines, wanted: &[u32], host: &HostAbi) {
    let texts = |lengths: &[u32]| words(&lengths.iter().map(u32::to_string).collect::<Vec<_>>());
    let has = &host.limits.sve_lengths;
    let greatest = wanted.iter().max().copied().unwrap_or(0);
    let up_to: Vec<_> = has.iter().copied().filter(|length| *length <= greatest).collect();
    let verdict = if up_to == wanted {
        Verdict::Keep
    } else {
        Verdict::refuse(
            format!("up to {greatest} bits the host has just {}", texts(&up_to)),
            "promise the lengths that all hosts have in common, up to the first that one lacks",
        )
    };
    lines.add_part("sve_lengths", verdict, || (texts(wanted), texts(has)));
}

fn implementation(lines: &mut Lines, host: &HostAbi) {
    let can = host.abilities.writable_imp_ids;
    let verdict = if can {
        Verdict::Keep
    } else {
        // Not a refusal by itself: the host's own may be those promised.
        Verdict::adapt("the host can give only its own; each register is compared")
    };
    let offered = if can { "any" } else { "the host's" };
    lines.add_part("implementation", verdict, || ("promised".to_owned(), offered.to_owned()));
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// Something that the host has or has not.
fn can(lines: &mut Lines, name: &'static str, (wanted, has): (bool, bool), since: &str) {
    let verdict = if has || !wanted {
        Verdict::Keep
    } else {
        Verdict::refuse(
            "the kernel cannot give it",
            format!("run the guest on Linux {since} or later, or with a profile without it"),
        )
    };
    lines.add_part(name, verdict, || (yes(wanted), yes(has)));
}

/// The architecture's own calls, which KVM lets nobody filter.
const RESERVED: [(u64, u64); 2] = [(0x8000_0000, 0x8000_ffff), (0xc000_0000, 0xc000_ffff)];

fn filter(lines: &mut Lines, range: &FilterRange, host: &HostAbi) {
    let FilterRange { base, count, action } = range;
    let last = base.0 + u64::from(*count).saturating_sub(1);
    let wanted = match action {
        FilterAction::Deny => "deny",
        FilterAction::Forward => "forward",
    };
    let reserved = RESERVED.iter().any(|(from, to)| base.0 <= *to && *from <= last);
    let verdict = if *count == 0 || last > u64::from(u32::MAX) {
        Verdict::refuse("these are no function ids", "give function ids of 32 bits, one or more")
    } else if reserved {
        Verdict::refuse(
            "these are the architecture's own calls, which only the kernel answers",
            "leave 0x80000000 to 0x8000ffff and 0xc0000000 to 0xc000ffff out of the filter",
        )
    } else if host.abilities.smccc_filter {
        Verdict::Keep
    } else {
        Verdict::refuse(
            "the kernel answers every call itself",
            "run the guest on Linux 6.4 or later, or with a profile without this range",
        )
    };
    let offered = if host.abilities.smccc_filter { "any" } else { "none" };
    lines.add(verdict, || {
        let subject = Subject::part(format!("smccc_filter {base}+{count}"));
        (subject, wanted.to_owned(), offered.to_owned())
    });
}

fn interrupts(lines: &mut Lines, machine: &MachineAbi, host: &HostAbi) {
    let gics = &host.limits.gics;
    let chosen = match machine.gic {
        Some(version) => host.gic(version),
        None => gics.iter().max_by_key(|gic| gic.version),
    };
    if let Some(version) = machine.gic {
        let verdict = match chosen {
            Some(_) => Verdict::Keep,
            None => Verdict::refuse(
                "the host has no such interrupt controller",
                "run the guest on a host that has one",
            ),
        };
        lines.add_part("gic", verdict, || {
            let names: Vec<_> = gics.iter().map(|gic| name(gic.version).to_owned()).collect();
            (name(version).to_owned(), words(&names))
        });
        // Of one that is not there nothing else is said.
        if chosen.is_none() {
            return;
        }
    }
    if let Some(wanted) = machine.gicd_revision {
        gicd_revision(lines, wanted, chosen);
    }
    if let Some(wanted) = machine.gicd_typer2 {
        gicd_typer2(lines, wanted, chosen);
    }
}

fn gicd_typer2(lines: &mut Lines, wanted: Hex, gic: Option<&FoundGic>) {
    let has = gic.and_then(|gic| gic.typer2);
    let verdict = if has == Some(wanted) {
        Verdict::Keep
    } else {
        Verdict::refuse(
            "the host's interrupt controller is another",
            "run the guest on a host like those of the profile",
        )
    };
    lines.add_part("gicd_typer2", verdict, || {
        (wanted.to_string(), has.map_or("none".to_owned(), |has| has.to_string()))
    });
}

const fn name(version: GicVersion) -> &'static str {
    match version {
        GicVersion::V2 => "v2",
        GicVersion::V3 => "v3",
    }
}

fn gicd_revision(lines: &mut Lines, wanted: u32, gic: Option<&FoundGic>) {
    let has = gic.is_some_and(|gic| gic.revision == wanted || gic.revisions.contains(&wanted));
    let verdict = if has {
        Verdict::Keep
    } else {
        Verdict::refuse(
            "the kernel's interrupt controller does not have this revision",
            "run the guest on Linux 5.19 or later, or promise a revision that is offered",
        )
    };
    lines.add_part("gicd_revision", verdict, || {
        let offered = gic.map(|gic| gic.revisions.as_slice()).unwrap_or_default();
        let offered: Vec<_> = offered.iter().map(u32::to_string).collect();
        (wanted.to_string(), words(&offered))
    });
}

/// Every host takes any private interrupts, as long as no two are one.
fn ppis(lines: &mut Lines, machine: &MachineAbi) {
    let timers = machine.timer_ppis;
    let all = [timers.virtual_timer, timers.physical_timer, machine.pmu_ppi];
    let private = all.iter().all(|intid| Ppi::try_from(*intid).is_ok());
    let [virtual_timer, physical_timer, pmu] = all;
    let distinct = virtual_timer != physical_timer && virtual_timer != pmu && physical_timer != pmu;
    let verdict = if private && distinct {
        Verdict::Keep
    } else {
        Verdict::refuse(
            "these are not three private interrupts",
            "give each of them an INTID of its own from 16 to 31",
        )
    };
    lines.add_part("timer_ppis, pmu_ppi", verdict, || {
        let wanted = format!("virtual {virtual_timer}, physical {physical_timer}, pmu {pmu}");
        (wanted, "any".to_owned())
    });
}

/// Of vCPUs without performance monitors nothing is said. Events that were not promised
/// are hidden.
fn pmu_events(lines: &mut Lines, wanted: PmuEventSet, has: PmuEventSet) {
    let missing = wanted.without(has);
    let verdict = if missing == PmuEventSet::default() {
        Verdict::Keep
    } else {
        Verdict::refuse(
            format!("the host's performance monitors do not count {}", missing.words()),
            "run the guest on hosts with the same CPU, or with a profile without `pmu`",
        )
    };
    lines.add_part("pmu_events", verdict, || (wanted.words(), has.words()));
}

fn counter(lines: &mut Lines, policy: CounterPolicy, host: &HostAbi) {
    let (wanted, offered, verdict) = match policy {
        CounterPolicy::Advance => ("advance", "advance", Verdict::Keep),
        CounterPolicy::Stop if host.abilities.counter_offset => ("stop", "stop", Verdict::Keep),
        CounterPolicy::Stop => (
            "stop",
            "stop, the virtual one",
            Verdict::adapt(
                "the physical counter goes on while the guest is paused or saved; Linux guests \
                 live by the virtual one",
            ),
        ),
    };
    lines.add_part("counter", verdict, || (wanted.to_owned(), offered.to_owned()));
}

fn ipa_bits(lines: &mut Lines, wanted: u8, host: &HostAbi) {
    let has = host.limits.ipa_bits;
    let verdict = if wanted <= has {
        Verdict::Keep
    } else {
        Verdict::refuse(
            "the host's guests have fewer address bits",
            format!("promise {has} bits, or run the guest on a host with more"),
        )
    };
    lines.add_part("ipa_bits", verdict, || (wanted.to_string(), has.to_string()));
}
