//! What a host can give its guests, found by trial on scratch machines. Nothing is asked
//! of `uname`, and no register is touched that the host does not list. Nothing is run in
//! them, but for a guest of a few instructions that tells what no register does.

pub(crate) mod identity;
mod interrupts;
mod scratch;
pub(crate) mod seen;

use kedge_diag::Fix;
use kedge_hv::{Abilities, GicVersion, HvError, Hypervisor, VcpuFeatures, Vm};
use kedge_ids::{RegId, u64_from};

use crate::hex::{Hex, RegValue};
use crate::host::{
    FoundCpu, FoundFirmware, FoundScope, HostAbi, HostAbilities, HostLimits, Takes, names,
};
use crate::register::{Domain, Firmware};
use scratch::{Bench, Trial};

pub(crate) use identity::{CTR_EL0, PMCR_EL0, cache, is_identification, name};
pub(crate) use interrupts::typer2;
pub(crate) use scratch::lengths as sve_lengths;
pub(crate) use seen::Seen;

/// Why a host could not be probed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There can be no machine to try things on.
    #[error("cannot make a scratch machine to probe this host")]
    Scratch(#[from] HvError),
    /// A register that is listed cannot be read.
    #[error("cannot read `{register}`, which this host lists")]
    Read {
        /// Its name or id.
        register: String,
        /// What the hypervisor said.
        source: HvError,
    },
}

impl Fix for ProbeError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Scratch(source) | Self::Read { source, .. } => source.fix(),
        }
    }
}

/// The features that change what a vCPU is.
const OPTIONAL: [VcpuFeatures; 3] =
    [VcpuFeatures::PMU_V3, VcpuFeatures::SVE, VcpuFeatures::PTRAUTH];

/// What the host of `hypervisor` can give its guests.
///
/// # Errors
/// The host allows no machine, or does not let a register be read that it lists.
pub fn probe(hypervisor: &dyn Hypervisor) -> Result<HostAbi, ProbeError> {
    let able = hypervisor.limits().features;
    let seen = Seen::of_a_guest(hypervisor)?;
    let mut cpus = vec![cpu(hypervisor, VcpuFeatures::NONE, &seen)?];
    for feature in OPTIONAL.into_iter().filter(|feature| able.contains(*feature)) {
        cpus.push(cpu(hypervisor, feature, &seen)?);
    }
    let vm = scratch::vm(hypervisor)?;
    Ok(HostAbi {
        format: HostAbi::FORMAT,
        limits: HostLimits { pmu_events: seen.events, ..limits(hypervisor, vm.as_ref())? },
        abilities: abilities(hypervisor, vm.as_ref()),
        firmware: probe_firmware(hypervisor)?,
        cpus,
    })
}

fn limits(hypervisor: &dyn Hypervisor, vm: &dyn Vm) -> Result<HostLimits, ProbeError> {
    let mut limits = HostLimits::new(hypervisor.limits());
    limits.gics = interrupts::found(hypervisor, vm)?;
    limits.its = limits.gics.iter().any(|gic| gic.version == GicVersion::V3) && vm.supports_its();
    limits.system_suspend = vm.enable_system_suspend().is_ok();
    limits.sve_lengths = scratch::sve_lengths(hypervisor)?;
    limits.counter_hz = hypervisor.abilities().counter_hz;
    limits.page_size = u64_from(rustix::param::page_size());
    Ok(limits)
}

fn abilities(hypervisor: &dyn Hypervisor, vm: &dyn Vm) -> HostAbilities {
    let Abilities { counter_offset, pv_time, writable_imp_ids, ptp, counter_hz: _ } =
        hypervisor.abilities();
    let smccc_filter = vm.supports_smccc_filter();
    HostAbilities { smccc_filter, counter_offset, pv_time, writable_imp_ids, ptp }
}

/// What the host of `hypervisor` makes of its firmware registers, by id: the quick part
/// of [`probe`].
///
/// # Errors
/// As [`probe`].
pub fn probe_firmware(hypervisor: &dyn Hypervisor) -> Result<Vec<FoundFirmware>, ProbeError> {
    let list = Bench::new(hypervisor, VcpuFeatures::NONE)?.list()?;
    let mut listed: Vec<_> = list.into_iter().filter_map(Firmware::of).collect();
    listed.sort_by_key(|firmware| firmware.id());
    // A machine for each: what one register took cannot change what another takes.
    listed
        .into_iter()
        .map(|firmware| one_firmware(&mut Bench::new(hypervisor, VcpuFeatures::NONE)?, firmware))
        .collect()
}

fn one_firmware(bench: &mut Bench<'_>, firmware: Firmware) -> Result<FoundFirmware, ProbeError> {
    let id = firmware.id();
    let found = |default, scope, takes| FoundFirmware {
        id,
        name: firmware.spec().map(|spec| spec.name.to_owned()),
        default,
        scope,
        takes,
    };
    let default = RegValue(bench.read(id)?);
    let Some(born) = default.as_u64() else {
        return Ok(found(default, FoundScope::Unchanging, Takes::Untried));
    };
    let trials = bench.trials(id, candidates(firmware, born))?;
    let scope = scope_of(&trials);
    let takes = takes(firmware, scope, &trials);
    Ok(found(default, scope, takes))
}

/// The values worth trying.
fn candidates(firmware: Firmware, born: u64) -> Vec<u64> {
    const UNKNOWN_LEVELS: u64 = 0xf;
    let mut values = match firmware.spec().map(|spec| spec.domain) {
        _ if firmware.is_bitmap() => {
            std::iter::once(0).chain((0..u64::BITS).map(|bit| 1 << bit)).collect()
        }
        Some(domain @ (Domain::Version(_) | Domain::Level(_) | Domain::Bits(_))) => {
            domain.symbols().iter().map(|symbol| symbol.value).collect()
        }
        None => (0..=UNKNOWN_LEVELS).collect::<Vec<_>>(),
    };
    values.push(born);
    values.sort_unstable();
    values.dedup();
    values
}

fn takes(firmware: Firmware, scope: FoundScope, trials: &[Trial]) -> Takes {
    if firmware.is_bitmap() {
        let stored = trials.iter().filter(|trial| trial.stored && trial.value.is_power_of_two());
        let bits = stored.fold(0, |all, trial| all | trial.value);
        let empty = trials.iter().any(|trial| trial.stored && trial.value == 0);
        return Takes::Bits { bits: Hex(bits), empty };
    }
    let of = |took: fn(&Trial) -> bool| {
        trials.iter().filter(|trial| took(trial)).map(|trial| Hex(trial.value)).collect()
    };
    match firmware.spec().map(|spec| spec.domain) {
        Some(Domain::Level(_)) => Takes::Levels(of(|trial| trial.accepted)),
        None if scope == FoundScope::Unchanging => Takes::Levels(of(|trial| trial.accepted)),
        _ => Takes::Values(of(|trial| trial.stored)),
    }
}

/// Whose value it is, as far as the trials can tell.
fn scope_of(trials: &[Trial]) -> FoundScope {
    let mut changed = trials.iter().filter(|trial| trial.changed).peekable();
    if changed.peek().is_none() {
        FoundScope::Unchanging
    } else if changed.all(|trial| trial.seen_beside) {
        FoundScope::WholeVm
    } else {
        FoundScope::Vcpu
    }
}

fn cpu(
    hypervisor: &dyn Hypervisor,
    feature: VcpuFeatures,
    seen: &Seen,
) -> Result<FoundCpu, ProbeError> {
    let mut bench = Bench::new(hypervisor, feature)?;
    let mut registers: Vec<RegId> = bench.list()?;
    registers.sort_unstable();
    let listed = registers.iter().filter(|id| is_identification(**id));
    let id_registers = listed.map(|id| identity::found(&mut bench, *id, seen));
    let id_registers = id_registers.collect::<Result<_, _>>()?;
    Ok(FoundCpu { features: names(feature), registers, id_registers })
}
