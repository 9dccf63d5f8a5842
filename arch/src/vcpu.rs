//! What a vCPU is when the machine starts: booted by Linux's protocol for arm64
//! (Documentation/arch/arm64/booting.rst, 4), the others waiting for PSCI.

use kedge_guest_memory::GuestAddress;
use kedge_hv::{HvError, Vcpu, VcpuFeatures};
use kedge_ids::{RegId, VcpuId};

use crate::PsciVersion;

/// `PSTATE` at the entry: EL1 with its own stack pointer, debug exceptions,
/// SErrors, IRQs and FIQs masked (Arm ARM DDI 0487, C5.2.19).
const EL1H_DAIF: u64 = 0x3c5;

const MIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 0);
const SCTLR_EL1: RegId = RegId::system(3, 0, 1, 0, 0);
const MDSCR_EL1: RegId = RegId::system(2, 0, 0, 2, 2);
const CNTV_CTL_EL0: RegId = RegId::system(3, 3, 14, 3, 1);
const CNTP_CTL_EL0: RegId = RegId::system(3, 3, 14, 2, 1);

/// `SCTLR_EL1`: the MMU (bit 0), the caches of data (2) and of instructions (12).
const M_C_I: u64 = 1 << 12 | 1 << 2 | 1;

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

/// Turns off what is off in a CPU that starts after it had no power: MMU, caches,
/// debug events, timers (Arm ARM DDI 0487, the warm reset values of the registers).
/// A guest cannot know the values of all others then, and here they stay.
///
/// It is what a sleep needs of [`Vcpu::init`], for hosts where that does harm.
///
/// # Errors
/// The vCPU is not initialised, or [`can_reset_in_place`] says no.
pub fn reset_in_place(vcpu: &dyn Vcpu) -> Result<(), HvError> {
    vcpu.set_reg64(SCTLR_EL1, vcpu.reg64(SCTLR_EL1)? & !M_C_I)?;
    [MDSCR_EL1, CNTV_CTL_EL0, CNTP_CTL_EL0].into_iter().try_for_each(|id| vcpu.set_reg64(id, 0))
}

/// Whether the host lets all of that be turned off: Linux 6.1 does not show its
/// user the physical timer.
pub fn can_reset_in_place(vcpu: &dyn Vcpu) -> bool {
    [SCTLR_EL1, MDSCR_EL1, CNTV_CTL_EL0, CNTP_CTL_EL0].iter().all(|id| vcpu.reg64(*id).is_ok())
}

/// Whether the vCPU's CPU has erratum 834220: a Cortex-A57 r0p0 to r1p2 (Linux,
/// Documentation/arch/arm64/silicon-errata.rst).
///
/// # Errors
/// The vCPU is not initialised.
pub fn has_erratum_834220(vcpu: &dyn Vcpu) -> Result<bool, HvError> {
    const CORTEX_A57: u64 = 0x410f_d070;
    const REVISION: u64 = 0x00f0_000f;
    let midr = vcpu.reg64(MIDR_EL1)?;
    let revision = (midr >> 20 & 0xf, midr & 0xf);
    Ok(midr & !REVISION == CORTEX_A57 && revision <= (1, 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::FakeVcpu;

    #[test]
    fn a_reset_in_place_turns_off_mmu_caches_debug_and_timers_only() {
        let vcpu = FakeVcpu::new(0);
        vcpu.set_reg64(SCTLR_EL1, 0x30d0_199d).unwrap();
        vcpu.set_reg64(RegId::x(9), 7).unwrap();
        reset_in_place(&vcpu).unwrap();
        assert!(can_reset_in_place(&vcpu));
        let registers = vcpu.registers();
        assert!(registers.contains(&(SCTLR_EL1, 0x30d0_0998)));
        assert!(registers.contains(&(CNTV_CTL_EL0, 0)));
        assert!(registers.contains(&(CNTP_CTL_EL0, 0)));
        assert!(registers.contains(&(MDSCR_EL1, 0)));
        assert!(registers.contains(&(RegId::x(9), 7)));
    }

    #[test]
    fn a_host_that_hides_a_register_cannot_reset_in_place() {
        assert!(!can_reset_in_place(&FakeVcpu::new(0)));
    }

    #[test]
    fn the_erratum_is_in_old_cortex_a57_only() {
        let has_it = |midr| {
            let vcpu = FakeVcpu::new(0);
            vcpu.set_reg64(MIDR_EL1, midr).unwrap();
            has_erratum_834220(&vcpu).unwrap()
        };
        let (r0p0, r1p0, r1p2) = (0x410f_d070, 0x411f_d070, 0x411f_d072);
        assert_eq!([r0p0, r1p0, r1p2].map(has_it), [true; 3]);
        let (r1p3, cortex_a72, model) = (0x411f_d073, 0x410f_d083, 0x000f_0510);
        assert_eq!([r1p3, cortex_a72, model].map(has_it), [false; 3]);
    }

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
