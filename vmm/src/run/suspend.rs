//! PSCI SYSTEM_SUSPEND, which KVM leaves to the machine's user (Arm DEN0022,
//! 5.20; Linux, Documentation/virt/kvm/api.rst, 5.9 `KVM_SYSTEM_EVENT_SUSPEND`).

use kedge_arch::vcpu::set_boot_state;
use kedge_guest_memory::GuestAddress;
use kedge_hv::{HvError, MpState, Vcpu, VcpuFeatures};
use kedge_ids::RegId;

/// `NOT_SUPPORTED`: what a call nobody knows answers (Arm DEN0028, 7.1).
pub(crate) const NOT_SUPPORTED: i64 = -1;

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
    vcpu.init(features)?;
    set_boot_state(vcpu, GuestAddress(entry), GuestAddress(context))?;
    vcpu.set_mp_state(MpState::Suspended)
}
