//! PSCI SYSTEM_SUSPEND, which KVM leaves to the machine's user (Arm DEN0022,
//! 5.20; Linux, Documentation/virt/kvm/api.rst, 5.9 `KVM_SYSTEM_EVENT_SUSPEND`).

use kedge_arch::vcpu::{can_reset_in_place, has_erratum_834220, reset_in_place, set_boot_state};
use kedge_guest_memory::GuestAddress;
use kedge_hv::{HvError, MpState, Vcpu, VcpuFeatures};
use kedge_ids::RegId;

/// `DENIED`: another vCPU is on.
pub(crate) const DENIED: i64 = -3;

/// Answers the firmware call that the vCPU has just made.
///
/// # Errors
/// The hypervisor refuses.
pub(crate) fn set_result(vcpu: &dyn Vcpu, result: i64) -> Result<(), HvError> {
    vcpu.set_reg64(RegId::x(0), result.cast_unsigned())
}

/// Suspends the machine on its last vCPU: when an interrupt arrives it starts
/// where the guest asked, with the context in x0, as after a reset. `features` are
/// those of its first reset: with others, Linux before 6.5 refuses this one. The
/// power state that they ask for does not last.
///
/// # Errors
/// The hypervisor refuses.
pub(crate) fn enter(vcpu: &mut dyn Vcpu, features: VcpuFeatures) -> Result<(), HvError> {
    let entry = vcpu.reg64(RegId::x(1))?;
    let context = vcpu.reg64(RegId::x(2))?;
    if must_stay_mapped(vcpu)? {
        reset_in_place(vcpu)?;
    } else {
        vcpu.init(features)?;
    }
    set_boot_state(vcpu, GuestAddress(entry), GuestAddress(context))?;
    vcpu.set_mp_state(MpState::Suspended)
}

/// Whether the guest could not go on once its translation tables were unmapped from
/// the host's second stage of translation, as `KVM_ARM_VCPU_INIT` does with all of
/// its memory on CPUs without `FEAT_S2FWB`.
///
/// Linux 6.15 and later, up to 7.2 at least, mistake what CPUs with erratum 834220
/// report: to look into a fault of the second stage they translate the address that
/// the guest used. Where the fault is at one of the guest's tables that cannot
/// succeed; they let the guest try again, and it faults there for ever
/// (`__hpfar_valid`, arch/arm64/kvm/hyp/include/hyp/fault.h; earlier kernels take
/// `ESR_EL2.S1PTW` into account). A guest that boots writes its tables before it
/// uses them, which maps them; one that wakes has them already.
///
/// Kernels that cannot reset a vCPU in place are older than the mistake.
fn must_stay_mapped(vcpu: &dyn Vcpu) -> Result<bool, HvError> {
    Ok(has_erratum_834220(vcpu)? && can_reset_in_place(vcpu))
}
