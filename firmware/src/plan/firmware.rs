//! Promises of firmware registers.

use super::lines::Lines;
use super::{Subject, Verdict};
use crate::abi::{GuestAbi, UnknownFirmware};
use crate::hex::Hex;
use crate::host::{FoundFirmware, HostAbi, Takes};
use crate::register::{Domain, Firmware, FwReg};

/// PSCI 0.1 goes with vCPUs without the feature `psci-0.2`: every kernel has it, and no
/// probe of other vCPUs sees it.
const PSCI_0_1: u64 = 0x1;

/// What any value satisfies.
const ANY: &str = "any";

/// A line for each promise, and for each register of the host that is not promised.
pub(super) fn judge(lines: &mut Lines, abi: &GuestAbi, host: &HostAbi) {
    abi.firmware.iter().for_each(|(firmware, wanted)| value(lines, *firmware, *wanted, host));
    abi.levels.iter().for_each(|(firmware, wanted)| level(lines, *firmware, *wanted, host));
    for found in &host.firmware {
        let firmware = found.firmware();
        if abi.firmware.get(firmware).or(abi.levels.get(firmware)).is_none() {
            not_promised(lines, abi.unknown_firmware, found);
        }
    }
}

/// A promised version or bitmap.
fn value(lines: &mut Lines, firmware: Firmware, wanted: u64, host: &HostAbi) {
    let found = host.firmware.iter().find(|found| found.id == firmware.id());
    let subject = Subject::Firmware(firmware);
    match found {
        _ if firmware == Firmware::Known(FwReg::PsciVersion) && wanted == PSCI_0_1 => {
            lines
                .add(Verdict::Keep, || (subject, firmware.format(wanted), firmware.format(wanted)));
        }
        Some(found) => lines
            .add(of_found(found, wanted), || (subject, firmware.format(wanted), offered(found))),
        None => {
            let means = meaning(firmware, host.abilities.ptp);
            lines.add(of_absent(firmware, wanted, means), || {
                (subject, firmware.format(wanted), absent(firmware, means))
            });
        }
    }
}

/// What the host has of a register, in its words.
fn offered(found: &FoundFirmware) -> String {
    let firmware = found.firmware();
    match &found.takes {
        Takes::Values(values) => {
            let words: Vec<_> = values.iter().map(|value| firmware.format(value.0)).collect();
            words.join(" or ")
        }
        Takes::Bits { bits, .. } => firmware.format(bits.0),
        Takes::Levels(_) | Takes::Untried => default(found),
    }
}

fn default(found: &FoundFirmware) -> String {
    let value = found.default.as_u64().map(|value| found.firmware().format(value));
    value.unwrap_or_else(|| found.default.to_string())
}

fn of_found(found: &FoundFirmware, wanted: u64) -> Verdict {
    let firmware = found.firmware();
    if found.default.as_u64() == Some(wanted) {
        return Verdict::Keep;
    }
    match &found.takes {
        Takes::Values(values) | Takes::Levels(values) if values.contains(&Hex(wanted)) => {
            Verdict::Keep
        }
        Takes::Bits { bits, empty } if wanted & !bits.0 == 0 && (wanted != 0 || *empty) => {
            Verdict::Keep
        }
        Takes::Bits { bits, .. } => excess(firmware, wanted & !bits.0),
        Takes::Values(_) | Takes::Levels(_) | Takes::Untried => no_such_value(firmware, found),
    }
}

/// The refusal of bits that the kernel does not have.
pub(crate) fn excess(firmware: Firmware, bits: u64) -> Verdict {
    match bits {
        0 => Verdict::Refuse {
            why: "the kernel does not let it be emptied".to_owned(),
            cure: Some(PROMISE_WHAT_IS_OFFERED.to_owned()),
        },
        bits => Verdict::refuse(
            format!("the kernel has no {}", firmware.format(bits)),
            PROMISE_WHAT_IS_OFFERED,
        ),
    }
}

const PROMISE_WHAT_IS_OFFERED: &str =
    "promise no more than the host offers, or run the guest on a newer kernel";

fn no_such_value(firmware: Firmware, found: &FoundFirmware) -> Verdict {
    let domain = firmware.spec().map(|spec| spec.domain);
    let newest = found.default.as_u64().map(|newest| firmware.format(newest));
    match (domain, newest) {
        (Some(Domain::Version(_)), Some(newest)) => Verdict::refuse(
            "the kernel does not have this version",
            format!("promise `{firmware}` {newest}, or run the guest on a newer kernel"),
        ),
        _ => Verdict::refuse("the kernel does not take this value", PROMISE_WHAT_IS_OFFERED),
    }
}

/// What the absence of a register means: the value with which a kernel that has it does
/// the same.
fn meaning(firmware: Firmware, ptp: bool) -> Option<u64> {
    match firmware.spec() {
        Some(spec) => spec.absent.and_then(|absent| absent.means(ptp)),
        // What a kernel does not know it does not offer.
        None if firmware.is_bitmap() => Some(0),
        None => None,
    }
}

fn absent(firmware: Firmware, means: Option<u64>) -> String {
    means.map_or_else(|| "nothing".to_owned(), |means| firmware.format(means))
}

/// A promise of a register that the kernel does not have: it holds where the kernel
/// does by itself just that.
fn of_absent(firmware: Firmware, wanted: u64, means: Option<u64>) -> Verdict {
    const NO_SUCH: &str = "the kernel has no such register";
    let Some(means) = means else { return Verdict::refuse(NO_SUCH, newer(firmware)) };
    let (missing, surplus) = (wanted & !means, means & !wanted);
    let why = if wanted == means {
        return Verdict::Keep;
    } else if missing != 0 {
        format!("{NO_SUCH}, and no {}", firmware.format(missing))
    } else {
        format!("{NO_SUCH}: it cannot switch off {}", firmware.format(surplus))
    };
    Verdict::refuse(why, newer(firmware))
}

fn newer(firmware: Firmware) -> String {
    firmware.spec().map_or_else(
        || "run the guest on a newer kernel".to_owned(),
        |spec| format!("run the guest on Linux {} or later", spec.since),
    )
}

/// A level that the host must have at least.
fn level(lines: &mut Lines, firmware: Firmware, wanted: u64, host: &HostAbi) {
    let found = host.firmware.iter().find(|found| found.id == firmware.id());
    let means = meaning(firmware, host.abilities.ptp);
    let has = match found {
        Some(FoundFirmware { takes: Takes::Levels(levels), .. })
            if levels.contains(&Hex(wanted)) =>
        {
            true
        }
        Some(found) => found.default.as_u64() == Some(wanted),
        None => means == Some(wanted),
    };
    let verdict = if has { Verdict::Keep } else { unmitigated() };
    lines.add(verdict, || {
        let offered = found.map_or_else(|| absent(firmware, means), default);
        let wanted = format!("{} or better", firmware.format(wanted));
        (Subject::Firmware(firmware), wanted, offered)
    });
}

pub(crate) fn unmitigated() -> Verdict {
    Verdict::refuse(
        "the host is mitigated less than that",
        "run the guest on a host with this mitigation, or take the level out of the profile",
    )
}

/// A register that the profile does not name.
fn not_promised(lines: &mut Lines, policy: UnknownFirmware, found: &FoundFirmware) {
    let firmware = found.firmware();
    let neutral = match policy {
        UnknownFirmware::Adopt => None,
        UnknownFirmware::Neutralise => firmware.neutral(),
    };
    let verdict = match (policy, neutral, &found.takes) {
        (UnknownFirmware::Adopt, ..) => Verdict::Keep,
        (UnknownFirmware::Neutralise, None, _) => left(firmware),
        (_, Some(_), Takes::Bits { empty: false, .. }) if found.default.as_u64() != neutral => {
            not_emptied()
        }
        (_, Some(_), _) => Verdict::Keep,
    };
    lines.add(verdict, || {
        let wanted = neutral.map_or_else(|| ANY.to_owned(), |neutral| firmware.format(neutral));
        (Subject::Firmware(firmware), wanted, default(found))
    });
}

/// What is neither promised nor can be neutralised. What KVM tells of the host's
/// mitigations is known to be so.
fn left(firmware: Firmware) -> Verdict {
    let level = firmware.spec().is_some_and(|spec| matches!(spec.domain, Domain::Level(_)));
    if level {
        Verdict::Keep
    } else {
        Verdict::adapt("it stays as the host has it: no value of it is known to offer nothing")
    }
}

/// The refusal to start a guest with services that it was not promised.
pub(crate) fn not_emptied() -> Verdict {
    Verdict::refuse(
        "the profile does not know it, and the kernel does not let it be emptied",
        "start the guest with a profile that adopts unknown firmware, such as `--guest-abi host`",
    )
}
