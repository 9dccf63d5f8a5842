//! What becomes of what each vCPU holds by itself, and of registers that only one side
//! has.

use std::collections::{BTreeMap, BTreeSet};

use kedge_ids::RegId;

use super::PlanError;
use super::SavedRegister;
use super::class::{Class, Holder};
use super::firmware::{FirmwareRules, cure};
use super::plan::{Planned, Planner};
use super::rules::Quirk;
use super::settle::Settled;
use crate::hex::RegValue;
use crate::plan::{Plan, PlanLine, Subject, Verdict};

const ABSENT: &str = "no such register";
const RESET: &str = "it keeps its reset value: it is state that the guest has not used";

impl Planner<'_> {
    /// Registers that are usually the machine's or the firmware's, and that each vCPU
    /// holds by itself: unknown ones, and those that vCPUs read differently.
    pub(super) fn held_by_vcpus(&mut self, class: Class) -> Result<(), PlanError> {
        let mut settled = Vec::new();
        for vcpu in 0..self.state.vcpus.len() {
            let list = self.list(vcpu)?;
            for saved in own(&self.state.vcpus[vcpu].registers, class) {
                if list.contains(&saved.id) {
                    let (parts, tolerance) = self.how(vcpu, saved.id);
                    let done = self.settle_on(vcpu, saved.id, &saved.value, (parts, &tolerance))?;
                    self.settled[vcpu].insert(saved.id, done.now.clone());
                    settled.push((vcpu, saved, done));
                } else if class == Class::Firmware {
                    let rules = FirmwareRules { state: self.state, rules: self.rules };
                    let line = rules.only_source(saved.id, &saved.value, self.destination.ptp());
                    self.note(Some(vcpu), saved.id, line);
                } else {
                    self.only_source(Some(vcpu), &saved);
                }
            }
        }
        for (vcpu, saved, done) in settled {
            let line = self.own_line(vcpu, &saved, &done)?;
            self.note(Some(vcpu), saved.id, line);
        }
        Ok(())
    }

    /// The line of a register that each vCPU was given by itself, once all were: if the
    /// host holds it once, the last one has won.
    fn own_line(
        &self,
        vcpu: usize,
        saved: &SavedRegister,
        done: &Settled,
    ) -> Result<PlanLine, PlanError> {
        let mut line = self.settled_line(saved.id, &saved.value, done);
        let usually = Holder::of(saved.id, |id| self.rules.spec(id).is_some());
        let now = self.read(vcpu, saved.id)?;
        if now != done.now {
            line.offered = self.words(saved.id, &now);
            line.verdict = Verdict::refuse(
                "the saved vCPUs disagree, and this host holds it once for all",
                cure(self.rules, saved.id),
            );
        } else if usually == Holder::WholeVm && line.verdict == Verdict::Keep {
            line.offered = self.words(saved.id, &done.born);
            line.verdict = Verdict::adapt(
                "the saved vCPUs disagree, though it is usually the whole machine's: each gets \
                 its own",
            );
        }
        Ok(line)
    }

    /// Everything else, vCPU by vCPU.
    pub(super) fn vcpus(&mut self) -> Result<(), PlanError> {
        for saved in self.of_class(Class::Counters) {
            if !self.lists[0].contains(&saved.id) {
                self.only_source(None, &saved);
            }
        }
        for vcpu in 0..self.state.vcpus.len() {
            self.vcpu(vcpu)?;
        }
        Ok(())
    }

    fn vcpu(&mut self, vcpu: usize) -> Result<(), PlanError> {
        for saved in &self.left(vcpu) {
            if !self.lists[vcpu].contains(&saved.id) {
                self.only_source(Some(vcpu), saved);
            } else if Class::of(saved.id).is_settled_by_the_plan() {
                let (parts, tolerance) = self.how(vcpu, saved.id);
                let done = self.settle_on(vcpu, saved.id, &saved.value, (parts, &tolerance))?;
                self.settled[vcpu].insert(saved.id, done.now.clone());
                let line = self.settled_line(saved.id, &saved.value, &done);
                self.note(Some(vcpu), saved.id, line);
            }
        }
        let own = self.state.vcpus[vcpu].registers.iter().chain(&self.state.machine);
        let saved: BTreeSet<RegId> = own.map(|saved| saved.id).collect();
        let new = self.lists[vcpu].difference(&saved).copied();
        for id in new.filter(|id| !is_done(*id)).collect::<Vec<_>>() {
            self.only_destination(vcpu, id)?;
        }
        Ok(())
    }

    /// What a vCPU holds and no earlier step has settled, by class. A later release may
    /// hold more registers once than this one: they are each vCPU's here.
    fn left(&self, vcpu: usize) -> Vec<SavedRegister> {
        let own = self.state.vcpus[vcpu].registers.iter().chain(&self.state.machine);
        let mut left: Vec<_> = own.filter(|saved| !is_done(saved.id)).cloned().collect();
        left.sort_by_cached_key(|saved| Class::of(saved.id));
        left
    }

    pub(super) fn only_source(&mut self, vcpu: Option<usize>, saved: &SavedRegister) {
        let SavedRegister { id, value } = saved;
        let is_zero = value.0.iter().all(|byte| *byte == 0);
        let row = self.quirk(vcpu.unwrap_or(0), *id, Quirk::OnlySource);
        let verdict = match row {
            Some(why) => Verdict::adapt(why),
            None if self.rules.allow.contains(id) => {
                Verdict::adapt("the operator allows it to be dropped")
            }
            None if Class::of(*id) == Class::Identity && is_zero => {
                Verdict::adapt("it reads zero, as every ID register does that there is not")
            }
            None => Verdict::refuse(
                "this host does not have it, and the guest may use it",
                cure(self.rules, *id),
            ),
        };
        let line = self.line(*id, (value.to_string(), ABSENT.to_owned()), verdict);
        self.note(vcpu, *id, line);
    }

    fn only_destination(&mut self, vcpu: usize, id: RegId) -> Result<(), PlanError> {
        let why = self.quirk(vcpu, id, Quirk::OnlyDestination).unwrap_or(RESET);
        let words = ("nothing".to_owned(), self.offered(vcpu, id)?);
        let line = self.line(id, words, Verdict::adapt(why));
        self.note(Some(vcpu), id, line);
        Ok(())
    }

    /// Why a guest can live with a difference, if a row says so.
    fn quirk(&self, vcpu: usize, id: RegId, quirk: Quirk) -> Option<&'static str> {
        let mut rows = self.rules.holding(id, self.state, vcpu);
        rows.find(|row| row.quirk == quirk).map(|row| row.why)
    }

    /// The plan, and what is left to do.
    pub(super) fn finish(self, contradictions: Vec<PlanLine>) -> Planned {
        let pending = self.lists.iter().enumerate().map(|(vcpu, list)| {
            let mut left = self.left(vcpu);
            left.retain(|saved| {
                list.contains(&saved.id) && !Class::of(saved.id).is_settled_by_the_plan()
            });
            left
        });
        let pending = pending.collect();
        let mut counters = self.of_class(Class::Counters);
        counters.retain(|saved| self.lists[0].contains(&saved.id));
        let normalised = (0..self.state.vcpus.len()).map(|vcpu| self.normalised(vcpu)).collect();
        let cleared_by = self.rules.rows.iter().filter_map(|row| match row.quirk {
            Quirk::ClearedBy(other) => Some((*row.ids.start(), other)),
            _ => None,
        });
        let cleared_by = cleared_by.collect();
        let beside = self.state.vcpus.iter().map(|vcpu| (vcpu.power, vcpu.serror)).collect();
        let Self { found, settled, machine, .. } = self;
        let (mut firmware, mut others) = (contradictions, Vec::new());
        for line in found.into_values().flat_map(merged) {
            match line.subject {
                Subject::Firmware(_) => firmware.push(line),
                Subject::Register { .. } | Subject::Part(_) => others.push(line),
            }
        }
        firmware.append(&mut others);
        let plan = Plan { lines: firmware };
        Planned { plan, settled, machine, pending, counters, normalised, cleared_by, beside }
    }

    /// The bits of a vCPU's registers that hosts make others of.
    fn normalised(&self, vcpu: usize) -> BTreeMap<RegId, u64> {
        let of = |id: RegId| {
            let rows = self.rules.holding(id, self.state, vcpu);
            rows.fold(0, |all, row| all | row.quirk.normalised(self.state, vcpu))
        };
        let all = self.state.vcpus[vcpu].registers.iter().chain(&self.state.machine);
        all.map(|saved| (saved.id, of(saved.id))).filter(|(_, mask)| *mask != 0).collect()
    }
}

/// Whether a register is settled before those of vCPUs, or is a counter.
fn is_done(id: RegId) -> bool {
    matches!(Class::of(id), Class::Identity | Class::Firmware | Class::Counters)
}

fn own(registers: &[SavedRegister], class: Class) -> Vec<SavedRegister> {
    registers.iter().filter(|saved| Class::of(saved.id) == class).cloned().collect()
}

/// The lines of one register: one, where all vCPUs have the same.
fn merged(mut lines: Vec<(Option<usize>, PlanLine)>) -> Vec<PlanLine> {
    let same = lines.iter().all(|(_, line)| *line == lines[0].1);
    if same {
        lines.truncate(1);
        return lines.into_iter().map(|(_, line)| line).collect();
    }
    let named = lines.into_iter().map(|(vcpu, line)| {
        let Some((vcpu, id)) = vcpu.zip(line.subject.id()) else { return line };
        let name = format!("{} of vCPU {vcpu}", line.subject);
        PlanLine { subject: Subject::Register { id, name }, ..line }
    });
    named.collect()
}

/// A value with these bits clear, to compare it with another.
pub(super) fn without(value: &RegValue, mask: u64) -> RegValue {
    let mask = mask.to_le_bytes().into_iter().chain(std::iter::repeat(0));
    RegValue(value.0.iter().zip(mask).map(|(byte, mask)| byte & !mask).collect())
}
