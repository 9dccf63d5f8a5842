//! What a vCPU may be given beyond the plain architecture.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use serde::{Deserialize, Serialize};

/// A set of vCPU features, as `KVM_ARM_VCPU_INIT` takes them: bit n is KVM's
/// feature n.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VcpuFeatures(pub u32);

impl VcpuFeatures {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// The vCPU waits for PSCI CPU_ON.
    pub const POWER_OFF: Self = Self(1 << 0);
    /// The guest runs in AArch32 at EL1.
    pub const EL1_32BIT: Self = Self(1 << 1);
    /// PSCI 0.2 or later, instead of 0.1.
    pub const PSCI_0_2: Self = Self(1 << 2);
    /// Performance monitors.
    pub const PMU_V3: Self = Self(1 << 3);
    /// The Scalable Vector Extension.
    pub const SVE: Self = Self(1 << 4);
    /// Pointer authentication: address and generic keys go together.
    pub const PTRAUTH: Self = Self(1 << 5 | 1 << 6);

    const NAMES: [(Self, &'static str); 6] = [
        (Self::POWER_OFF, "power-off"),
        (Self::EL1_32BIT, "el1-32bit"),
        (Self::PSCI_0_2, "psci-0.2"),
        (Self::PMU_V3, "pmu"),
        (Self::SVE, "sve"),
        (Self::PTRAUTH, "ptrauth"),
    ];

    /// Whether all of `other` is in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set without `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The feature with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The names of the features in the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(bits, _)| self.contains(*bits)).map(|(_, name)| name)
    }
}

impl BitOr for VcpuFeatures {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for VcpuFeatures {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for VcpuFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
