//! Where registers are to be restored: the vCPUs of a machine that has not run.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use kedge_hv::{Abilities, HvError, Hypervisor, Vcpu};
use kedge_ids::RegId;

use crate::hex::RegValue;
use crate::probe::{CTR_EL0, Seen};

/// Something that a plan can offer values to.
pub trait Destination {
    /// How many vCPUs it has.
    fn vcpus(&self) -> usize;

    /// Whether anything has run in it: then it is too late.
    fn has_run(&self) -> bool;

    /// Whether its kernel offers precise time (see [`crate::Absent`]).
    fn ptp(&self) -> bool;

    /// The registers that a vCPU has now. What it has depends on its ID registers.
    ///
    /// # Errors
    /// There is no telling.
    fn list(&self, vcpu: usize) -> Result<BTreeSet<RegId>, HvError>;

    /// Whether it is known what a listed register reads. It is not, as long as nothing was
    /// offered, of most registers of a host that is only a recording; such a register
    /// takes any value.
    fn knows(&self, vcpu: usize, id: RegId) -> bool;

    /// What a listed register reads.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&self, vcpu: usize, id: RegId) -> Result<RegValue, HvError>;

    /// What the guest will read in a register that nobody has written to, where that is
    /// not what the register reads: the kernel leaves it to the processor.
    fn shown(&self, _vcpu: usize, _id: RegId) -> Option<RegValue> {
        None
    }

    /// Gives a listed register a value, unless it does not take it.
    ///
    /// # Errors
    /// It does not.
    fn offer(&mut self, vcpu: usize, id: RegId, value: &RegValue) -> Result<(), HvError>;
}

/// The vCPUs, all of them and in order, of a machine that is being built: initialised,
/// with their vector lengths chosen, with their interrupt controller created (it shows
/// in ID registers), and never run.
#[expect(missing_debug_implementations, reason = "vCPUs cannot be printed")]
pub struct Live<'a> {
    vcpus: &'a [&'a dyn Vcpu],
    abilities: Abilities,
    hypervisor: Option<&'a dyn Hypervisor>,
    /// What each vCPU listed since something was written last: what is listed depends on
    /// what registers hold.
    lists: RefCell<BTreeMap<usize, BTreeSet<RegId>>>,
}

impl<'a> Live<'a> {
    /// These vCPUs, of a host that can do so much.
    pub const fn new(vcpus: &'a [&'a dyn Vcpu], abilities: Abilities) -> Self {
        Self { vcpus, abilities, hypervisor: None, lists: RefCell::new(BTreeMap::new()) }
    }

    /// The same, of which it can be found out what its guest will read where the kernel
    /// tells otherwise: on a scratch machine of `hypervisor`, and only if the answer
    /// matters.
    #[must_use]
    pub fn on(self, hypervisor: &'a dyn Hypervisor) -> Self {
        Self { hypervisor: Some(hypervisor), ..self }
    }
}

impl Destination for Live<'_> {
    fn vcpus(&self) -> usize {
        self.vcpus.len()
    }

    fn has_run(&self) -> bool {
        self.vcpus.iter().any(|vcpu| vcpu.has_run())
    }

    fn ptp(&self) -> bool {
        self.abilities.ptp
    }

    fn list(&self, vcpu: usize) -> Result<BTreeSet<RegId>, HvError> {
        if let Some(listed) = self.lists.borrow().get(&vcpu) {
            return Ok(listed.clone());
        }
        let listed: BTreeSet<_> = self.vcpus[vcpu].reg_list()?.into_iter().collect();
        self.lists.borrow_mut().insert(vcpu, listed.clone());
        Ok(listed)
    }

    fn knows(&self, _: usize, _: RegId) -> bool {
        true
    }

    fn read(&self, vcpu: usize, id: RegId) -> Result<RegValue, HvError> {
        self.vcpus[vcpu].reg(id).map(RegValue)
    }

    fn shown(&self, vcpu: usize, id: RegId) -> Option<RegValue> {
        let hypervisor = self.hypervisor.filter(|_| id == CTR_EL0)?;
        let told = self.read(vcpu, id).ok()?.number();
        let shown = Seen::of_a_guest(hypervisor).ok()?.otherwise(id, told)?;
        Some(RegValue::sized(id, shown.0))
    }

    fn offer(&mut self, vcpu: usize, id: RegId, value: &RegValue) -> Result<(), HvError> {
        self.lists.get_mut().clear();
        self.vcpus[vcpu].set_reg(id, &value.0)
    }
}
