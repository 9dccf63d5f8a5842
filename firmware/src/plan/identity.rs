//! Promises of ID registers, field by field.

use kedge_ids::RegId;

use super::lines::Lines;
use super::{Subject, Verdict};
use crate::abi::{GuestAbi, IdPromise, Implementation};
use crate::fields;
use crate::hex::Hex;
use crate::host::{FoundCpu, FoundIdReg, HostAbi};
use crate::probe::name as register_name;

const MIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 0);
const REVIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 6);
const AIDR_EL1: RegId = RegId::system(3, 1, 0, 0, 7);

/// Whether the register says who made the CPU.
pub(crate) fn is_implementation(id: RegId) -> bool {
    [MIDR_EL1, REVIDR_EL1, AIDR_EL1].contains(&id)
}

/// A line for each register that is promised, and for each whose fields may vary.
pub(super) fn judge(lines: &mut Lines, abi: &GuestAbi, host: &HostAbi) {
    if abi.cpu.id_registers.is_empty() && abi.cpu.varying.is_empty() {
        return;
    }
    let cpu = host.cpu_with(abi.cpu.features.as_deref().unwrap_or_default());
    let chosen =
        abi.cpu.implementation == Implementation::Promised && host.abilities.writable_imp_ids;
    abi.cpu.id_registers.iter().for_each(|promise| promised(lines, promise, &cpu, chosen));
    for varying in &abi.cpu.varying {
        lines.add(Verdict::Keep, || {
            let wanted = format!("any in {}", varying.mask);
            (subject(varying.id), wanted, offered(cpu.id_register(varying.id)))
        });
    }
}

fn subject(id: RegId) -> Subject {
    Subject::Register { id, name: register_name(id) }
}

fn offered(found: Option<&FoundIdReg>) -> String {
    found.map_or_else(|| "nothing".to_owned(), |found| Hex(found.shown()).to_string())
}

fn promised(lines: &mut Lines, promise: &IdPromise, cpu: &FoundCpu, chosen: bool) {
    let IdPromise { id, value, mask, .. } = promise;
    let found = cpu.id_register(*id);
    let verdict = match found {
        Some(_) if chosen && is_implementation(*id) => Verdict::Keep,
        Some(found) if is_implementation(*id) && (found.value.0 ^ value.0) & mask.0 != 0 => {
            another_cpu()
        }
        Some(found) => compare(found, *value, *mask),
        // An ID register that is not there reads as zero (Arm ARM DDI 0487, D24.3.1).
        None if value.0 & mask.0 == 0 => Verdict::Keep,
        None => Verdict::refuse("the vCPU has no such register", NARROWER),
    };
    lines.add(verdict, || (subject(*id), wanted(*value, *mask), offered(found)));
}

/// The refusal to be another CPU than the host's.
pub(crate) fn another_cpu() -> Verdict {
    Verdict::refuse(
        "it is the host's own, and cannot be chosen",
        "run the guest on hosts with the same CPU, or on Linux 6.15 or later",
    )
}

/// `0x11` or, where not every bit is promised, `0x11 in 0xff`.
fn wanted(value: Hex, mask: Hex) -> String {
    match mask.0 {
        u64::MAX => value.to_string(),
        _ => format!("{value} in {mask}"),
    }
}

fn compare(found: &FoundIdReg, value: Hex, mask: Hex) -> Verdict {
    let goal = value.0 & mask.0 | found.shown() & !mask.0;
    if goal == found.shown() {
        return Verdict::Keep;
    }
    let refused = |shift: &u32| found.shows(*shift) >> (goal >> shift & 0xf) & 1 == 0;
    refuse_fields(found, goal, FoundIdReg::shifts().filter(refused))
}

/// The refusal of `goal` for the four bits at each of `shifts`; none are no refusal.
fn refuse_fields(found: &FoundIdReg, goal: u64, shifts: impl Iterator<Item = u32>) -> Verdict {
    let phrase = |shift: u32| {
        let nibble = (found.shown() ^ goal) & 0xf << shift;
        let field = fields::of(found.id).iter().find(|field| field.mask() & nibble != 0);
        let nameless = || (format!("bits {}:{shift}", shift + 3), 0xf << shift);
        let (title, mask) = field.map_or_else(nameless, |field| (field.title(), field.mask()));
        let of = |value: u64| (value & mask) >> mask.trailing_zeros();
        format!("{title} is {:#x} and cannot be {:#x}", of(found.shown()), of(goal))
    };
    let mut phrases: Vec<_> = shifts.map(phrase).collect();
    phrases.dedup();
    match phrases.as_slice() {
        [] => Verdict::Keep,
        _ => Verdict::refuse(phrases.join("; "), NARROWER),
    }
}

const NARROWER: &str = "make a baseline of a fleet that this host is in, or run the guest on a host like those of \
     the profile";
