//! Registers of the whole VM behind writes that each name a vCPU.

use std::collections::BTreeMap;

use kedge_hv::{HvError, Vcpu};
use kedge_ids::RegId;

use super::Newborn;
use crate::hex::RegValue;

/// The values of a machine's whole-VM registers, each held once. Writing them needs a
/// machine of which nothing has run, and uses them up: there is no second time.
///
/// ```compile_fail,E0382
/// # use kedge_firmware::{Newborn, VmRegisters};
/// fn twice(registers: VmRegisters, newborn: &Newborn<'_>) {
///     let _ = registers.write(newborn);
///     let _ = registers.write(newborn);
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "values that are not written have no effect"]
pub struct VmRegisters(BTreeMap<RegId, RegValue>);

/// What became of a value.
#[derive(Debug)]
pub struct Written {
    /// The register.
    pub id: RegId,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a value written through the first vCPU.
#[derive(Debug)]
pub enum Outcome {
    /// Every vCPU reads it.
    Stored,
    /// The first vCPU reads it, others did not: each of them was given it, too. The
    /// kernel holds the register for each vCPU.
    PerVcpu,
    /// The kernel took it, and the first vCPU reads something else.
    Altered(RegValue),
    /// The kernel did not take it.
    Refused(HvError),
}

impl VmRegisters {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Holds `value` for the register, instead of what it held before.
    pub fn set(&mut self, id: RegId, value: impl Into<RegValue>) {
        self.0.insert(id, value.into());
    }

    /// What it holds for the register.
    pub fn get(&self, id: RegId) -> Option<&RegValue> {
        self.0.get(&id)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes each value once, through the first vCPU, by ascending ids: ID registers
    /// come before firmware registers. Then reads it through every vCPU. Where a vCPU
    /// reads something else than the first, the kernel holds the register for each, and
    /// that one is given the value, too.
    ///
    /// # Errors
    /// A register that was written cannot be read; `EBUSY`: the machine has run.
    pub fn write(self, newborn: &Newborn<'_>) -> Result<Vec<Written>, HvError> {
        const EBUSY: i32 = 16;
        if newborn.vcpus.iter().any(|vcpu| vcpu.has_run()) {
            return Err(HvError::new("write registers of a machine that has run", EBUSY));
        }
        let Some((first, others)) = newborn.vcpus.split_first() else { return Ok(Vec::new()) };
        let write = |(id, value): (RegId, RegValue)| {
            let outcome = write_one(*first, others, id, &value)?;
            Ok(Written { id, outcome })
        };
        self.0.into_iter().map(write).collect()
    }
}

fn write_one(
    first: &dyn Vcpu,
    others: &[&dyn Vcpu],
    id: RegId,
    value: &RegValue,
) -> Result<Outcome, HvError> {
    if let Err(refused) = first.set_reg(id, &value.0) {
        return Ok(Outcome::Refused(refused));
    }
    let stored = RegValue(first.reg(id)?);
    let mut per_vcpu = false;
    for other in others {
        if other.reg(id)? == stored.0 {
            continue;
        }
        per_vcpu = true;
        if let Err(refused) = other.set_reg(id, &value.0) {
            return Ok(Outcome::Refused(refused));
        }
    }
    Ok(match (stored == *value, per_vcpu) {
        (false, _) => Outcome::Altered(stored),
        (true, true) => Outcome::PerVcpu,
        (true, false) => Outcome::Stored,
    })
}
