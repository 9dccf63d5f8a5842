//! Every register of every vCPU, whatever it is.

use kedge_diag::Fix;
use kedge_hv::{Abilities, HvError, Hypervisor, Vcpu, VcpuFeatures};
use kedge_ids::{RegId, VcpuId};

use super::class::Holder;
use super::{Birth, RegisterState, Rules, SavedRegister, VcpuRegisters, find};
use crate::abi::{GuestAbi, IdPromise};
use crate::hex::RegValue;
use crate::probe::{CTR_EL0, Seen};

/// Why registers could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The hypervisor does not say which registers there are.
    #[error("cannot list the registers of vCPU {}", vcpu.0)]
    List {
        /// The vCPU.
        vcpu: VcpuId,
        /// What it said.
        source: HvError,
    },
    /// A register that is listed cannot be read.
    #[error("cannot read `{register}` of vCPU {}, which this host lists", vcpu.0)]
    Read {
        /// The vCPU.
        vcpu: VcpuId,
        /// Its name or id.
        register: String,
        /// What the hypervisor said.
        source: HvError,
    },
    /// The hypervisor makes no machine to find out what guests read.
    #[error("cannot find out what a guest reads in CTR_EL0")]
    Scratch {
        /// What it said.
        source: HvError,
    },
    /// The hypervisor does not say whether a vCPU is on, or what waits for it.
    #[error("cannot read the power state or pending SError of vCPU {}", vcpu.0)]
    Beside {
        /// The vCPU.
        vcpu: VcpuId,
        /// What it said.
        source: HvError,
    },
}

impl Fix for CaptureError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::List { source, .. } | Self::Read { source, .. } => source.fix(),
            Self::Scratch { source } | Self::Beside { source, .. } => source.fix(),
        }
    }
}

/// What a machine is saved from, beside its vCPUs.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The features with which all vCPUs were initialised.
    pub features: VcpuFeatures,
    /// What its host can do.
    pub abilities: Abilities,
}

/// The registers of a machine whose vCPUs, all of them and in order, do not run.
///
/// # Errors
/// A register that is listed cannot be read; nothing is left out.
pub fn capture(
    vcpus: &[&dyn Vcpu],
    source: &Source,
    birth: Birth,
    rules: &Rules<'_>,
) -> Result<RegisterState, CaptureError> {
    let features = source.features.without(VcpuFeatures::POWER_OFF);
    let ptp = source.abilities.ptp;
    let read = vcpus.iter().map(|vcpu| registers(*vcpu)).collect::<Result<Vec<_>, _>>()?;
    let first = read.first().map(Vec::as_slice).unwrap_or_default();
    let once = |saved: &&SavedRegister| match Holder::of(saved.id, |id| rules.spec(id).is_some()) {
        Holder::Vcpu => false,
        Holder::Ticking => read.iter().all(|own| find(own, saved.id).is_some()),
        // Two vCPUs that disagree show that it is not held once here.
        Holder::WholeVm => read.iter().all(|own| find(own, saved.id) == Some(&saved.value)),
    };
    let mut machine: Vec<_> = first.iter().filter(once).cloned().collect();
    machine.iter_mut().for_each(|saved| as_promised(saved, &birth.abi));
    machine.sort_by_key(|saved| saved.id);
    let own = |registers: Vec<SavedRegister>| {
        let of_machine = |id| machine.binary_search_by_key(&id, |saved| saved.id).is_ok();
        registers.into_iter().filter(|saved| !of_machine(saved.id)).collect()
    };
    let registers = read.into_iter().map(own).collect::<Vec<_>>();
    let vcpus = vcpus.iter().zip(registers).map(|(vcpu, registers)| beside(*vcpu, registers));
    let vcpus = vcpus.collect::<Result<_, _>>()?;
    Ok(RegisterState { features, ptp, birth, machine, vcpus })
}

/// A kernel that leaves `CTR_EL0` to the processor may tell its user something else than
/// its guest reads: that is what was promised, or it would not have been born.
fn as_promised(saved: &mut SavedRegister, abi: &GuestAbi) {
    let mut promises = abi.cpu.id_registers.iter().filter(|promise| promise.id == saved.id);
    if let (CTR_EL0, Some(IdPromise { value, mask, .. })) = (saved.id, promises.next()) {
        let promised = value.0 & mask.0 | saved.value.number() & !mask.0;
        saved.value = RegValue::sized(saved.id, promised);
    }
}

/// Saves what the guest reads in `CTR_EL0` where the kernel tells something else, and
/// nothing was promised: a scratch machine of `hypervisor` finds it out, and only there.
///
/// # Errors
/// The hypervisor refuses a scratch machine.
pub fn as_the_guest_reads(
    state: &mut RegisterState,
    vcpu: &dyn Vcpu,
    hypervisor: &dyn Hypervisor,
) -> Result<(), CaptureError> {
    const IDC: u64 = 1 << 28;
    const EINVAL: i32 = 22;
    let promises = &state.birth.abi.cpu.id_registers;
    let is_promised = promises.iter().any(|promise| promise.id == CTR_EL0);
    let saved = state.machine.iter_mut().find(|saved| saved.id == CTR_EL0);
    let Some(saved) = saved.filter(|saved| !is_promised && saved.value.number() & IDC != 0) else {
        return Ok(());
    };
    // A kernel that lets it be chosen refuses it by now because the machine has run; one
    // that leaves it to the processor refuses the value. No other bit is ever made up.
    let told = saved.value.number();
    let another = RegValue::sized(CTR_EL0, told & !IDC);
    let refused = |vcpu: &dyn Vcpu| vcpu.set_reg(CTR_EL0, &another.0).err();
    let left = vcpu.has_run() && refused(vcpu).is_some_and(|error| error.errno() == EINVAL);
    if !left {
        return Ok(());
    }
    let seen = Seen::of_a_guest(hypervisor).map_err(|source| CaptureError::Scratch { source })?;
    if let Some(shown) = seen.otherwise(CTR_EL0, told) {
        saved.value = RegValue::sized(CTR_EL0, shown.0);
    }
    Ok(())
}

/// Registers of a vCPU, and what else there is of it.
fn beside(vcpu: &dyn Vcpu, registers: Vec<SavedRegister>) -> Result<VcpuRegisters, CaptureError> {
    let unknown = |source| CaptureError::Beside { vcpu: vcpu.id(), source };
    let power = vcpu.mp_state().map_err(unknown)?.into();
    let serror = vcpu.serror().map_err(unknown)?.map(Into::into);
    Ok(VcpuRegisters { registers, power, serror })
}

fn registers(vcpu: &dyn Vcpu) -> Result<Vec<SavedRegister>, CaptureError> {
    let list = vcpu.reg_list();
    let list = list.map_err(|source| CaptureError::List { vcpu: vcpu.id(), source })?;
    let read = |id: RegId| match vcpu.reg(id) {
        Ok(value) => Ok(SavedRegister { id, value: RegValue(value) }),
        Err(source) => {
            let register = super::rules::name(id);
            Err(CaptureError::Read { vcpu: vcpu.id(), register, source })
        }
    };
    list.into_iter().map(read).collect()
}
