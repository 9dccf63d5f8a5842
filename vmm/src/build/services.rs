//! What a guest is promised besides registers: who answers its firmware calls, where
//! it reads of stolen time.

use std::sync::Arc;

use kedge_arch::Layout;
use kedge_arch::smccc::{
    BadFilter, Clash, Dispatcher, Functions, Implementations, Service, Trng, describe, filter,
    functions,
};
use kedge_diag::Fix;
use kedge_firmware::{Firmware, FwReg, GuestAbi, Hex, ImplementationIds};
use kedge_hv::{HvError, SmcccAction, SmcccRange, Vcpu, Vm};
use kedge_ids::RegId;

use crate::surroundings::Surroundings;

/// Why a guest cannot be given what it is promised besides registers.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// Services that cannot be in one machine.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// The profile contradicts itself or a service.
    #[error(transparent)]
    BadFilter(#[from] BadFilter),
    /// The host hands over no calls and denies none.
    #[error("this host keeps all firmware calls to itself; the guest's are {}", words(calls))]
    NoFilter {
        /// What is to become of which calls.
        calls: Vec<SmcccRange>,
    },
    /// The host has a filter, but not for these.
    #[error("this host does not give away the firmware calls {}", describe(functions))]
    Filter {
        /// The calls.
        functions: Functions,
        /// What the hypervisor said.
        source: HvError,
    },
    /// The host does not count stolen time.
    #[error("the profile `{profile}` promises `pv_time`, which this host does not have")]
    NoPvTime {
        /// The profile.
        profile: String,
        /// What the hypervisor said.
        source: HvError,
    },
    /// The hypervisor refuses something that it should not.
    #[error("cannot set up the guest's firmware")]
    Hypervisor(#[from] HvError),
}

impl Fix for ServicesError {
    fn fix(&self) -> Option<String> {
        let fix = match self {
            Self::Clash(source) => return source.fix(),
            Self::BadFilter(source) => return source.fix(),
            Self::NoFilter { .. } => {
                "run on Linux 6.4 or later, or have no such calls: they come from `smccc_filter` \
                 and `vendor_hyp_bmap_2` in the profile, and from services that a program adds"
            }
            Self::NoPvTime { .. } => {
                "use a profile with `\"pv_time\": false`, or a host kernel with CONFIG_SCHEDSTATS"
            }
            Self::Filter { .. } | Self::Hypervisor(_) => return None,
        };
        Some(fix.to_owned())
    }
}

/// `to be answered (0xc6000040 to 0xc6000041), to be denied (0x86000001)`.
fn words(calls: &[SmcccRange]) -> String {
    let word = |range: &SmcccRange| match range.action {
        SmcccAction::Forward => format!("to be answered ({})", describe(&functions(range))),
        SmcccAction::Deny => format!("to be denied ({})", describe(&functions(range))),
        SmcccAction::Handle => format!("to be left to it ({})", describe(&functions(range))),
    };
    calls.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// Settles who answers the guest's calls, and returns who does so of those that come
/// here: what `abi` promises, and the services of the machine's surroundings. `vcpu`
/// shows the processor that the guest will see: its ID registers have their values.
///
/// # Errors
/// The host cannot, or promises and services contradict each other.
pub(super) fn prepare(
    vm: &dyn Vm,
    vcpu: &dyn Vcpu,
    abi: &GuestAbi,
    surroundings: &Surroundings,
) -> Result<Dispatcher, ServicesError> {
    let mut services = surroundings.services.clone();
    services.extend(discovery(vcpu, abi)?);
    let answered = Dispatcher::new(services.clone())?;
    let calls = filter(abi, &answered)?;
    if calls.is_empty() {
        return Ok(answered);
    }
    if !vm.supports_smccc_filter() {
        return Err(ServicesError::NoFilter { calls });
    }
    for range in &calls {
        let refused = |source| ServicesError::Filter { functions: functions(range), source };
        vm.filter_smccc(range).map_err(refused)?;
    }
    services.push(Arc::new(Trng::new(surroundings.entropy)));
    // Ours answers what the profile hands over of it; a program's own takes its place.
    Ok(Dispatcher::new(services).unwrap_or(answered))
}

/// The service that tells of processors, where the profile has the guest told that
/// there is one: KVM leaves the answers to us.
fn discovery(vcpu: &dyn Vcpu, abi: &GuestAbi) -> Result<Option<Arc<dyn Service>>, HvError> {
    let bitmap = abi.firmware.get(Firmware::Known(FwReg::VendorHypBmap2)).unwrap_or(0);
    if bitmap == 0 {
        return Ok(None);
    }
    let processors = match abi.cpu.implementations.as_slice() {
        [] => vec![processor(vcpu)?],
        several => several.to_vec(),
    };
    Ok(Some(Arc::new(Implementations::new(bitmap, processors))))
}

/// The processor that the guest sees.
fn processor(vcpu: &dyn Vcpu) -> Result<ImplementationIds, HvError> {
    let [midr, revidr, aidr] =
        [RegId::system(3, 0, 0, 0, 0), RegId::system(3, 0, 0, 0, 6), RegId::system(3, 1, 0, 0, 7)]
            .map(|id| vcpu.reg64(id).map(Hex));
    Ok(ImplementationIds { midr: midr?, revidr: revidr?, aidr: aidr? })
}

/// Gives each vCPU its record of stolen time, as `abi` promises. After memory is
/// mapped. Nothing is written there: the host does when it runs the vCPU.
///
/// # Errors
/// The host does not count stolen time.
pub(super) fn place_pv_time<'a>(
    vcpus: impl IntoIterator<Item = &'a dyn Vcpu>,
    layout: &Layout,
    abi: &GuestAbi,
) -> Result<(), ServicesError> {
    let std_hyp = abi.firmware.get(Firmware::Known(FwReg::StdHypBmap));
    let wanted = abi.machine.pv_time.unwrap_or(std_hyp != Some(0));
    if !wanted {
        return Ok(());
    }
    for vcpu in vcpus {
        match vcpu.set_pv_time(layout.pv_time(vcpu.id())) {
            Ok(()) => {}
            Err(source) if source.errno() != libc::ENXIO => return Err(source.into()),
            Err(source) if abi.machine.pv_time == Some(true) => {
                return Err(ServicesError::NoPvTime { profile: abi.name.clone(), source });
            }
            // The profile leaves it to the host, which has none.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
