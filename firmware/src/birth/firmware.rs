//! The firmware registers of a machine being born.

use kedge_hv::Vcpu;
use kedge_ids::RegId;

use super::{BirthError, Newborn, Outcome, VmRegisters, Written, read};
use crate::abi::{GuestAbi, UnknownFirmware};
use crate::hex::{Hex, RegValue};
use crate::host::{FoundFirmware, FoundScope, Takes};
use crate::register::{Domain, Firmware};
use crate::state::SavedRegister;

/// The firmware of a machine, as it is now.
pub(super) struct Settled {
    /// Every register that is listed, with its value.
    pub(super) values: Vec<SavedRegister>,
    /// The same, with what was found of what it takes.
    pub(super) found: Vec<FoundFirmware>,
    /// What a reader should know.
    pub(super) warnings: Vec<String>,
}

/// Gives each of the `listed` registers its promised value, as far as the host lets.
pub(super) fn settle(
    newborn: &Newborn<'_>,
    abi: &GuestAbi,
    listed: &[RegId],
) -> Result<Settled, BirthError> {
    let first = newborn.first()?;
    let mut settled = Settled { values: Vec::new(), found: Vec::new(), warnings: Vec::new() };
    let mut registers = VmRegisters::new();
    for firmware in listed.iter().copied().filter_map(Firmware::of) {
        let id = firmware.id();
        let born = RegValue(read(first, id)?);
        settled.found.push(FoundFirmware {
            id,
            name: None,
            takes: takes(abi, firmware, &born, first),
            default: born.clone(),
            scope: FoundScope::WholeVm,
        });
        if let Some(goal) = goal(abi, firmware, &born) {
            registers.set(id, goal);
        }
        settled.values.push(SavedRegister { id, value: born });
    }
    for written in registers.write(newborn)? {
        settled.note(&written, first)?;
    }
    Ok(settled)
}

/// The value that is to be written; none where the one it has is right, or where writing
/// could only fail.
fn goal(abi: &GuestAbi, firmware: Firmware, born: &RegValue) -> Option<RegValue> {
    let goal = match (abi.firmware.get(firmware), born.as_u64()) {
        (Some(wanted), Some(born)) => {
            may_take(firmware, born, wanted).then(|| RegValue::from(wanted))
        }
        (Some(_), None) => None,
        (None, _) if abi.levels.get(firmware).is_some() => None,
        (None, _) if abi.unknown_firmware == UnknownFirmware::Adopt => None,
        (None, _) => firmware.neutral().map(|_| RegValue(vec![0; born.0.len()])),
    };
    goal.filter(|goal| goal != born)
}

/// Whether the first value leaves hope for `wanted`: it is the upper limit, but for
/// bitmaps that are opted into, and for registers that nobody knows.
fn may_take(firmware: Firmware, born: u64, wanted: u64) -> bool {
    match firmware.spec() {
        Some(spec) => match spec.domain {
            Domain::Version(_) => wanted < born,
            Domain::Bits(_) => spec.opt_in || wanted & !born == 0,
            Domain::Level(_) => false,
        },
        None => true,
    }
}

/// What the register takes, as far as can be told without writing. A level is asked for
/// by writing it: nothing is stored.
fn takes(abi: &GuestAbi, firmware: Firmware, born: &RegValue, vcpu: &dyn Vcpu) -> Takes {
    let Some(value) = born.as_u64() else { return Takes::Untried };
    match firmware.spec().map(|spec| spec.domain) {
        Some(Domain::Version(versions)) => {
            let older = versions.iter().filter(|version| version.value <= value);
            // 0.1 goes with other vCPUs.
            let older = older.filter(|version| (version.value == 1) == (value == 1));
            Takes::Values(older.map(|version| Hex(version.value)).collect())
        }
        Some(Domain::Level(_)) => {
            let asked = abi.levels.get(firmware).filter(|asked| *asked != value);
            let reached = asked.filter(|asked| vcpu.set_reg64(firmware.id(), *asked).is_ok());
            Takes::Levels(reached.into_iter().chain([value]).map(Hex).collect())
        }
        _ if firmware.is_bitmap() => Takes::Bits { bits: Hex(value), empty: true },
        _ => Takes::Values(vec![Hex(value)]),
    }
}

impl Settled {
    fn note(&mut self, written: &Written, vcpu: &dyn Vcpu) -> Result<(), BirthError> {
        let id = written.id;
        let now = RegValue(read(vcpu, id)?);
        if matches!(written.outcome, Outcome::PerVcpu) {
            let register = Firmware::of(id).map_or_else(|| id.to_string(), |one| one.to_string());
            self.warnings.push(format!(
                "{register}: this kernel holds it for each vCPU; each was given the same"
            ));
        }
        if let Some(register) = self.values.iter_mut().find(|register| register.id == id) {
            register.value = now.clone();
        }
        if let Some(found) = self.found.iter_mut().find(|found| found.id == id) {
            match written.outcome {
                Outcome::Stored | Outcome::PerVcpu => {}
                Outcome::Altered(_) | Outcome::Refused(_) => found.takes = less(found, vcpu),
            }
            if let (Takes::Bits { bits, .. }, Some(now)) = (&mut found.takes, now.as_u64()) {
                bits.0 |= now;
            }
            found.default = now;
        }
        Ok(())
    }
}

/// What a register takes that did not take what was written, so that just what it does
/// not take is left to name. The machine is lost by now.
fn less(found: &FoundFirmware, vcpu: &dyn Vcpu) -> Takes {
    let firmware = found.firmware();
    let stores = |value: u64| {
        let written = vcpu.set_reg64(found.id, value);
        written.is_ok() && vcpu.reg64(found.id).is_ok_and(|stored| stored == value)
    };
    match &found.takes {
        Takes::Values(values) => {
            Takes::Values(values.iter().copied().filter(|value| stores(value.0)).collect())
        }
        Takes::Bits { .. } => {
            let bits = (0..u64::BITS).map(|bit| 1 << bit).filter(|bit| stores(*bit));
            let bits = Hex(bits.fold(0, |all, bit| all | bit));
            Takes::Bits { bits, empty: stores(0) }
        }
        Takes::Untried if firmware.is_bitmap() => Takes::Bits { bits: Hex(0), empty: false },
        Takes::Levels(_) | Takes::Untried => found.takes.clone(),
    }
}
