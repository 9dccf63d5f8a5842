//! Register ids as `KVM_GET_ONE_REG` and `KVM_SET_ONE_REG` take them
//! (Linux, Documentation/virt/kvm/api.rst, 4.68).

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many bytes a register holds, from bits 55:52 of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegSize(u8);

impl RegSize {
    /// The size in bytes: 1 to 256 for the codes Linux defines today.
    pub const fn bytes(self) -> usize {
        1 << self.0
    }
}

/// A register of a vCPU, known or unknown: 64 bits that KVM gives meaning to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RegId(pub u64);

impl RegId {
    const ARM64_U64: u64 = 0x6030_0000_0000_0000;

    /// The system register with this encoding (coprocessor 0x13).
    pub const fn system(op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> Self {
        Self(Self::ARM64_U64 | 0x13 << 16 | op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2)
    }

    /// The 64-bit core register at byte `offset` of `struct kvm_regs`
    /// (coprocessor 0x10, counted in 32-bit words).
    pub const fn core(offset: u64) -> Self {
        Self(Self::ARM64_U64 | 0x10 << 16 | (offset / 4))
    }

    /// General-purpose register `n`: 0 to 30.
    pub const fn x(n: u64) -> Self {
        Self::core(8 * n)
    }

    /// The program counter.
    pub const PC: Self = Self::core(8 * 32);
    /// The processor state, as `SPSR_EL1` would hold it.
    pub const PSTATE: Self = Self::core(8 * 33);
    /// `MPIDR_EL1`.
    pub const MPIDR_EL1: Self = Self::system(3, 0, 0, 0, 5);
    /// The PSCI version that the guest is offered (firmware bank 0x14).
    pub const PSCI_VERSION: Self = Self(Self::ARM64_U64 | 0x14 << 16);
    /// The set of SVE vector lengths, a 512-bit bitmap (coprocessor 0x15).
    pub const SVE_VLS: Self = Self(0x6060_0000_0015_ffff);

    /// The length of the register's value.
    pub fn size(self) -> RegSize {
        RegSize((self.0 >> 52 & 0xf).try_into().expect("four bits fit a byte"))
    }

    /// The coprocessor field: which bank of registers it belongs to.
    pub const fn coprocessor(self) -> u64 {
        self.0 >> 16 & 0xfff
    }
}

impl fmt::Debug for RegId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

impl fmt::Display for RegId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_ones_of_the_kernel_headers() {
        assert_eq!(RegId::PC.0, 0x6030_0000_0010_0040);
        assert_eq!(RegId::PSTATE.0, 0x6030_0000_0010_0042);
        assert_eq!(RegId::MPIDR_EL1.0, 0x6030_0000_0013_c005);
        assert_eq!(RegId::PSCI_VERSION.0, 0x6030_0000_0014_0000);
    }

    #[test]
    fn the_size_is_in_the_id() {
        assert_eq!(RegId::PC.size().bytes(), 8);
        assert_eq!(RegId::SVE_VLS.size().bytes(), 64);
        assert_eq!(RegId(0x6080_0000_0015_0000).size().bytes(), 256);
    }
}
