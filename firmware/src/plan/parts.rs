//! Promises of what no register shows.

use kedge_hv::GicVersion;
use kedge_ids::Ppi;

use super::{PlanLine, Subject, Verdict};
use crate::abi::{CounterPolicy, FilterAction, FilterRange, GuestAbi, Implementation, MachineAbi};
use crate::host::{FoundGic, HostAbi};

/// A line for each of them.
pub(super) fn lines(abi: &GuestAbi, host: &HostAbi) -> Vec<PlanLine> {
    let mut lines = Vec::new();
    lines.extend(abi.cpu.features.as_ref().map(|features| self::features(features, host)));
    lines.extend(abi.cpu.sve_lengths.as_ref().map(|lengths| sve_lengths(lengths, host)));
    lines.extend(implementation(abi, host));
    lines.extend(can(
        "system_suspend",
        abi.machine.system_suspend,
        host.limits.system_suspend,
        "5.19",
    ));
    lines.extend(can(
        "pv_time",
        abi.machine.pv_time,
        host.abilities.pv_time,
        "5.10 with schedstats",
    ));
    lines.extend(abi.machine.smccc_filter.iter().map(|range| filter(range, host)));
    lines.extend(interrupts(&abi.machine, host));
    lines.push(ppis(abi));
    lines.push(counter(abi.machine.counter, host));
    lines.extend(abi.machine.ipa_bits.map(|bits| ipa_bits(bits, host)));
    lines
}

fn line(
    name: impl Into<std::borrow::Cow<'static, str>>,
    wanted: impl Into<String>,
    offered: impl Into<String>,
    verdict: Verdict,
) -> PlanLine {
    let (wanted, offered) = (wanted.into(), offered.into());
    PlanLine { subject: Subject::part(name), wanted, offered, verdict }
}

fn words(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn features(wanted: &[String], host: &HostAbi) -> PlanLine {
    let lacks = |name: &&String| !host.limits.features.contains(name);
    let lacking: Vec<_> = wanted.iter().filter(lacks).cloned().collect();
    let verdict = match lacking.as_slice() {
        [] => Verdict::Keep,
        _ => Verdict::refuse(
            format!("the host has no {}", words(&lacking)),
            "run the guest on a host that has them, or with a profile without them",
        ),
    };
    line("features", words(wanted), words(&host.limits.features), verdict)
}

/// A host cannot hide a length below the greatest that it gives.
fn sve_lengths(wanted: &[u32], host: &HostAbi) -> PlanLine {
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
    line("sve_lengths", texts(wanted), texts(has), verdict)
}

fn implementation(abi: &GuestAbi, host: &HostAbi) -> Option<PlanLine> {
    (abi.cpu.implementation == Implementation::Promised).then(|| {
        let can = host.abilities.writable_imp_ids;
        let verdict = if can {
            Verdict::Keep
        } else {
            // Not a refusal by itself: the host's own may be those promised.
            Verdict::adapt("the host can give only its own; each register is compared")
        };
        let offered = if can { "any" } else { "the host's" };
        line("implementation", "promised", offered, verdict)
    })
}

fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// Something that the host has or has not.
fn can(name: &'static str, wanted: Option<bool>, has: bool, since: &str) -> Option<PlanLine> {
    let wanted = wanted?;
    let verdict = if has || !wanted {
        Verdict::Keep
    } else {
        Verdict::refuse(
            "the kernel cannot give it",
            format!("run the guest on Linux {since} or later, or with a profile without it"),
        )
    };
    Some(line(name, yes(wanted), yes(has), verdict))
}

/// The architecture's own calls, which KVM lets nobody filter.
const RESERVED: [(u64, u64); 2] = [(0x8000_0000, 0x8000_ffff), (0xc000_0000, 0xc000_ffff)];

fn filter(range: &FilterRange, host: &HostAbi) -> PlanLine {
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
    line(format!("smccc_filter {base}+{count}"), wanted, offered, verdict)
}

fn interrupts(machine: &MachineAbi, host: &HostAbi) -> Vec<PlanLine> {
    let gics = &host.limits.gics;
    let chosen = match machine.gic {
        Some(version) => host.gic(version),
        None => gics.iter().max_by_key(|gic| gic.version),
    };
    let mut lines = Vec::new();
    lines.extend(machine.gic.map(|version| {
        let names: Vec<_> = gics.iter().map(|gic| name(gic.version).to_owned()).collect();
        let verdict = match chosen {
            Some(_) => Verdict::Keep,
            None => Verdict::refuse(
                "the host has no such interrupt controller",
                "run the guest on a host that has one",
            ),
        };
        line("gic", name(version), words(&names), verdict)
    }));
    if machine.gic.is_some() && chosen.is_none() {
        return lines;
    }
    lines.extend(machine.gicd_revision.map(|wanted| gicd_revision(wanted, chosen)));
    lines.extend(machine.gicd_typer2.map(|wanted| {
        let has = chosen.and_then(|gic| gic.typer2);
        let offered = has.map_or("none".to_owned(), |has| has.to_string());
        let verdict = if has == Some(wanted) {
            Verdict::Keep
        } else {
            Verdict::refuse(
                "the host's interrupt controller is another",
                "run the guest on a host like those of the profile",
            )
        };
        line("gicd_typer2", wanted.to_string(), offered, verdict)
    }));
    lines
}

const fn name(version: GicVersion) -> &'static str {
    match version {
        GicVersion::V2 => "v2",
        GicVersion::V3 => "v3",
    }
}

fn gicd_revision(wanted: u32, gic: Option<&FoundGic>) -> PlanLine {
    let has = gic.map(|gic| gic.revisions.clone()).unwrap_or_default();
    let verdict = if has.contains(&wanted) || gic.is_some_and(|gic| gic.revision == wanted) {
        Verdict::Keep
    } else {
        Verdict::refuse(
            "the kernel's interrupt controller does not have this revision",
            "run the guest on Linux 5.19 or later, or promise a revision that is offered",
        )
    };
    let has: Vec<_> = has.iter().map(u32::to_string).collect();
    line("gicd_revision", wanted.to_string(), words(&has), verdict)
}

/// Every host takes any private interrupts, as long as no two are one.
fn ppis(abi: &GuestAbi) -> PlanLine {
    let timers = abi.machine.timer_ppis;
    let all = [timers.virtual_timer, timers.physical_timer, abi.machine.pmu_ppi];
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
    let wanted = format!("virtual {virtual_timer}, physical {physical_timer}, pmu {pmu}");
    line("timer_ppis, pmu_ppi", wanted, "any", verdict)
}

fn counter(policy: CounterPolicy, host: &HostAbi) -> PlanLine {
    match policy {
        CounterPolicy::Advance => line("counter", "advance", "advance", Verdict::Keep),
        CounterPolicy::Stop if host.abilities.counter_offset => {
            line("counter", "stop", "stop", Verdict::Keep)
        }
        CounterPolicy::Stop => line(
            "counter",
            "stop",
            "stop, the virtual one",
            Verdict::adapt(
                "the physical counter goes on while the guest is paused or saved; Linux guests \
                 live by the virtual one",
            ),
        ),
    }
}

fn ipa_bits(wanted: u8, host: &HostAbi) -> PlanLine {
    let has = host.limits.ipa_bits;
    let verdict = if wanted <= has {
        Verdict::Keep
    } else {
        Verdict::refuse(
            "the host's guests have fewer address bits",
            format!("promise {has} bits, or run the guest on a host with more"),
        )
    };
    line("ipa_bits", wanted.to_string(), has.to_string(), verdict)
}
