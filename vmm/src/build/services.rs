//! What a guest is promised besides registers: who answers its firmware calls, where
//! it reads of stolen time, whether it can suspend.

use std::sync::Arc;

use kedge_arch::Layout;
use kedge_arch::smccc::{
    Clash, Dispatcher, Functions, Implementations, Processor, Service, Trng, describe,
};
use kedge_diag::Fix;
use kedge_firmware::{FilterAction, FilterRange, Firmware, FwReg, GuestAbi};
use kedge_hv::{HvError, SmcccAction, SmcccRange, Vcpu, Vm};
use kedge_ids::{RegId, usize_from};

use crate::surroundings::Surroundings;

/// Why a guest cannot be given what it is promised.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// Services that cannot be in one machine.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// A range of the profile's that is none.
    #[error("the profile `{profile}` names {count} firmware calls from {base:#x}: {why}")]
    BadRange {
        /// The profile.
        profile: String,
        /// The first function.
        base: u64,
        /// How many.
        count: u32,
        /// What is wrong.
        why: &'static str,
    },
    /// Calls that are to be denied and to be answered.
    #[error(
        "the profile `{profile}` denies the firmware calls {}, which {by} answers",
        describe(functions)
    )]
    Denied {
        /// The profile.
        profile: String,
        /// The calls.
        functions: Functions,
        /// Who answers them.
        by: String,
    },
    /// The host hands over no calls and denies none.
    #[error("this host answers all firmware calls itself, {calls} too")]
    NoFilter {
        /// The calls, and what is to become of them.
        calls: String,
    },
    /// The host has a filter, but not for these.
    #[error("this host does not let the firmware calls {} be taken from it", describe(functions))]
    Filter {
        /// The calls.
        functions: Functions,
        /// What the hypervisor said.
        source: HvError,
    },
    /// The host does not count stolen time.
    #[error("the profile `{profile}` promises stolen time (`pv_time`), which this host does not count")]
    NoPvTime {
        /// The profile.
        profile: String,
        /// What the hypervisor said.
        source: HvError,
    },
    /// The host has no SYSTEM_SUSPEND to hand over.
    #[error("the profile `{profile}` promises `system_suspend`, which this host does not have")]
    NoSystemSuspend {
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
            Self::BadRange { .. } => "mend the profile's `smccc_filter`",
            Self::Denied { .. } => {
                "take the calls out of the profile's `smccc_filter`, or leave out who answers them"
            }
            Self::NoFilter { .. } => {
                "run on Linux 6.4 or later, or leave out what has these calls: in the profile \
                 `smccc_filter` and the bits of `vendor_hyp_bmap_2`, in a program its services"
            }
            Self::NoPvTime { .. } => {
                "use a profile with `\"pv_time\": false`, or a host kernel with CONFIG_SCHEDSTATS"
            }
            Self::NoSystemSuspend { .. } => {
                "use a profile with `\"system_suspend\": false`, or run on Linux 5.19 or later"
            }
            Self::Filter { .. } | Self::Hypervisor(_) => return None,
        };
        Some(fix.to_owned())
    }
}

/// What a guest is promised besides registers, settled with its host.
#[derive(Debug)]
pub(super) struct Services<'a> {
    pub(super) dispatcher: Dispatcher,
    abi: &'a GuestAbi,
}

/// Settles what `abi` promises besides registers, with the services that the machine's
/// surroundings add. After the ID registers of `vcpu` have their values, before
/// anything runs.
///
/// # Errors
/// The host cannot, or the promises contradict each other.
pub(super) fn prepare<'a>(
    vm: &dyn Vm,
    vcpu: &dyn Vcpu,
    abi: &'a GuestAbi,
    surroundings: &Surroundings,
) -> Result<Services<'a>, ServicesError> {
    let asked = Asked::of(abi)?;
    let discovery = discovery(vcpu, abi)?;
    let handed_over = Dispatcher::new(surroundings.services.iter().cloned().chain(discovery))?;
    let filter = filter(abi, &asked, &handed_over)?;
    if let (false, Some(calls)) = (filter.is_empty() || vm.supports_smccc_filter(), words(&filter)) {
        return Err(ServicesError::NoFilter { calls });
    }
    for range in &filter {
        let refused = |source| ServicesError::Filter { functions: functions(range), source };
        vm.filter_smccc(range).map_err(refused)?;
    }
    suspend(vm, abi)?;
    let dispatcher = with_trng(&handed_over, &asked, surroundings)?;
    Ok(Services { dispatcher, abi })
}
