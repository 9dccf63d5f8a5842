//! Where registers are to be restored: the vCPUs of a machine that has not run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;

use kedge_hv::{Abilities, HvError, Hypervisor, Vcpu};
use kedge_ids::RegId;

use crate::hex::RegValue;
use crate::probe::{CTR_EL0, Seen};

/// The ids of the registers that a vCPU has, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegList(Rc<[RegId]>);

impl RegList {
    /// Whether the vCPU has this one.
    pub fn contains(&self, id: RegId) -> bool {
        self.position(id).is_some()
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RegId> {
        self.0.iter().copied()
    }

    /// Whether it is the same list, not one like it.
    pub(super) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Those from the first to the last of `ids`.
    pub(super) fn within(&self, ids: &RangeInclusive<RegId>) -> &[RegId] {
        let from = self.0.partition_point(|id| id < ids.start());
        let to = self.0.partition_point(|id| id <= ids.end());
        self.0.get(from..to).unwrap_or_default()
    }

    /// Where it is in the list.
    pub(super) fn position(&self, id: RegId) -> Option<usize> {
        self.0.binary_search(&id).ok()
    }
}

impl FromIterator<RegId> for RegList {
    fn from_iter<I: IntoIterator<Item = RegId>>(ids: I) -> Self {
        let mut ids: Vec<_> = ids.into_iter().collect();
        // A kernel has an order of its own.
        ids.sort_unstable();
        ids.dedup();
        Self(ids.into())
    }
}

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
    fn list(&self, vcpu: usize) -> Result<RegList, HvError>;

    /// Whether it is known what a listed register reads. It is not, as long as nothing was
    /// offered, of most registers of a host that is only a recording; such a register
    /// takes any value.
    fn knows(&self, vcpu: usize, id: RegId) -> bool;

    /// What a listed register reads.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&self, vcpu: usize, id: RegId) -> Result<RegValue, HvError>;

    /// Whether a listed register reads `value`.
    ///
    /// # Errors
    /// It cannot be read.
    fn reads(&self, vcpu: usize, id: RegId, value: &RegValue) -> Result<bool, HvError> {
        Ok(self.read(vcpu, id)? == *value)
    }

    /// Whether a register is known to have read zero when its vCPU was initialised.
    fn was_zero(&self, _vcpu: usize, _id: RegId) -> bool {
        false
    }

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

/// Whether a register of `vcpu` reads `value`. Nearly all have 64 bits, which need no
/// memory.
pub(super) fn reads(vcpu: &dyn Vcpu, id: RegId, value: &RegValue) -> Result<bool, HvError> {
    match value.as_u64() {
        Some(number) if id.size().bytes() == size_of::<u64>() => Ok(vcpu.reg64(id)? == number),
        _ => Ok(vcpu.reg(id)? == value.0),
    }
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
    lists: RefCell<BTreeMap<usize, RegList>>,
    /// Whether anything was written.
    is_touched: bool,
}

/// The ID registers with a field for the interrupt controller, which comes after the vCPUs:
/// `ID_AA64PFR0_EL1` and `ID_PFR1_EL1` (Arm ARM DDI 0487, D24.2). Until something is
/// written, all others read what they did when their vCPU was initialised.
const SHOWS_CONTROLLER: [RegId; 2] = [RegId::system(3, 0, 0, 4, 0), RegId::system(3, 0, 0, 1, 1)];

impl<'a> Live<'a> {
    /// These vCPUs, of a host that can do so much.
    pub const fn new(vcpus: &'a [&'a dyn Vcpu], abilities: Abilities) -> Self {
        let lists = RefCell::new(BTreeMap::new());
        Self { vcpus, abilities, hypervisor: None, lists, is_touched: false }
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

    fn list(&self, vcpu: usize) -> Result<RegList, HvError> {
        if let Some(listed) = self.lists.borrow().get(&vcpu) {
            return Ok(listed.clone());
        }
        let listed: RegList = self.vcpus[vcpu].reg_list()?.into_iter().collect();
        self.lists.borrow_mut().insert(vcpu, listed.clone());
        Ok(listed)
    }

    fn knows(&self, _: usize, _: RegId) -> bool {
        true
    }

    fn read(&self, vcpu: usize, id: RegId) -> Result<RegValue, HvError> {
        self.vcpus[vcpu].reg(id).map(RegValue)
    }

    fn reads(&self, vcpu: usize, id: RegId, value: &RegValue) -> Result<bool, HvError> {
        let lasts = !self.is_touched && !SHOWS_CONTROLLER.contains(&id);
        if lasts && value.is_zero() && self.was_zero(vcpu, id) {
            return Ok(true);
        }
        reads(self.vcpus[vcpu], id, value)
    }

    fn was_zero(&self, vcpu: usize, id: RegId) -> bool {
        self.vcpus[vcpu].born_zero().binary_search(&id).is_ok()
    }

    fn shown(&self, vcpu: usize, id: RegId) -> Option<RegValue> {
        let hypervisor = self.hypervisor.filter(|_| id == CTR_EL0)?;
        let told = self.read(vcpu, id).ok()?.number();
        let shown = Seen::of_a_guest(hypervisor).ok()?.otherwise(id, told)?;
        Some(RegValue::sized(id, shown.0))
    }

    fn offer(&mut self, vcpu: usize, id: RegId, value: &RegValue) -> Result<(), HvError> {
        self.lists.get_mut().clear();
        self.is_touched = true;
        self.vcpus[vcpu].set_reg(id, &value.0)
    }
}
