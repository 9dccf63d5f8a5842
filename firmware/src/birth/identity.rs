//! The ID registers of a machine being born.

use kedge_hv::Vcpu;
use kedge_ids::RegId;

use super::notes::Value;
use super::{BirthError, KnownHost, Newborn, Outcome, VmRegisters, Written, number};
use crate::abi::{GuestAbi, IdPromise, Implementation};
use crate::hex::{Hex, RegValue};
use crate::host::{FoundIdReg, FoundScope};
use crate::plan::identity::is_implementation;
use crate::probe::CTR_EL0;

/// There is no such register.
const ENOENT: i32 = 2;

/// What one is to read.
struct Goal {
    id: RegId,
    born: u64,
    goal: u64,
}

/// Gives the promised ID registers their values, as far as the host lets. What is listed
/// is asked for afterwards, as it depends on them: a register that is not there cannot be
/// read either.
pub(super) fn settle(
    newborn: &Newborn<'_>,
    abi: &GuestAbi,
    host: &KnownHost<'_>,
) -> Result<Vec<FoundIdReg>, BirthError> {
    let goals = goals(host, abi)?;
    let values = write(newborn, abi, host, &goals)?;
    let mut settled = Vec::with_capacity(goals.len());
    for (Goal { id, born, .. }, value) in goals.into_iter().zip(values) {
        let (name, scope, value) = (String::new(), FoundScope::Unchanging, Hex(value));
        let mut register = FoundIdReg { id, name, value, scope, guest: None, fields: Vec::new() };
        if born == value.0 {
            register.guest = left_to_the_processor(&register, host)?;
        }
        settled.push(register);
    }
    Ok(settled)
}

/// Writes what is not as it is to be; what each register of the goals holds then.
fn write(
    newborn: &Newborn<'_>,
    abi: &GuestAbi,
    host: &KnownHost<'_>,
    goals: &[Goal],
) -> Result<Vec<u64>, BirthError> {
    let to_write = |goal: &&Goal| goal.goal != goal.born && may_write(abi, goal.id);
    let to_write: Vec<Value> =
        goals.iter().filter(to_write).map(|goal| (goal.id, goal.goal)).collect();
    if to_write.is_empty() {
        return Ok(goals.iter().map(|goal| goal.born).collect());
    }
    let first = newborn.first()?;
    let mut registers = VmRegisters::new();
    for (id, goal) in &to_write {
        registers.set(*id, RegValue::sized(*id, *goal));
    }
    let mut all_stored = true;
    for Written { id, outcome } in registers.write(newborn)? {
        let goal = goals.iter().find(|goal| goal.id == id);
        all_stored &= matches!(outcome, Outcome::Stored | Outcome::PerVcpu);
        if let (Outcome::Refused(_), Some(goal)) = (outcome, goal) {
            field_by_field(first, id, goal.goal)?;
        }
    }
    // A write can change what other registers read: of the version of the performance
    // monitors, say, Linux 6.1 shows two. What has nothing to show gets nothing by it.
    let changed = |goal: &Goal| {
        if goal.born == 0 && goal.goal == 0 {
            return Ok(None);
        }
        let now = number(first, goal.id)?;
        Ok((now != goal.born).then_some((goal.id, now)))
    };
    let ask = || goals.iter().filter_map(|goal| changed(goal).transpose()).collect();
    let changed = match all_stored {
        true => host.changed_by(&to_write, ask)?,
        false => ask()?,
    };
    let now = |goal: &Goal| changed.iter().find(|changed| changed.0 == goal.id);
    Ok(goals.iter().map(|goal| now(goal).map_or(goal.born, |now| now.1)).collect())
}

/// What each promised register is to read, and reads now.
fn goals(host: &KnownHost<'_>, abi: &GuestAbi) -> Result<Vec<Goal>, BirthError> {
    let promised = &abi.cpu.id_registers;
    let mut goals: Vec<Goal> = Vec::with_capacity(promised.len());
    for IdPromise { id, value, mask, .. } in promised {
        let with = |other: u64| value.0 & mask.0 | other & !mask.0;
        if let Some(goal) = goals.iter_mut().find(|goal| goal.id == *id) {
            goal.goal = with(goal.goal);
            continue;
        }
        match host.born(*id) {
            Ok(born) => goals.push(Goal { id: *id, born, goal: with(born) }),
            Err(BirthError::Read { source, .. }) if source.errno() == ENOENT => {}
            Err(error) => return Err(error),
        }
    }
    Ok(goals)
}

/// What a guest reads in a register that nobody has written to, where the kernel tells
/// otherwise: it makes up no other bit than `CTR_EL0`.IDC, and never takes it away.
fn left_to_the_processor(
    register: &FoundIdReg,
    host: &KnownHost<'_>,
) -> Result<Option<Hex>, BirthError> {
    const IDC: u64 = 1 << 28;
    if register.id != CTR_EL0 || register.value.0 & IDC == 0 {
        return Ok(None);
    }
    Ok(host.seen()?.otherwise(register.id, register.value.0))
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
