//! Firmware registers: the newest version, the most services and the highest level that
//! every host gives.

use std::cmp::Reverse;

use super::{Findings, Fleet};
use crate::abi::Promises;
use crate::host::{HostAbi, Takes};
use crate::register::{Domain, Firmware, FwReg, FwSpec};
use crate::table::TABLE;

/// The versions and bitmaps, and the levels.
pub(super) fn promises(fleet: &Fleet<'_>, found: &mut Findings) -> (Promises, Promises) {
    let (mut firmware, mut levels) = (Promises::default(), Promises::default());
    for spec in TABLE {
        let (promises, can_be_left_out) = match spec.domain {
            Domain::Level(_) => (&mut levels, true),
            Domain::Version(_) | Domain::Bits(_) => (&mut firmware, false),
        };
        match chosen(fleet, spec) {
            Some(value) => {
                lost(fleet, spec, value, found);
                promises.set(Firmware::Known(spec.reg), value);
            }
            None if can_be_left_out => {
                let lists = |host: &HostAbi| host.firmware(spec.reg).is_some();
                found.lost(fleet, spec.name, lists, |host| has(host, spec));
            }
            None => found.conflict(fleet, spec.name, |host| has(host, spec)),
        }
    }
    unknown(fleet, found);
    (firmware, levels)
}

/// Whether `host` can show its guests `value`; of a level, whether it is as good.
fn gives(host: &HostAbi, reg: FwReg, value: u64) -> bool {
    let spec = reg.spec();
    let Some(register) = host.firmware(reg) else {
        let without = spec.absent.and_then(|absent| absent.means(host.abilities.ptp));
        return without == Some(value);
    };
    // The kernel only tells of these, and their calls reach whom it leaves them to by a filter.
    if reg == FwReg::VendorHypBmap2 && value != 0 && !host.abilities.smccc_filter {
        return false;
    }
    let taken = match &register.takes {
        Takes::Values(values) | Takes::Levels(values) => values.iter().any(|hex| hex.0 == value),
        Takes::Bits { bits, empty } => value & !bits.0 == 0 && (value != 0 || *empty),
        Takes::Untried => false,
    };
    taken || register.default.as_u64() == Some(value)
}

/// All values that this release has names for, the least first.
fn candidates(spec: &FwSpec) -> Vec<u64> {
    let Domain::Bits(bits) = spec.domain else {
        return spec.domain.symbols().iter().map(|symbol| symbol.value).collect();
    };
    let with = |sets: Vec<u64>, bit: u64| {
        let more: Vec<_> = sets.iter().map(|set| set | bit).collect();
        [sets, more].concat()
    };
    let mut sets = bits.iter().fold(vec![0], |sets, bit| with(sets, bit.value));
    sets.sort_by_key(|set| (set.count_ones(), Reverse(*set)));
    sets
}

fn chosen(fleet: &Fleet<'_>, spec: &FwSpec) -> Option<u64> {
    let given = |value: &u64| fleet.all(|host| gives(host, spec.reg, *value));
    candidates(spec).into_iter().rfind(given)
}

/// Names the hosts that keep more from being promised than `chosen`.
fn lost(fleet: &Fleet<'_>, spec: &FwSpec, chosen: u64, found: &mut Findings) {
    let more: Vec<(u64, u64)> = match spec.domain {
        Domain::Bits(bits) => {
            let off = bits.iter().filter(|bit| chosen & bit.value == 0);
            off.map(|bit| (bit.value, chosen | bit.value)).collect()
        }
        Domain::Version(values) | Domain::Level(values) => {
            let better = values.iter().rev().map(|symbol| symbol.value);
            better.take_while(|value| *value != chosen).map(|value| (value, value)).collect()
        }
    };
    let mut given =
        more.into_iter().filter(|(_, whole)| fleet.any(|host| gives(host, spec.reg, *whole)));
    let given: Vec<_> = match spec.domain {
        Domain::Bits(_) => given.collect(),
        // The best says it all.
        Domain::Version(_) | Domain::Level(_) => given.next().into_iter().collect(),
    };
    for (named, whole) in given {
        let subject = format!("{} {}", spec.name, spec.reg.format(named));
        let gives = |host: &HostAbi| gives(host, spec.reg, whole);
        found.lost(fleet, &subject, gives, |host| has(host, spec));
    }
}

/// What `host` makes of a register, as a phrase.
fn has(host: &HostAbi, spec: &FwSpec) -> String {
    let Some(register) = host.firmware(spec.reg) else {
        let means = spec.absent.and_then(|absent| absent.means(host.abilities.ptp));
        return match means {
            Some(value) => {
                format!("has no such register, which comes to `{}`", spec.reg.format(value))
            }
            None => "has no such register".to_owned(),
        };
    };
    if let Takes::Levels(levels) = &register.takes {
        let words: Vec<_> = levels.iter().map(|level| spec.reg.format(level.0)).collect();
        return format!("is as good as {}", words.join(", "));
    }
    format!("takes {}", register.takes.words(Firmware::Known(spec.reg)))
}

/// Registers of which this release does not know what they offer.
fn unknown(fleet: &Fleet<'_>, found: &mut Findings) {
    let all = fleet.hosts().flat_map(|host| &host.firmware).map(|register| register.firmware());
    let mut unknown: Vec<_> = all.filter(|firmware| firmware.spec().is_none()).collect();
    unknown.sort();
    unknown.dedup();
    for firmware in unknown {
        let lists = |host: &HostAbi| host.firmware.iter().any(|one| one.id == firmware.id());
        let becomes = match firmware.neutral() {
            Some(_) => "it is emptied",
            None => "it stays as it is",
        };
        found.lost(
            fleet,
            &firmware.to_string(),
            |host| !lists(host),
            |_| format!("has this register, which this release does not know: {becomes}"),
        );
    }
}
