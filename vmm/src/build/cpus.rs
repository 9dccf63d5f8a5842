//! The machine's vCPUs, from creation to the first instruction.

use kedge_arch::Layout;
use kedge_arch::image::Loaded;
use kedge_arch::psci::PsciVersion;
use kedge_arch::vcpu::{init_features, set_boot_state};
use kedge_firmware::{Born, Firmware, FwReg, GuestAbi};
use kedge_hv::{HvError, Vcpu, VcpuFeatures, Vm};
use kedge_ids::{Mpidr, Ppi, RegId, VcpuId};

use crate::run::ReadyVcpu;

/// The vCPUs, and what the device tree says of them.
pub(super) struct Cpus {
    pub(super) vcpus: Vec<ReadyVcpu>,
    pub(super) mpidrs: Vec<Mpidr>,
    pub(super) psci: PsciVersion,
    pub(super) pmu: Option<Ppi>,
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

    /// The features that all of them have.
    pub(super) fn features(&self) -> VcpuFeatures {
        self.vcpus[0].features.without(VcpuFeatures::POWER_OFF)
    }

    /// Takes up what the machine was `born` with: the PSCI version, and what has waited
    /// for the interrupt controller, the performance monitors.
    ///
    /// # Errors
    /// The hypervisor refuses.
    pub(super) fn finish(&mut self, born: &Born) -> Result<(), HvError> {
        self.psci = born.value(FwReg::PsciVersion).map_or(self.psci, PsciVersion::reported);
        let interrupt = Ppi::try_from(born.birth.abi.machine.pmu_ppi).unwrap_or(Ppi::PMU);
        let has = self.vcpus[0].features.contains(VcpuFeatures::PMU_V3);
        self.pmu = has.then_some(interrupt);
        if let Some(interrupt) = self.pmu {
            self.all().try_for_each(|vcpu| vcpu.init_pmu(interrupt))?;
        }
        Ok(())
    }
}

/// What vCPUs are created with.
#[derive(Debug)]
pub(super) struct Choice {
    /// Beside those that every vCPU has.
    pub(super) features: VcpuFeatures,
    pub(super) psci: Option<PsciVersion>,
    /// The value of [`RegId::SVE_VLS`], where it is not the host's.
    pub(super) vector_lengths: Option<Vec<u8>>,
}

impl Choice {
    /// These features, and what `abi` promises.
    pub(super) fn promised(features: VcpuFeatures, abi: &GuestAbi) -> Self {
        let psci = abi.firmware.get(Firmware::Known(FwReg::PsciVersion));
        let lengths = abi.cpu.sve_lengths.as_deref();
        Self {
            features,
            psci: psci.map(PsciVersion::reported),
            vector_lengths: lengths.map(|lengths| vector_lengths(lengths).to_vec()),
        }
    }
}

/// Creates and initialises `count` vCPUs. The interrupt controller comes next.
///
/// # Errors
/// The hypervisor refuses.
pub(super) fn create(vm: &dyn Vm, count: u32, choice: &Choice) -> Result<Cpus, HvError> {
    let mut vcpus = Vec::new();
    for id in (0..count).map(VcpuId) {
        vcpus.push(vm.create_vcpu(id)?);
    }
    let mut ready = Vec::with_capacity(vcpus.len());
    for mut vcpu in vcpus {
        let features = init_features(vcpu.id(), choice.features, choice.psci);
        vcpu.init(features)?;
        if features.contains(VcpuFeatures::SVE) {
            if let Some(lengths) = &choice.vector_lengths {
                // What the host makes of it is compared with the rest that was promised.
                let _ = vcpu.set_reg(RegId::SVE_VLS, lengths);
            }
            vcpu.finalize_sve()?;
        }
        ready.push(ReadyVcpu { vcpu, features });
    }
    let mpidrs = ready.iter().map(|ready| mpidr(ready.vcpu.as_ref())).collect::<Result<_, _>>()?;
    let psci = choice.psci.unwrap_or(PsciVersion::V0_2);
    Ok(Cpus { vcpus: ready, mpidrs, psci, pmu: None })
}

/// The value of `KVM_REG_ARM64_SVE_VLS` for vectors of these lengths in bits: bit n for
/// (n + 1) times 128 (Linux, Documentation/virt/kvm/api.rst, 4.68).
fn vector_lengths(lengths: &[u32]) -> [u8; 64] {
    let mut register = [0_u8; 64];
    for quadwords in lengths.iter().map(|bits| bits / 128).filter(|quadwords| *quadwords > 0) {
        let (byte, bit) = ((quadwords - 1) / 8, (quadwords - 1) % 8);
        let byte = usize::try_from(byte).ok().and_then(|byte| register.get_mut(byte));
        byte.into_iter().for_each(|byte| *byte |= 1 << bit);
    }
    register
}

fn mpidr(vcpu: &dyn Vcpu) -> Result<Mpidr, HvError> {
    Ok(Mpidr::from_register(vcpu.reg64(RegId::MPIDR_EL1)?))
}

/// Points the first vCPU at the kernel.
///
/// # Errors
/// The hypervisor refuses.
pub(super) fn set_entry(cpus: &Cpus, kernel: &Loaded, layout: &Layout) -> Result<(), HvError> {
    set_boot_state(cpus.vcpus[0].vcpu.as_ref(), kernel.entry, layout.fdt_area().start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_lengths_are_bits_of_a_register() {
        let register = vector_lengths(&[128, 256, 2048]);
        assert_eq!(register[..3], [0b11, 0x80, 0]);
        assert_eq!(vector_lengths(&[0, u32::MAX]), [0; 64]);
    }
}
