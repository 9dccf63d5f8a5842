//! How fast the counter of this host runs, which no guest of its can be spared.

// UNSAFETY: a system register is read by an instruction of its own.
#![expect(unsafe_code)]

use std::arch::asm;

/// Ticks in a second, from `CNTFRQ_EL0` (Arm DDI 0487, D24.10.2): 32 bits.
pub(crate) fn frequency() -> u32 {
    let frequency: u64;
    // SAFETY: MRS changes nothing but its destination. Linux lets user space read the
    // register, or emulates that where a CPU's erratum forbids it
    // (Documentation/arch/arm64/cpu-feature-registers.rst; the vDSO rests on it, too).
    unsafe {
        asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nomem, nostack, preserves_flags));
    }
    u32::try_from(frequency).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_runs_at_a_megahertz_at_least() {
        assert!(frequency() >= 1_000_000);
    }
}
