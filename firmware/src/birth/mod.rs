//! A machine being born: its profile is put into effect before anything runs, and what
//! it was born with is recorded for life.
//!
//! The machine itself is the probe: what it lists is all that is touched, every register
//! is read before it is written, and what was written is read back. Nothing is written
//! where the value is right already. What a machine before it has found of the same host
//! need not be read again ([`Notes`]).

mod firmware;
mod identity;
mod machine;
mod notes;
mod record;
mod seen;
mod services;
mod vm_registers;

use std::fmt;

use kedge_diag::Fix;
use kedge_hv::{Gic, HvError, Hypervisor, Vcpu, Vm};
use kedge_ids::RegId;

use notes::KnownHost;
pub use notes::{Notes, NotesOf};
pub use record::Born;
pub use services::ServiceRecord;
pub use vm_registers::{Outcome, VmRegisters, Written};

use crate::abi::{GuestAbi, Implementation};
use crate::hex::RegValue;
use crate::host::{FoundCpu, HostAbi, HostAbilities, HostLimits};
use crate::plan::{Plan, check, deviations, of_parts};
use crate::register::Firmware;
use crate::state::Birth;

/// A machine of which nothing has run: all its vCPUs exist and are initialised, its
/// interrupt controller is ready. Who has none has run it, and can write no register of
/// the whole VM any more.
#[derive(Clone, Copy)]
pub struct Newborn<'a> {
    /// Where it lives.
    pub hypervisor: &'a dyn Hypervisor,
    /// The machine.
    pub vm: &'a dyn Vm,
    /// Its interrupt controller, if it has one.
    pub gic: Option<&'a dyn Gic>,
    /// All its vCPUs, the first at first.
    pub vcpus: &'a [&'a dyn Vcpu],
    /// The services of the program around it.
    pub services: &'a [ServiceRecord],
    /// Notes on this host, where there are any.
    pub notes: Option<NotesOf<'a>>,
}

impl fmt::Debug for Newborn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Newborn").field("vcpus", &self.vcpus.len()).finish_non_exhaustive()
    }
}

impl<'a> Newborn<'a> {
    /// The vCPU through which registers of the whole VM are written.
    fn first(&self) -> Result<&'a dyn Vcpu, BirthError> {
        self.vcpus.first().copied().ok_or(BirthError::NoVcpu)
    }
}

/// Why a machine cannot be born with a profile.
#[derive(Debug, thiserror::Error)]
pub enum BirthError {
    /// The host cannot honour the profile.
    #[error(transparent)]
    NotHonoured(#[from] NotHonoured),
    /// There is nothing to write through.
    #[error("a machine without vCPUs has no registers")]
    NoVcpu,
    /// A guest may have seen what would be changed. No kernel says so of the PSCI
    /// version, which it lets change at any time.
    #[error("the machine has run: its firmware is its guest's")]
    HasRun,
    /// A register that is listed cannot be read.
    #[error("cannot read `{register}`, which this host lists")]
    Read {
        /// Its name or id.
        register: String,
        /// What the hypervisor said.
        source: HvError,
    },
    /// The hypervisor refuses something that it should not.
    #[error("cannot set up the machine's firmware")]
    Hypervisor(#[from] HvError),
}

impl Fix for BirthError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::NotHonoured(source) => source.fix(),
            Self::NoVcpu | Self::HasRun => None,
            Self::Read { source, .. } | Self::Hypervisor(source) => source.fix(),
        }
    }
}

/// This host cannot honour a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host cannot honour the guest ABI profile `{profile}`{}", listed(plan))]
pub struct NotHonoured {
    /// The profile's name.
    pub profile: String,
    /// All of it, what could be kept too.
    pub plan: Plan,
}

/// A line for each refusal.
fn listed(plan: &Plan) -> String {
    plan.refusals().map(|line| format!("\n  {line}")).collect()
}

impl Fix for NotHonoured {
    fn fix(&self) -> Option<String> {
        let cures = self.plan.cures();
        (!cures.is_empty()).then(|| cures.join("; "))
    }
}

/// Puts `abi` into effect in a machine of which nothing has run. Registers of the whole
/// VM are written once, whatever the number of vCPUs.
///
/// What only memory or calls of the guest bring about, the record of stolen time and the
/// filter of calls, is judged here and set up by the machine's builder.
///
/// # Errors
/// The machine has run, or the host cannot honour the profile: the machine is of no use
/// then. All that stands in the way is named.
pub fn settle(newborn: &Newborn<'_>, abi: &GuestAbi) -> Result<Born, BirthError> {
    let first = newborn.first()?;
    if newborn.vcpus.iter().any(|vcpu| vcpu.has_run()) {
        return Err(BirthError::HasRun);
    }
    let host = KnownHost::of(newborn);
    let mut id_registers = identity::settle(newborn, abi, &host)?;
    // After the ID registers: what is listed depends on them.
    let mut listed = sorted(first.reg_list()?);
    id_registers.retain(|register| listed.binary_search(&register.id).is_ok());
    let pmu_events = seen::settle_events(newborn, abi, &host, &listed)?;
    listed.retain(|id| Firmware::of(*id).is_some());
    let mut settled = firmware::settle(newborn, abi, &listed)?;
    let (limits, abilities) = machine::settle(newborn, abi)?;
    let ptp = needs_ptp(abi, &listed) && newborn.hypervisor.abilities().ptp;
    let writable_imp_ids = identity::is_chosen(abi, &id_registers);
    let offer = HostAbi {
        format: HostAbi::FORMAT,
        limits: HostLimits { pmu_events, ..limits },
        abilities: HostAbilities { ptp, writable_imp_ids, ..abilities },
        firmware: settled.found,
        cpus: vec![FoundCpu { id_registers, ..FoundCpu::default() }],
    };
    let plan = deviations(abi, &offer);
    if plan.is_refused() {
        // All of it, and with the cures.
        let plan = check(abi, &offer);
        return Err(NotHonoured { profile: abi.name.clone(), plan }.into());
    }
    host.keep();
    settled.warnings.extend(plan.adaptations().map(ToString::to_string));
    Ok(Born {
        birth: Birth { abi: abi.clone(), firmware: settled.values },
        gic: newborn.gic.map(Gic::version),
        gicd_revision: offer.limits.gics.first().map(|gic| gic.revision),
        system_suspend: offer.limits.system_suspend,
        pv_time: abi.machine.pv_time != Some(false) && offer.abilities.pv_time,
        services: newborn.services.to_vec(),
        warnings: settled.warnings,
    })
}

/// Puts into effect what a machine was born with: after a reset of its guest, or on
/// another host. Firmware that it was not born with is switched off, even where its
/// profile adopts; so are services, by the machine's builder.
///
/// # Errors
/// As [`settle`]; or the program around it lacks services that it was born with.
pub fn settle_again(newborn: &Newborn<'_>, born: &Born) -> Result<Born, BirthError> {
    let services = born.services_in(newborn.services);
    let mut again = match settle(newborn, &born.exact()) {
        Ok(again) if !services.is_refused() => again,
        Ok(_) => return Err(lacking(born, Plan::default(), services)),
        Err(BirthError::NotHonoured(host)) => return Err(lacking(born, host.plan, services)),
        Err(other) => return Err(other),
    };
    again.warnings.extend(services.adaptations().map(ToString::to_string));
    let birth = Birth { abi: born.birth.abi.clone(), ..again.birth };
    Ok(Born { birth, services: born.services.clone(), ..again })
}

/// What the host and the program around the machine lack of what it was born with.
fn lacking(born: &Born, mut plan: Plan, mut services: Plan) -> BirthError {
    plan.lines.append(&mut services.lines);
    NotHonoured { profile: born.birth.abi.name.clone(), plan }.into()
}

/// Puts into effect what a machine was born with besides registers, in one that takes
/// its place: for a machine whose registers are restored. What the host or the program
/// around the machine cannot have, a line each, is for whoever plans the registers to
/// refuse with theirs.
///
/// # Errors
/// The machine has run, or the hypervisor refuses something that it should not.
pub fn settle_parts(newborn: &Newborn<'_>, born: &Born) -> Result<Plan, BirthError> {
    if newborn.vcpus.iter().any(|vcpu| vcpu.has_run()) {
        return Err(BirthError::HasRun);
    }
    let abi = born.exact();
    let (limits, abilities) = machine::settle(newborn, &abi)?;
    let host = KnownHost::of(newborn);
    let listed = match abi.machine.pmu_events {
        Some(_) => sorted(newborn.first()?.reg_list()?),
        None => Vec::new(),
    };
    let pmu_events = seen::settle_events(newborn, &abi, &host, &listed)?;
    host.keep();
    let chosen = abi.cpu.implementation == Implementation::Promised;
    let writable_imp_ids = chosen && newborn.hypervisor.abilities().writable_imp_ids;
    let offer = HostAbi {
        format: HostAbi::FORMAT,
        limits: HostLimits { pmu_events, ..limits },
        abilities: HostAbilities { writable_imp_ids, ..abilities },
        firmware: Vec::new(),
        cpus: Vec::new(),
    };
    let mut plan = of_parts(&abi, &offer);
    plan.lines.extend(born.services_in(newborn.services).lines);
    Ok(plan)
}

/// The list by ascending ids: a kernel has an order of its own.
fn sorted(mut listed: Vec<RegId>) -> Vec<RegId> {
    listed.sort_unstable();
    listed
}

/// Whether the host must tell what the absence of a promised register means.
fn needs_ptp(abi: &GuestAbi, listed: &[RegId]) -> bool {
    let mut promised = abi.firmware.iter();
    promised.any(|(firmware, _)| {
        let absent = firmware.spec().and_then(|spec| spec.absent);
        absent.is_some_and(|absent| absent.by_ptp.is_some()) && !listed.contains(&firmware.id())
    })
}

/// Reads a register that is listed.
fn read(vcpu: &dyn Vcpu, id: RegId) -> Result<Vec<u8>, BirthError> {
    vcpu.reg(id).map_err(|source| unreadable(id, source))
}

/// Reads a register of up to 64 bits that is listed.
fn number(vcpu: &dyn Vcpu, id: RegId) -> Result<u64, BirthError> {
    match id.size().bytes() {
        8 => vcpu.reg64(id).map_err(|source| unreadable(id, source)),
        _ => read(vcpu, id).map(|value| RegValue(value).number()),
    }
}

fn unreadable(id: RegId, source: HvError) -> BirthError {
    let register = Firmware::of(id).map_or_else(|| id.to_string(), |known| known.to_string());
    BirthError::Read { register, source }
}
