//! The ID registers of a machine being born.

use std::collections::BTreeMap;

use kedge_hv::Vcpu;
use kedge_ids::RegId;

use super::{BirthError, Newborn, Outcome, ScratchGuest, VmRegisters, number};
use crate::abi::{GuestAbi, IdPromise, Implementation};
use crate::hex::{Hex, RegValue};
use crate::host::{FoundIdReg, FoundScope};
use crate::plan::identity::is_implementation;
use crate::probe::{CTR_EL0, name as register_name};

/// Gives the promised ID registers their values, as far as the host lets, and says what
/// they read then. Those that are not listed are left out.
pub(super) fn settle(
    newborn: &Newborn<'_>,
    abi: &GuestAbi,
    guest: &ScratchGuest<'_>,
) -> Result<Vec<FoundIdReg>, BirthError> {
    if abi.cpu.id_registers.is_empty() {
        return Ok(Vec::new());
    }
    let first = newborn.first()?;
    let listed = first.reg_list()?;
    let (mut born_with, mut goals) = (BTreeMap::new(), BTreeMap::new());
    let mut registers = VmRegisters::new();
    for promise in abi.cpu.id_registers.iter().filter(|promise| listed.contains(&promise.id)) {
        let born = match goals.get(&promise.id) {
            Some(goal) => *goal,
            None => number(first, promise.id)?,
        };
        born_with.entry(promise.id).or_insert(born);
        let goal = promise.value.0 & promise.mask.0 | born & !promise.mask.0;
        goals.insert(promise.id, goal);
        if goal != born && may_write(abi, promise.id) {
            registers.set(promise.id, RegValue::sized(promise.id, goal));
        }
    }
    for written in registers.write(newborn)? {
        if let (Outcome::Refused(_), Some(goal)) = (written.outcome, goals.get(&written.id)) {
            field_by_field(first, written.id, *goal)?;
        }
    }
    let mut settled =
        goals.into_keys().map(|id| found(first, id)).collect::<Result<Vec<_>, _>>()?;
    for register in &mut settled {
        if born_with.get(&register.id) == Some(&register.value.0) {
            register.guest = left_to_the_processor(register, guest)?;
        }
    }
    Ok(settled)
}

/// What a guest reads in a register that nobody has written to, where the kernel tells
/// otherwise: it makes up no other bit than `CTR_EL0`.IDC, and never takes it away.
fn left_to_the_processor(
    register: &FoundIdReg,
    guest: &ScratchGuest<'_>,
) -> Result<Option<Hex>, BirthError> {
    const IDC: u64 = 1 << 28;
    if register.id != CTR_EL0 || register.value.0 & IDC == 0 {
        return Ok(None);
    }
    Ok(guest.seen()?.otherwise(register.id, register.value.0))
}

/// Whether the registers that say who made the CPU read as promised, where the profile
/// chooses them.
pub(super) fn is_chosen(abi: &GuestAbi, found: &[FoundIdReg]) -> bool {
    let mut promised = abi.cpu.id_registers.iter().filter(|promise| is_implementation(promise.id));
    let reads = |promise: &IdPromise| {
        let found = found.iter().find(|found| found.id == promise.id);
        found.is_some_and(|found| (found.value.0 ^ promise.value.0) & promise.mask.0 == 0)
    };
    abi.cpu.implementation == Implementation::Promised && promised.all(reads)
}

/// The registers that say who made the CPU are the host's, unless the profile chooses.
fn may_write(abi: &GuestAbi, id: RegId) -> bool {
    abi.cpu.implementation == Implementation::Promised || !is_implementation(id)
}

/// What of `goal` the host takes, so that only what it does not take is left to name. The
/// machine is lost by now.
fn field_by_field(vcpu: &dyn Vcpu, id: RegId, goal: u64) -> Result<(), BirthError> {
    let mut value = number(vcpu, id)?;
    for shift in FoundIdReg::shifts() {
        let next = value & !(0xf << shift) | goal & 0xf << shift;
        if next != value && vcpu.set_reg(id, &RegValue::sized(id, next).0).is_ok() {
            value = next;
        }
    }
    Ok(())
}

fn found(vcpu: &dyn Vcpu, id: RegId) -> Result<FoundIdReg, BirthError> {
    let value = Hex(number(vcpu, id)?);
    let (name, scope) = (register_name(id), FoundScope::Unchanging);
    Ok(FoundIdReg { id, name, value, scope, guest: None, fields: Vec::new() })
}
