//! What becomes of what each vCPU holds by itself, and of registers that only one side
//! has.

use std::collections::BTreeMap;

use kedge_ids::RegId;

use super::PlanError;
use super::SavedRegister;
use super::class::{Class, Holder};
use super::firmware::cure;
use super::plan::{Held, Planned, Planner, how};
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
            let own = self.held_by(vcpu, class, true);
            if own.is_empty() {
                continue;
            }
            let list = self.list(vcpu)?;
            for saved in own {
                if list.contains(saved.id) {
                    let (id, rules) = (saved.id, self.firmware_rules());
                    let how = || how(rules, vcpu, id);
                    let done = self.settle_on(vcpu, id, &saved.value, &how)?;
                    self.settled[vcpu].insert(id, done.now.clone());
                    settled.push((vcpu, saved, done));
                } else if class == Class::Firmware {
                    let rules = self.firmware_rules();
                    let line = rules.only_source(saved.id, &saved.value, self.destination.ptp());
                    self.note(Some(vcpu), saved.id, line);
                } else {
                    self.only_source(Some(vcpu), saved);
                }
            }
        }
        for (vcpu, saved, done) in settled {
            let line = self.own_line(vcpu, saved, &done)?;
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
            if !self.lists[0].contains(saved.id) {
                self.only_source(None, saved);
            }
        }
        for vcpu in 0..self.state.vcpus.len() {
            self.vcpu(vcpu)?;
        }
        Ok(())
    }

    /// What a vCPU holds and no earlier step has settled, by class. A later release may
    /// hold more registers once than this one: they are each vCPU's here.
    fn vcpu(&mut self, vcpu: usize) -> Result<(), PlanError> {
        let list = self.lists[vcpu].clone();
        let new = self.new_in(vcpu, &list);
        let held = std::mem::take(&mut self.held[vcpu]);
        for Held { class, saved, .. } in held.iter().filter(|held| !is_done(held.class)) {
            if !list.contains(saved.id) {
                self.only_source(Some(vcpu), saved);
            } else if class.is_settled_by_the_plan() {
                let (id, rules) = (saved.id, self.firmware_rules());
                let done = self.settle_on(vcpu, id, &saved.value, &|| how(rules, vcpu, id))?;
                self.settled[vcpu].insert(id, done.now.clone());
                self.note_settled(Some(vcpu), saved, &done);
            } else if !self.is_idle(vcpu, *class, saved) {
                self.pending[vcpu].push((*saved).clone());
            }
        }
        self.held[vcpu] = held;
        for id in new.iter().copied().filter(|id| !is_done(Class::of(*id))) {
            self.only_destination(vcpu, id)?;
        }
        Ok(())
    }

    /// Whether a register is zero as it is to be: it was at its birth, and a plan gives
    /// values to registers that say what the vCPU and its firmware are, and to no other.
    fn is_idle(
        &self,
        vcpu: usize,
        class: Class,
        SavedRegister { id, value }: &SavedRegister,
    ) -> bool {
        class == Class::State && value.is_zero() && self.destination.was_zero(vcpu, *id)
    }

    pub(super) fn only_source(&mut self, vcpu: Option<usize>, saved: &SavedRegister) {
        let SavedRegister { id, value } = saved;
        let row = self.quirk(vcpu.unwrap_or(0), *id, Quirk::OnlySource);
        let verdict = match row {
            Some(why) => Verdict::adapt(why),
            None if self.rules.allow.contains(id) => {
                Verdict::adapt("the operator allows it to be dropped")
            }
            None if Class::of(*id) == Class::Identity && value.is_zero() => {
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
        let counters = self.of_class(Class::Counters).into_iter();
        let counters = counters.filter(|saved| self.lists[0].contains(saved.id)).cloned().collect();
        let normalised = (0..self.state.vcpus.len()).map(|vcpu| self.normalised(vcpu)).collect();
        let cleared_by = self.rules.rows.iter().filter_map(|row| match row.quirk {
            Quirk::ClearedBy(other) => Some((*row.ids.start(), other)),
            _ => None,
        });
        let cleared_by = cleared_by.collect();
        let beside = self.state.vcpus.iter().map(|vcpu| (vcpu.power, vcpu.serror)).collect();
        let Self { found, untold, settled, touched, machine, pending, .. } = self;
        let (mut firmware, mut others) = (contradictions, Vec::new());
        let lines = found.into_iter().flat_map(|(id, lines)| merged(lines, untold.contains(&id)));
        for line in lines {
            match line.subject {
                Subject::Firmware(_) => firmware.push(line),
                Subject::Register { .. } | Subject::Part(_) => others.push(line),
            }
        }
        firmware.append(&mut others);
        let plan = Plan { lines: firmware };
        Planned {
            plan,
            settled,
            machine,
            pending,
            counters,
            normalised,
            cleared_by,
            touched,
            beside,
        }
    }

    /// The bits of a vCPU's registers that hosts make others of.
    fn normalised(&self, vcpu: usize) -> BTreeMap<RegId, u64> {
        let mut masks = BTreeMap::new();
        for row in self.rules.rows.iter().filter(|row| row.quirk.normalises()) {
            let named = self.lists[vcpu].within(&row.ids).iter();
            for id in named.filter(|id| row.when.holds(**id, self.state, vcpu)) {
                let mask = row.quirk.normalised(self.state, vcpu);
                if mask != 0 {
                    *masks.entry(*id).or_default() |= mask;
                }
            }
        }
        masks
    }
}

/// Whether a register is settled before those of vCPUs, or is a counter.
fn is_done(class: Class) -> bool {
    matches!(class, Class::Identity | Class::Firmware | Class::Counters)
}

/// The lines of one register: one, where all vCPUs have the same. They do not, where
/// there are some of which nothing is said.
fn merged(mut lines: Vec<(Option<usize>, PlanLine)>, others: bool) -> Vec<PlanLine> {
    let same = !others && lines.iter().all(|(_, line)| *line == lines[0].1);
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
