//! Machines of this host's KVM, made without kedge.

use kedge_conformance::backend::{GuestCode, Instructions};
use kedge_conformance::ctx::Machine;
use kedge_conformance::{Backend, Ctx};
use kedge_hv::{Hypervisor, VcpuFeatures};
use kedge_hv_kvm::Kvm;

/// What makes them.
pub(super) struct OnKvm(pub(super) Kvm);

impl Backend for OnKvm {
    fn hypervisor(&self) -> &dyn Hypervisor {
        &self.0
    }

    fn guest_code(&self) -> &dyn GuestCode {
        &Instructions
    }
}

/// A machine of plain vCPUs.
///
/// # Errors
/// KVM refuses it.
pub(super) fn machine(vcpus: u32) -> anyhow::Result<Machine> {
    machine_with(vcpus, VcpuFeatures::PSCI_0_2)
}

/// A machine of vCPUs with these features.
///
/// # Errors
/// KVM refuses it.
pub(super) fn machine_with(vcpus: u32, features: VcpuFeatures) -> anyhow::Result<Machine> {
    Ok(Ctx::new(&OnKvm(Kvm::open()?)).machine_with(vcpus, features)?)
}

/// A machine of vCPUs that are not initialised.
///
/// # Errors
/// KVM refuses it.
pub(super) fn uninitialised(vcpus: u32) -> anyhow::Result<Machine> {
    Ok(Ctx::new(&OnKvm(Kvm::open()?)).raw_machine(vcpus)?)
}

/// The errno of a refusal; 0 for success.
pub(super) fn errno<T>(result: &Result<T, kedge_hv::HvError>) -> i32 {
    kedge_conformance::ctx::errno(result)
}
