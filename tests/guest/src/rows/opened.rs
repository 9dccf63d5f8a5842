//! Each bit of each bitmap: what it opens by the table is what a guest loses without
//! it, and the guest loses nothing else.

use anyhow::ensure;
use kedge_firmware::{Domain, FwReg, Symbol, TABLE};

use super::BITMAPS;
use crate::fingerprint::{Fingerprint, differences};
use crate::host::{Host, Need};
use crate::profile::Profile;
use crate::suite::{Outcome, Suite};

const NOT_SUPPORTED: &str = "-1";
/// The functions that answer whether there are others, by the names that the guest has
/// for them.
const ASKED_BY: [(&str, u32); 3] = [
    ("psci_features", 0x8400_000a),
    ("arch_features", 0x8000_0001),
    ("trng_features", 0x8400_0051),
];
/// Answers with the vendor's bitmaps, in x0 and x2.
const KVM_FEATURES: u64 = 0x8600_0000;

pub(crate) fn tests(suite: &mut Suite) {
    for spec in TABLE {
        let Domain::Bits(bits) = spec.domain else { continue };
        for bit in bits {
            let name = format!("rows::without_{}_{}_a_guest_lacks_its_calls", spec.name, bit.name);
            let name = name.replace('-', "_");
            suite.every_kernel(&name, needs(spec.reg), move |host| lacks(host, spec.reg, bit));
        }
    }
}

fn needs(reg: FwReg) -> &'static [Need] {
    match reg {
        FwReg::VendorHypBmap2 => &[Need::Kernel(6, 15)],
        _ => &[BITMAPS],
    }
}

fn lacks(host: &Host, reg: FwReg, bit: &Symbol) -> Outcome {
    let all = reg.spec().domain.mask();
    let with = Profile::offering(reg, all)?;
    let without = Profile::offering(reg, all & !bit.value)?;
    let with = Fingerprint::of(with.given_to(Fingerprint::guest(host)))?;
    let without = Fingerprint::of(without.given_to(Fingerprint::guest(host)))?;
    for function in bit.opens {
        ensure!(without.answer(*function)? == NOT_SUPPORTED, "{function:#x} answers");
    }
    let expected: String =
        with.whole().lines().flat_map(|line| [closed(line, reg, bit), "\n".to_owned()]).collect();
    let wrong = differences(&expected, without.whole());
    ensure!(wrong.is_empty(), "expected (-) and found (+):\n{}", wrong.join("\n"));
    ensure!(with != without, "nothing changes:\n{}", with.part("firmware"));
    Ok(())
}

/// A line of a guest's fingerprint as it is without this bit.
fn closed(line: &str, reg: FwReg, bit: &Symbol) -> String {
    let words: Vec<_> = line.split(' ').collect();
    let ["firmware", how, function, rest @ ..] = words.as_slice() else { return line.to_owned() };
    let Some(function) = hex(function) else { return line.to_owned() };
    let closes = |function: u64| bit.opens.iter().any(|id| u64::from(*id) == function);
    let asked = ASKED_BY.iter().find(|(name, _)| name == how);
    match (asked, rest) {
        (Some((_, by)), _) if closes(function) || closes((*by).into()) => {
            format!("firmware {how} {function:#010x} {NOT_SUPPORTED}")
        }
        (None, [argument, ..]) if *how == "call" && closes(function) => {
            let end = if rest.last() == Some(&"per-cpu") { " per-cpu" } else { "" };
            format!("firmware call {function:#010x} {argument} {NOT_SUPPORTED}{end}")
        }
        (None, [argument, answer @ ..]) if *how == "call" && function == KVM_FEATURES => {
            let answer = features(answer, reg, bit);
            format!("firmware call {function:#010x} {argument} {answer}")
        }
        _ => line.to_owned(),
    }
}

/// The vendor's bitmaps without this bit.
fn features(answer: &[&str], reg: FwReg, bit: &Symbol) -> String {
    let place = match reg {
        FwReg::VendorHypBmap => 0,
        FwReg::VendorHypBmap2 => 2,
        _ => return answer.join(" "),
    };
    let values = answer.iter().map(|word| hex(word).unwrap_or_default());
    let values: Vec<_> = values
        .enumerate()
        .map(|(index, value)| if index == place { value & !bit.value } else { value })
        .collect();
    let last = values.iter().rposition(|value| *value != 0).unwrap_or(0);
    let shown: Vec<_> = values.iter().take(last + 1).map(|value| format!("{value:#x}")).collect();
    shown.join(" ")
}

fn hex(word: &str) -> Option<u64> {
    u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}
