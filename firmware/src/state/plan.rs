//! Keep, adapt or refuse: what becomes of every register at a destination.

use std::collections::BTreeMap;
use std::rc::Rc;

use kedge_diag::Fix;
use kedge_hv::HvError;
use kedge_ids::RegId;

use super::class::Class;
use super::destination::{Destination, RegList};
use super::firmware::{FirmwareRules, cure};
use super::rules::{Lines, Quirk, Rules};
use super::settle::{Fate, How, Parts, Refusal, Settled, Tolerance, settle};
use super::{PendingSError, Power, RegisterState, SavedRegister, VcpuRegisters};
use crate::fields;
use crate::hex::RegValue;
use crate::plan::{Plan, PlanLine, Subject, Verdict};

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Other machines cannot take the state.
    #[error("{saved} vCPUs were saved, and this machine has {here}")]
    Vcpus {
        /// Those saved.
        saved: usize,
        /// Those here.
        here: usize,
    },
    /// A guest may have seen what would be changed.
    #[error("the machine has run: its registers are its guest's")]
    HasRun,
    /// The hypervisor does not say which registers there are.
    #[error("cannot list the registers of vCPU {vcpu}")]
    List {
        /// The vCPU's index.
        vcpu: usize,
        /// What it said.
        source: HvError,
    },
    /// A register that is listed cannot be read.
    #[error("cannot read `{register}` of vCPU {vcpu}, which this host lists")]
    Read {
        /// The vCPU's index.
        vcpu: usize,
        /// Its name or id.
        register: String,
        /// What the hypervisor said.
        source: HvError,
    },
}

impl Fix for PlanError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::HasRun => Some("restore into a new machine".to_owned()),
            Self::Vcpus { saved, .. } => Some(format!("give the machine {saved} vCPUs")),
            Self::List { source, .. } | Self::Read { source, .. } => source.fix(),
        }
    }
}

/// What is offered of a register that a recording says nothing of.
pub(super) const UNKNOWN: &str = "not recorded";

/// A plan, and what is left to do once it is accepted.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What becomes of every register.
    pub plan: Plan,
    /// What the registers that were settled read now, by vCPU.
    pub(super) settled: Vec<BTreeMap<RegId, RegValue>>,
    /// Those of them that the machine holds once.
    pub(super) machine: Vec<RegId>,
    /// What is still to be written, by vCPU, in this order.
    pub(super) pending: Vec<Vec<SavedRegister>>,
    /// Counters of the machine.
    pub(super) counters: Vec<SavedRegister>,
    /// Bits that a host may make others of, by vCPU.
    pub(super) normalised: Vec<BTreeMap<RegId, u64>>,
    /// Registers that are given a value when the bits of another were cleared by all ones:
    /// the other, which is given nothing else.
    pub(super) cleared_by: BTreeMap<RegId, RegId>,
    /// Which registers were offered something: all others read what they did.
    pub(super) touched: Touched,
    /// Of each vCPU whether it is on, and the SError that waits for it.
    pub(super) beside: Vec<(Power, Option<PendingSError>)>,
}

/// What becomes of `state` at `destination`. ID registers, firmware registers and those
/// of caches are offered and settled on the way, in the order in which they depend on
/// each other, each of the whole machine once and through the first vCPU.
///
/// # Errors
/// The destination has other vCPUs, has run, or cannot be read. Registers that it does not take
/// are no error but lines of the plan, all of them.
pub fn plan(
    state: &RegisterState,
    destination: &mut dyn Destination,
    rules: &Rules<'_>,
) -> Result<Planned, PlanError> {
    let (saved, here) = (state.vcpus.len(), destination.vcpus());
    if saved != here || here == 0 {
        return Err(PlanError::Vcpus { saved, here });
    }
    if destination.has_run() {
        return Err(PlanError::HasRun);
    }
    let mut planner = Planner {
        state,
        destination,
        rules,
        held: state.vcpus.iter().map(|vcpu| Held::by(state, vcpu)).collect(),
        found: BTreeMap::new(),
        untold: Vec::new(),
        settled: vec![BTreeMap::new(); here],
        touched: Touched::default(),
        machine: Vec::new(),
        lists: Vec::new(),
        news: vec![None; here],
        pending: vec![Vec::new(); here],
    };
    let contradictions = planner.contradictions();
    planner.identity()?;
    planner.firmware()?;
    planner.vcpus()?;
    Ok(planner.finish(contradictions))
}

/// Which of the registers that a plan settles were offered something.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Touched {
    /// Firmware registers.
    pub(super) firmware: bool,
    /// Those that say what the vCPU is, which depend on each other.
    pub(super) vcpu: bool,
}

impl Touched {
    fn touch(&mut self, id: RegId) {
        match Class::of(id) {
            Class::Firmware => self.firmware = true,
            _ => self.vcpu = true,
        }
    }

    /// Whether registers of a class may read otherwise than they did when they were
    /// settled.
    pub(super) fn may_change(self, class: Class) -> bool {
        match class {
            Class::Firmware => self.firmware,
            class if class.is_settled_by_the_plan() => self.vcpu,
            _ => true,
        }
    }
}

/// A saved register, and what kind of register it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held<'a> {
    pub(super) class: Class,
    /// Whether the vCPU holds it by itself, or the machine.
    pub(super) own: bool,
    pub(super) saved: &'a SavedRegister,
}

impl<'a> Held<'a> {
    /// What a vCPU reads, by class: its own registers first, then the machine's.
    fn by(state: &'a RegisterState, vcpu: &'a VcpuRegisters) -> Vec<Self> {
        let of =
            |own| move |saved: &'a SavedRegister| Self { class: Class::of(saved.id), own, saved };
        let (own, machine) =
            (vcpu.registers.iter().map(of(true)), state.machine.iter().map(of(false)));
        let mut held: Vec<_> = own.chain(machine).collect();
        held.sort_by_key(|held| held.class);
        held
    }
}

/// A plan being made.
pub(super) struct Planner<'a> {
    pub(super) state: &'a RegisterState,
    pub(super) destination: &'a mut dyn Destination,
    pub(super) rules: &'a Rules<'a>,
    /// What each vCPU reads, by class.
    pub(super) held: Vec<Vec<Held<'a>>>,
    /// By register, the vCPUs it is about (all where none), and what becomes of it.
    pub(super) found: BTreeMap<RegId, Vec<(Option<usize>, PlanLine)>>,
    /// Those of which a vCPU keeps what was saved, and nothing is said of it.
    pub(super) untold: Vec<RegId>,
    pub(super) settled: Vec<BTreeMap<RegId, RegValue>>,
    pub(super) touched: Touched,
    pub(super) machine: Vec<RegId>,
    /// What each vCPU lists once its ID registers are settled.
    pub(super) lists: Vec<RegList>,
    /// What of a list was not saved of its vCPU, by vCPU.
    pub(super) news: Vec<Option<(RegList, Rc<[RegId]>)>>,
    /// What is left to be written, by vCPU.
    pub(super) pending: Vec<Vec<SavedRegister>>,
}

impl<'a> Planner<'a> {
    pub(super) fn firmware_rules(&self) -> FirmwareRules<'a> {
        FirmwareRules { state: self.state, rules: self.rules }
    }

    pub(super) fn read(&self, vcpu: usize, id: RegId) -> Result<RegValue, PlanError> {
        let value = self.destination.read(vcpu, id);
        value.map_err(|source| PlanError::Read { vcpu, register: self.rules.name(id), source })
    }

    fn reads(&self, vcpu: usize, id: RegId, value: &RegValue) -> Result<bool, PlanError> {
        let reads = self.destination.reads(vcpu, id, value);
        reads.map_err(|source| PlanError::Read { vcpu, register: self.rules.name(id), source })
    }

    pub(super) fn list(&self, vcpu: usize) -> Result<RegList, PlanError> {
        self.destination.list(vcpu).map_err(|source| PlanError::List { vcpu, source })
    }

    pub(super) fn settle_on(
        &mut self,
        vcpu: usize,
        id: RegId,
        wanted: &RegValue,
        how: How<'_>,
    ) -> Result<Settled, PlanError> {
        let settled = settle(self.destination, (vcpu, id), wanted, how);
        let settled = settled.map_err(|source| PlanError::Read {
            vcpu,
            register: self.rules.name(id),
            source,
        })?;
        if settled.born != *wanted {
            self.touched.touch(id);
        }
        Ok(settled)
    }

    /// What a register reads, for a reader.
    pub(super) fn offered(&self, vcpu: usize, id: RegId) -> Result<String, PlanError> {
        match self.destination.knows(vcpu, id) {
            true => self.read(vcpu, id).map(|value| value.to_string()),
            false => Ok(UNKNOWN.to_owned()),
        }
    }

    /// Settles a register of the whole machine: once, through the first vCPU. Only
    /// vCPUs that do not read the same afterwards are given it, too.
    pub(super) fn settle_on_all(
        &mut self,
        id: RegId,
        wanted: &RegValue,
        how: How<'_>,
    ) -> Result<Settled, PlanError> {
        let first = self.settle_on(0, id, wanted, how)?;
        self.machine.push(id);
        self.settled[0].insert(id, first.now.clone());
        for vcpu in 1..self.state.vcpus.len() {
            let mut now = self.read(vcpu, id)?;
            if now != first.now {
                self.machine.retain(|once| *once != id);
                now = self.settle_on(vcpu, id, &first.now, how)?.now;
            }
            self.settled[vcpu].insert(id, now);
        }
        Ok(first)
    }

    pub(super) fn expect_on_all(&mut self, id: RegId, value: &RegValue) {
        for settled in &mut self.settled {
            settled.insert(id, value.clone());
        }
    }

    pub(super) fn note(&mut self, vcpu: Option<usize>, id: RegId, line: PlanLine) {
        self.found.entry(id).or_default().push((vcpu, line));
    }

    /// Notes what became of a register, in words where somebody wants them.
    pub(super) fn note_settled(
        &mut self,
        vcpu: Option<usize>,
        SavedRegister { id, value }: &SavedRegister,
        settled: &Settled,
    ) {
        if self.is_untold(&settled.fate) {
            self.untold.push(*id);
        } else {
            let line = self.settled_line(*id, value, settled);
            self.note(vcpu, *id, line);
        }
    }

    pub(super) fn is_untold(&self, fate: &Fate) -> bool {
        self.rules.lines == Lines::Changed && matches!(fate, Fate::Kept | Fate::Presumed)
    }

    /// ID registers, before the list is taken: it depends on them.
    fn identity(&mut self) -> Result<(), PlanError> {
        let list = self.list(0)?;
        for saved in self.of_class(Class::Identity) {
            if list.contains(saved.id) {
                self.whole(saved)?;
            } else {
                self.only_source(None, saved);
            }
        }
        self.held_by_vcpus(Class::Identity)?;
        for id in self.only_here(Class::Identity, &list) {
            // What reads zero says that there is nothing.
            let value = RegValue(vec![0; id.size().bytes()]);
            self.whole(&SavedRegister { id, value })?;
        }
        Ok(())
    }

    fn firmware(&mut self) -> Result<(), PlanError> {
        let vcpus = 0..self.state.vcpus.len();
        self.lists = vcpus.map(|vcpu| self.list(vcpu)).collect::<Result<_, _>>()?;
        let list = self.lists[0].clone();
        for saved in self.of_class(Class::Firmware) {
            if list.contains(saved.id) {
                self.whole(saved)?;
            } else {
                let rules = self.firmware_rules();
                let line = rules.only_source(saved.id, &saved.value, self.destination.ptp());
                self.note(None, saved.id, line);
            }
        }
        self.held_by_vcpus(Class::Firmware)?;
        for id in self.only_here(Class::Firmware, &list) {
            let line = self.firmware_only_here(id)?;
            self.note(None, id, line);
        }
        self.firmware_nowhere(&list);
        Ok(())
    }

    /// What the source's machine held of a class.
    pub(super) fn of_class(&self, class: Class) -> Vec<&'a SavedRegister> {
        self.held_by(0, class, false)
    }

    /// What of a class a vCPU held by itself, or the machine.
    pub(super) fn held_by(&self, vcpu: usize, class: Class, own: bool) -> Vec<&'a SavedRegister> {
        let held = self.held[vcpu].iter();
        held.filter(|held| held.class == class && held.own == own).map(|held| held.saved).collect()
    }

    /// What is in a vCPU's list, and was not saved of it.
    pub(super) fn new_in(&mut self, vcpu: usize, list: &RegList) -> Rc<[RegId]> {
        match &self.news[vcpu] {
            Some((of, new)) if of.is(list) => Rc::clone(new),
            _ => {
                let new: Rc<[RegId]> = new(list, &self.held[vcpu]).collect();
                self.news[vcpu] = Some((list.clone(), Rc::clone(&new)));
                new
            }
        }
    }

    /// What of a class is in the list of the first vCPU, and was not saved of any.
    fn only_here(&mut self, class: Class, list: &RegList) -> Vec<RegId> {
        let new = self.new_in(0, list);
        let new = new.iter().copied().filter(|id| Class::of(*id) == class);
        new.filter(|id| !self.state.has(*id)).collect()
    }

    /// Settles a register that the source's machine held.
    fn whole(&mut self, saved: &SavedRegister) -> Result<(), PlanError> {
        let SavedRegister { id, value } = saved;
        if self.is_right_on_all(saved)? {
            self.machine.push(*id);
            self.expect_on_all(*id, value);
            match self.rules.lines {
                Lines::All => self.note_settled(None, saved, &Settled::kept(value)),
                Lines::Changed => self.untold.push(*id),
            }
        } else {
            let rules = self.firmware_rules();
            let settled = self.settle_on_all(*id, value, &|| how(rules, 0, *id))?;
            self.note_settled(None, saved, &settled);
        }
        Ok(())
    }

    /// Whether a register is known to read what was saved in all vCPUs, as most do.
    fn is_right_on_all(
        &self,
        SavedRegister { id, value }: &SavedRegister,
    ) -> Result<bool, PlanError> {
        for vcpu in 0..self.state.vcpus.len() {
            if !self.destination.knows(vcpu, *id) || !self.reads(vcpu, *id, value)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A value in its register's words.
    pub(super) fn words(&self, id: RegId, value: &RegValue) -> String {
        self.firmware_rules().format(id, value)
    }

    pub(super) fn settled_line(&self, id: RegId, wanted: &RegValue, settled: &Settled) -> PlanLine {
        if Class::of(id) == Class::Firmware {
            return self.firmware_rules().settled(id, wanted, settled);
        }
        let verdict = settled.fate.verdict(|refusal| {
            let told = wanted.as_u64().zip(settled.now.as_u64()).map(|(wanted, now)| {
                let differences = fields::explain(id, wanted, now);
                if differences.is_empty() {
                    settled.now.to_string()
                } else {
                    differences.join(", ")
                }
            });
            let told = told.unwrap_or_else(|| settled.now.to_string());
            let why = match refusal {
                Refusal::Altered => format!("this host makes something else of it: {told}"),
                Refusal::Bits(_) => format!("the nearest that this host takes: {told}"),
            };
            Verdict::refuse(why, cure(self.rules, id))
        });
        let offered = match settled.fate {
            Fate::Kept => settled.now.to_string(),
            Fate::Presumed => UNKNOWN.to_owned(),
            Fate::Adapted(_) | Fate::Altered | Fate::Refused(_) => settled.born.to_string(),
        };
        self.line(id, (wanted.to_string(), offered), verdict)
    }

    pub(super) fn line(&self, id: RegId, words: (String, String), verdict: Verdict) -> PlanLine {
        let subject = match self.rules.firmware(id) {
            Some(firmware) => Subject::Firmware(firmware),
            None => Subject::Register { id, name: self.rules.name(id) },
        };
        let (wanted, offered) = words;
        PlanLine { subject, wanted, offered, verdict }
    }
}

/// The parts in which a register is taken, and what of it may be otherwise.
pub(super) fn how(rules: FirmwareRules<'_>, vcpu: usize, id: RegId) -> (Parts, Tolerance) {
    if Class::of(id) == Class::Firmware {
        return (rules.parts(id), rules.tolerance(id));
    }
    let FirmwareRules { state, rules } = rules;
    let mut tolerance = Tolerance { allowed: rules.allow.contains(&id), ..Tolerance::default() };
    for row in rules.holding(id, state, vcpu) {
        if let Quirk::KeepDestination(mask) = row.quirk {
            tolerance.keep.push((mask, row.why.to_owned()));
        }
    }
    let varying = state.birth.abi.cpu.varying.iter().filter(|varying| varying.id == id);
    tolerance.keep.extend(varying.map(|varying| (varying.mask.0, varying.reason.clone())));
    (Parts::Fields, tolerance)
}

/// What is in a list, and not among what a vCPU held.
fn new(list: &RegList, held: &[Held<'_>]) -> impl Iterator<Item = RegId> {
    let mut is_new = vec![true; list.iter().len()];
    let there = held.iter().filter_map(|held| list.position(held.saved.id));
    there.for_each(|index| is_new[index] = false);
    list.iter().zip(is_new).filter(|(_, is_new)| *is_new).map(|(id, _)| id)
}
