//! What a vCPU is when the machine starts: booted by Linux's protocol for arm64
//! (Documentation/arch/arm64/booting.rst, 4), the others waiting for PSCI.

use kedge_guest_memory::GuestAddress;
use kedge_hv::{HvError, Vcpu, VcpuFeatures};
use kedge_ids::{RegId, VcpuId};

use crate::PsciVersion;

/// `PSTATE` at the entry: EL1 with its own stack pointer, debug exceptions,
/// SErrors, IRQs and FIQs masked (Arm ARM DDI 0487, C5.2.19).
const EL1H_DAIF: u64 = 0x3c5;

/// What [`Vcpu::init`] takes: the features `asked` for, PSCI 0.2 unless `psci`
/// is older, and for all but the first vCPU to wait for CPU_ON.
#[must_use]
pub fn init_features(id: VcpuId, asked: VcpuFeatures, psci: Option<PsciVersion>) -> VcpuFeatures {
    let mut features = asked;
    if psci != Some(PsciVersion::V0_1) {
        features |= VcpuFeatures::PSCI_0_2;
    }
    if id != VcpuId(0) {
        features |= VcpuFeatures::POWER_OFF;
    }
    features
}

/// Points the first vCPU at the kernel's `entry`, with the device tree's address
/// in x0. [`Vcpu::init`] has zeroed x1 to x3, which the protocol reserves.
///
/// # Errors
/// The vCPU is not initialised.
pub fn set_boot_state(
    vcpu: &dyn Vcpu,
    entry: GuestAddress,
    fdt: GuestAddress,
) -> Result<(), HvError> {
    vcpu.set_reg64(RegId::PSTATE, EL1H_DAIF)?;
    vcpu.set_reg64(RegId::PC, entry.0)?;
    vcpu.set_reg64(RegId::x(0), fdt.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::FakeVcpu;

    #[test]
    fn the_first_vcpu_starts_at_the_kernel_with_the_device_tree() {
        let vcpu = FakeVcpu::new(0);
        set_boot_state(&vcpu, GuestAddress(0x8020_0000), GuestAddress(0x8002_0000)).unwrap();
        let registers = vcpu.registers();
        assert!(registers.contains(&(RegId::x(0), 0x8002_0000)));
        assert!(registers.contains(&(RegId::PC, 0x8020_0000)));
        assert!(registers.contains(&(RegId::PSTATE, 0x3c5)));
    }

    #[test]
    fn the_other_vcpus_wait_for_psci() {
        let first = init_features(VcpuId(0), VcpuFeatures::SVE, None);
        assert_eq!(first, VcpuFeatures::SVE | VcpuFeatures::PSCI_0_2);
        let second = init_features(VcpuId(1), VcpuFeatures::SVE, None);
        assert_eq!(second, first | VcpuFeatures::POWER_OFF);
    }

    #[test]
    fn psci_0_1_goes_without_the_feature_of_its_successor() {
        let features = |psci| init_features(VcpuId(0), VcpuFeatures::NONE, Some(psci));
        assert_eq!(features(PsciVersion::V0_1), VcpuFeatures::NONE);
        assert_eq!(features(PsciVersion::V0_2), VcpuFeatures::PSCI_0_2);
    }
}
