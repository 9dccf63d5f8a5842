//! Writing what a plan left to be written, and looking whether it holds.

use std::collections::BTreeMap;
use std::fmt;

use kedge_diag::Fix;
use kedge_hv::{HvError, Vcpu};
use kedge_ids::RegId;

use super::class::Class;
use super::plan::Planned;
use super::rules::number;
use super::vcpus::without;
use super::{Power, SavedRegister};
use crate::hex::RegValue;
use crate::plan::Plan;

/// How registers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// How often those of the whole machine.
    pub writes: Writes,
    /// What the guest's counters gained while it was saved: ticks of their own.
    pub elapsed: u64,
}

/// How often a register of the whole machine is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writes {
    /// Once, through the first vCPU.
    #[default]
    Once,
    /// Through every vCPU, as one who does not know which registers they are must. All
    /// is the same but the counters, which move while the vCPUs are written.
    EveryVcpu,
}

/// Why registers could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The plan says no.
    #[error("this host cannot give the guest the registers it was saved with:{}", list(.0))]
    Refused(Plan),
    /// These are not the vCPUs that the plan is for.
    #[error("the plan is for {planned} vCPUs, and these are {here}")]
    Vcpus {
        /// Those of the plan.
        planned: usize,
        /// These.
        here: usize,
    },
    /// A guest may have seen what would be changed.
    #[error("the machine has run: its registers are its guest's")]
    HasRun,
    /// A register was not taken.
    #[error("cannot write `{register}` of vCPU {vcpu}")]
    Write {
        /// The vCPU's index.
        vcpu: usize,
        /// Its name or id.
        register: String,
        /// What the hypervisor said.
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
    /// Registers do not hold what they were given.
    #[error("registers read otherwise than they were written: {}", list_of(.0))]
    Differs(Vec<Deviation>),
    /// A pending SError was not taken.
    #[error("cannot make an SError wait for vCPU {vcpu}")]
    SError {
        /// The vCPU's index.
        vcpu: usize,
        /// What the hypervisor said.
        source: HvError,
    },
    /// A power state was not taken.
    #[error("cannot make vCPU {vcpu} {}", words(*power))]
    Power {
        /// The vCPU's index.
        vcpu: usize,
        /// The state.
        power: Power,
        /// What the hypervisor said.
        source: HvError,
    },
}

fn list(plan: &Plan) -> String {
    plan.refusals().fold(String::new(), |text, line| format!("{text}\n    {line}"))
}

fn list_of(differences: &[Deviation]) -> String {
    let texts: Vec<_> = differences.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

const fn words(power: Power) -> &'static str {
    match power {
        Power::Runnable => "run",
        Power::Stopped => "stop",
        Power::Suspended => "wait for an interrupt",
    }
}

impl Fix for RestoreError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Refused(plan) => {
                let names: Vec<_> = plan.refusals().map(|line| line.subject.to_string()).collect();
                let names = names.join(",");
                Some(format!(
                    "restore it on a host that can, or let these differ with `--allow {names}`"
                ))
            }
            Self::Write { source, .. } | Self::Read { source, .. } => source.fix(),
            Self::SError { source, .. } | Self::Power { source, .. } => source.fix(),
            Self::HasRun => Some("restore into a new machine".to_owned()),
            Self::Differs(_) | Self::Vcpus { .. } => None,
        }
    }
}

/// A register that does not hold what it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// The vCPU's index.
    pub vcpu: usize,
    /// The register.
    pub id: RegId,
    /// Its name or id.
    pub name: String,
    /// What it was given.
    pub wanted: RegValue,
    /// What it reads.
    pub found: RegValue,
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vcpu, name, wanted, found, .. } = self;
        write!(f, "`{name}` of vCPU {vcpu} is {found}, not {wanted}")
    }
}

/// What a machine's registers must read from now on.
#[derive(Clone, Debug)]
pub struct Restored {
    expected: Vec<Vec<SavedRegister>>,
    /// Bits that may read otherwise, by vCPU.
    normalised: Vec<BTreeMap<RegId, u64>>,
}

impl Planned {
    /// Writes what is left, in order: all other state, then the counters, each once, then
    /// what timers wait for, and last their switches. Then reads everything back, but for
    /// what the plan found to be right among registers of which it had to change none; and
    /// last gives vCPUs their pending SErrors and turns them on or off.
    ///
    /// Monitors take their registers only once they are ready
    /// ([`Vcpu::init_pmu`]).
    ///
    /// # Errors
    /// The plan is refused; the machine has run; a register is not taken or reads otherwise.
    pub fn restore(
        mut self,
        vcpus: &[&dyn Vcpu],
        manner: &Manner,
    ) -> Result<Restored, RestoreError> {
        if self.plan.is_refused() {
            return Err(RestoreError::Refused(self.plan));
        }
        same_number(self.pending.len(), vcpus.len())?;
        if vcpus.iter().any(|vcpu| vcpu.has_run()) {
            return Err(RestoreError::HasRun);
        }
        self.leave_idle(vcpus)?;
        // They are in the order of their classes.
        let before = |saved: &SavedRegister| Class::of(saved.id) < Class::Counters;
        if manner.writes == Writes::EveryVcpu {
            self.repeat(vcpus)?;
        }
        for (vcpu, pending) in self.pending.iter().enumerate() {
            let timers = pending.partition_point(before);
            self.write_all(vcpus, vcpu, &pending[..timers])?;
        }
        self.counters(vcpus, manner)?;
        for (vcpu, pending) in self.pending.iter().enumerate() {
            let timers = pending.partition_point(before);
            self.write_all(vcpus, vcpu, &pending[timers..])?;
        }
        let (beside, touched) = (self.beside.clone(), self.touched);
        let restored = self.restored();
        restored.compare_those(vcpus, |class| touched.may_change(class))?;
        for (index, (vcpu, (power, serror))) in vcpus.iter().zip(beside).enumerate() {
            if let Some(serror) = serror {
                let set = vcpu.set_serror(serror.into());
                set.map_err(|source| RestoreError::SError { vcpu: index, source })?;
            }
            vcpu.set_mp_state(power.into()).map_err(|source| RestoreError::Power {
                vcpu: index,
                power,
                source,
            })?;
        }
        Ok(restored)
    }

    /// Writes the machine's registers through all other vCPUs, too.
    fn repeat(&self, vcpus: &[&dyn Vcpu]) -> Result<(), RestoreError> {
        for (vcpu, settled) in self.settled.iter().enumerate().skip(1) {
            for (id, value) in settled.iter().filter(|(id, _)| self.machine.contains(id)) {
                write(vcpus, vcpu, *id, value)?;
            }
        }
        Ok(())
    }

    /// Leaves alone what is to be zero and is: most of a vCPU's state is registers for
    /// debugging and the like that its guest never used. To look is one call of the
    /// kernel, to write and to look whether it holds are two.
    fn leave_idle(&mut self, vcpus: &[&dyn Vcpu]) -> Result<(), RestoreError> {
        for (vcpu, pending) in self.pending.iter_mut().enumerate() {
            let mut due = Vec::with_capacity(pending.len());
            for saved in pending.drain(..) {
                let may_be = saved.value.is_zero() && Class::of(saved.id) == Class::State;
                if !may_be || !reads(vcpus, vcpu, &saved)? {
                    due.push(saved);
                }
            }
            *pending = due;
        }
        Ok(())
    }

    /// Gives a vCPU these values, by way of the register that clears where there is one.
    fn write_all(
        &self,
        vcpus: &[&dyn Vcpu],
        vcpu: usize,
        registers: &[SavedRegister],
    ) -> Result<(), RestoreError> {
        let clears = |id: RegId| self.cleared_by.values().any(|other| *other == id);
        for saved in registers.iter().filter(|saved| !clears(saved.id)) {
            if let Some(other) = self.cleared_by.get(&saved.id) {
                write(vcpus, vcpu, *other, &RegValue::sized(*other, u64::MAX))?;
            }
            write(vcpus, vcpu, saved.id, &saved.value)?;
        }
        Ok(())
    }

    fn counters(&self, vcpus: &[&dyn Vcpu], manner: &Manner) -> Result<(), RestoreError> {
        let writers = match manner.writes {
            Writes::Once => 1,
            Writes::EveryVcpu => vcpus.len(),
        };
        for vcpu in 0..writers {
            for saved in &self.counters {
                let now = number(&saved.value).wrapping_add(manner.elapsed);
                write(vcpus, vcpu, saved.id, &RegValue::from(now))?;
            }
        }
        Ok(())
    }

    fn restored(self) -> Restored {
        let expected = self.settled.into_iter().zip(self.pending).map(|(settled, pending)| {
            // What has nothing to show gets nothing by what is written elsewhere.
            let settled = settled.into_iter().filter(|(_, value)| !value.is_zero());
            let settled = settled.map(|(id, value)| SavedRegister { id, value });
            // Counters, which move on, are not among them.
            settled.chain(pending).collect()
        });
        Restored { expected: expected.collect(), normalised: self.normalised }
    }
}

impl Restored {
    /// Looks whether every register still reads as restored, but for what the plan said
    /// it would not. To be asked again once the machine has run: the first run is when
    /// a kernel makes its last changes to ID registers.
    ///
    /// # Errors
    /// Registers read otherwise: all of them are named.
    pub fn compare(&self, vcpus: &[&dyn Vcpu]) -> Result<(), RestoreError> {
        self.compare_those(vcpus, |_| true)
    }

    /// The same, of the registers of some classes.
    fn compare_those(
        &self,
        vcpus: &[&dyn Vcpu],
        wanted: impl Fn(Class) -> bool,
    ) -> Result<(), RestoreError> {
        same_number(self.expected.len(), vcpus.len())?;
        let mut differences = Vec::new();
        for (vcpu, expected) in self.expected.iter().enumerate() {
            for saved in expected {
                if !wanted(Class::of(saved.id)) || reads(vcpus, vcpu, saved)? {
                    continue;
                }
                let SavedRegister { id, value } = saved;
                let found = read(vcpus, vcpu, *id)?;
                let mask = self.normalised.get(vcpu).and_then(|masks| masks.get(id));
                let mask = mask.copied().unwrap_or(0);
                if without(&found, mask) != without(value, mask) {
                    let (name, wanted) = (super::rules::name(*id), value.clone());
                    differences.push(Deviation { vcpu, id: *id, name, wanted, found });
                }
            }
        }
        if differences.is_empty() { Ok(()) } else { Err(RestoreError::Differs(differences)) }
    }

    /// The same, of the registers that say what the vCPUs and their firmware are, which
    /// stay while the guest runs.
    ///
    /// # Errors
    /// As [`Restored::compare`].
    pub fn compare_identity(&self, vcpus: &[&dyn Vcpu]) -> Result<(), RestoreError> {
        let lasting = |saved: &&SavedRegister| Class::of(saved.id) <= Class::Affinity;
        let lasting =
            self.expected.iter().map(|expected| expected.iter().filter(lasting).cloned().collect());
        let lasting = Self { expected: lasting.collect(), normalised: self.normalised.clone() };
        lasting.compare(vcpus)
    }
}

fn same_number(planned: usize, here: usize) -> Result<(), RestoreError> {
    if planned == here { Ok(()) } else { Err(RestoreError::Vcpus { planned, here }) }
}

fn write(
    vcpus: &[&dyn Vcpu],
    vcpu: usize,
    id: RegId,
    value: &RegValue,
) -> Result<(), RestoreError> {
    vcpus[vcpu].set_reg(id, &value.0).map_err(|source| RestoreError::Write {
        vcpu,
        register: super::rules::name(id),
        source,
    })
}

/// Whether a vCPU reads what was saved.
fn reads(vcpus: &[&dyn Vcpu], vcpu: usize, saved: &SavedRegister) -> Result<bool, RestoreError> {
    let reads = super::destination::reads(vcpus[vcpu], saved.id, &saved.value);
    reads.map_err(|source| unread(vcpu, saved.id, source))
}

fn read(vcpus: &[&dyn Vcpu], vcpu: usize, id: RegId) -> Result<RegValue, RestoreError> {
    vcpus[vcpu].reg(id).map(RegValue).map_err(|source| unread(vcpu, id, source))
}

fn unread(vcpu: usize, id: RegId, source: HvError) -> RestoreError {
    let register = super::rules::name(id);
    RestoreError::Read { vcpu, register, source }
}
