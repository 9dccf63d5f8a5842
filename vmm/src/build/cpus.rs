//! The machine's vCPUs, from creation to the first instruction.

use kedge_arch::Layout;
use kedge_arch::image::Loaded;
use kedge_arch::psci::{self, PsciVersion};
use kedge_arch::vcpu::{init_features, set_boot_state};
use kedge_hv::{HvError, Vcpu, VcpuFeatures, Vm};
use kedge_ids::{Mpidr, Ppi, RegId, VcpuId};

use super::BuildError;
use crate::run::ReadyVcpu;
use crate::spec::MachineSpec;

/// The vCPUs, and what the device tree says of them.
pub(super) struct Cpus {
    pub(super) vcpus: Vec<ReadyVcpu>,
    pub(super) mpidrs: Vec<Mpidr>,
    pub(super) psci: PsciVersion,
}

impl Cpus {
    /// All of them, the first one first.
    pub(super) fn all(&self) -> impl Iterator<Item = &dyn Vcpu> {
        self.vcpus.iter().map(|ready| ready.vcpu.as_ref())
    }

    /// The one that boots.
    pub(super) fn first(&self) -> &dyn Vcpu {
        self.vcpus[0].vcpu.as_ref()
    }
}

/// Creates and initialises all vCPUs. The interrupt controller comes next.
///
/// # Errors
/// The hypervisor refuses, or has not the PSCI version asked for.
pub(super) fn create(vm: &dyn Vm, spec: &MachineSpec) -> Result<Cpus, BuildError> {
    let mut vcpus = Vec::new();
    for id in (0..spec.cpus).map(VcpuId) {
        vcpus.push(vm.create_vcpu(id)?);
    }
    let mut ready = Vec::with_capacity(vcpus.len());
    for mut vcpu in vcpus {
        let features = init_features(vcpu.id(), spec.cpu_features, spec.psci);
        vcpu.init(features)?;
        if features.contains(VcpuFeatures::SVE) {
            vcpu.finalize_sve()?;
        }
        ready.push(ReadyVcpu { vcpu, features });
    }
    let psci = psci::settle(ready[0].vcpu.as_ref(), spec.psci)?;
    let mpidrs = ready.iter().map(|ready| mpidr(ready.vcpu.as_ref())).collect::<Result<_, _>>()?;
    Ok(Cpus { vcpus: ready, mpidrs, psci })
}

fn mpidr(vcpu: &dyn Vcpu) -> Result<Mpidr, HvError> {
    Ok(Mpidr::from_register(vcpu.reg64(RegId::MPIDR_EL1)?))
}

/// What waits for the interrupt controller: the performance monitors.
///
/// # Errors
/// The hypervisor refuses.
pub(super) fn finish(cpus: &Cpus, spec: &MachineSpec) -> Result<(), HvError> {
    if spec.cpu_features.contains(VcpuFeatures::PMU_V3) {
        for ready in &cpus.vcpus {
            ready.vcpu.init_pmu(Ppi::PMU)?;
        }
    }
    Ok(())
}

/// Points the first vCPU at the kernel.
///
/// # Errors
/// The hypervisor refuses.
pub(super) fn set_entry(cpus: &Cpus, kernel: &Loaded, layout: &Layout) -> Result<(), HvError> {
    set_boot_state(cpus.vcpus[0].vcpu.as_ref(), kernel.entry, layout.fdt_area().start)
}
