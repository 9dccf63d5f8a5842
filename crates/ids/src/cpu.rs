//! Identities of virtual CPUs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The index of a vCPU in its machine, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VcpuId(pub u32);

impl fmt::Display for VcpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The affinity fields of `MPIDR_EL1` (Arm ARM DDI 0487, D24.2.130), without
/// its flag bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mpidr(u64);

impl Mpidr {
    const AFFINITY: u64 = 0xff_00ff_ffff;

    /// The affinity in a value of `MPIDR_EL1`.
    pub const fn from_register(value: u64) -> Self {
        Self(value & Self::AFFINITY)
    }

    /// The affinity that KVM gives vCPU `id`: 16 to a cluster, as `ICC_SGI1R_EL1`
    /// addresses them.
    pub fn of(id: VcpuId) -> Self {
        let id = u64::from(id.0);
        Self(id & 0xf | (id >> 4 & 0xff) << 8 | (id >> 12 & 0xff) << 16)
    }

    /// Aff3 in bits 39:32, Aff2 to Aff0 in 23:0: a `cpu` node's `reg`.
    pub const fn affinity(self) -> u64 {
        self.0
    }

    /// Aff3 to Aff0 in one 32-bit word: how GIC attributes name a CPU.
    pub const fn packed(self) -> u64 {
        (self.0 >> 32 & 0xff) << 24 | self.0 & 0xff_ffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_vcpus_share_a_cluster() {
        assert_eq!(Mpidr::of(VcpuId(15)).affinity(), 0xf);
        assert_eq!(Mpidr::of(VcpuId(16)).affinity(), 0x100);
        assert_eq!(Mpidr::of(VcpuId(511)).affinity(), 0x1f0f);
    }

    #[test]
    fn flag_bits_are_no_affinity() {
        let mpidr = Mpidr::from_register(0x12_8034_5678);
        assert_eq!(mpidr.affinity(), 0x12_0034_5678);
        assert_eq!(mpidr.packed(), 0x1234_5678);
    }
}
