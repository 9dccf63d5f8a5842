//! What becomes of a saved machine on a host, before anything of it is there.

use std::collections::BTreeSet;

use kedge_arch::regs;
use kedge_firmware::{
    HostAbi, Lines, Plan, PlanLine, Recorded, Rules, Subject, Verdict, check, plan,
};
use kedge_hv::{GicVersion, Hypervisor};
use kedge_ids::RegId;
use kedge_saved_state::StateFile;

use super::{Parts, RestoreError, spec};
use crate::build::{examine, frequency};
use crate::spec::MachineSpec;
use crate::surroundings::Surroundings;

/// A saved machine whose future is asked for.
#[derive(Debug)]
pub struct Forecast {
    spec: MachineSpec,
    parts: Parts,
    /// Registers that may be otherwise than saved.
    pub allow: BTreeSet<RegId>,
}

impl Forecast {
    /// That of the machine in `state`; its memory is not looked at.
    ///
    /// # Errors
    /// The state file is damaged, of another architecture or page size, or needs what this
    /// release does not know.
    pub fn of(state: &StateFile) -> Result<Self, RestoreError> {
        let parts = Parts::read(state)?;
        Ok(Self { spec: spec(&parts.machine, &parts.born)?, parts, allow: BTreeSet::new() })
    }

    /// What becomes of the machine here: the plan that [`crate::Machine::restore`] makes,
    /// with nothing of the guest's memory, its files or its devices touched.
    ///
    /// # Errors
    /// There can be no such machine here. What it cannot be given is no error, but in the
    /// plan.
    pub fn here(
        &self,
        hypervisor: &dyn Hypervisor,
        surroundings: &Surroundings,
    ) -> Result<Plan, RestoreError> {
        let Self { spec, parts, allow } = self;
        Ok(examine((spec, parts), (allow, Lines::All), hypervisor, surroundings)?.plan())
    }

    /// What becomes of it on the host of which `host` was recorded. A recording says less
    /// than a host: what is refused would be; that nothing is refused is a promise of
    /// firmware, ID registers, lists and devices alone.
    ///
    /// # Errors
    /// There can be no such machine there.
    pub fn on(&self, host: &HostAbi) -> Result<Plan, RestoreError> {
        let saved = &self.parts;
        let registers = &saved.registers;
        let mut all = check(&saved.born.exact(), host);
        // Registers have lines of their own.
        all.lines.retain(|line| line.subject.id().is_none());
        all.lines.extend(self.controller(host));
        all.lines.extend(frequency(saved.clock.counter_hz, host.limits.counter_hz));
        let mut there = Recorded::for_state(host, registers)?;
        let rows = regs::rows();
        let rules = Rules { allow: self.allow.clone(), ..Rules::new(&rows) };
        all.lines.extend(plan(registers, &mut there, &rules)?.plan.lines);
        Ok(all)
    }

    /// Whether `host` has the guest's interrupt controller.
    fn controller(&self, host: &HostAbi) -> Vec<PlanLine> {
        let name = match self.parts.gic.version() {
            GicVersion::V2 => "GICv2",
            GicVersion::V3 => "GICv3",
        };
        let controller = host.gic(self.parts.gic.version()).map(|_| name);
        let mut lines = vec![line(name, controller)];
        if self.parts.its.is_some() {
            lines.push(line("ITS", host.limits.its.then_some("ITS")));
        }
        lines
    }
}

/// What becomes of a part that the guest knows, where the host has `offered`.
fn line(part: &'static str, offered: Option<&str>) -> PlanLine {
    const CURE: &str = "load it on a host that can";
    let verdict = match offered {
        Some(_) => Verdict::Keep,
        None => Verdict::refuse("the host cannot give it to guests", CURE),
    };
    let (wanted, offered) = ("yes".to_owned(), if offered.is_some() { "yes" } else { "no" });
    PlanLine { subject: Subject::part(part), wanted, offered: offered.to_owned(), verdict }
}
