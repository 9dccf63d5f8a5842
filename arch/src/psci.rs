//! The Power State Coordination Interface (Arm DEN0022) as KVM offers it to a
//! guest: versions and function ids.

use std::fmt;
use std::str::FromStr;

use kedge_diag::Fix;
use kedge_hv::{HvError, Vcpu};
use kedge_ids::RegId;
use serde::{Deserialize, Serialize};

/// The function ids that KVM made up for PSCI 0.1, which has no standard ones
/// (Linux, arch/arm64/include/uapi/asm/kvm.h, `KVM_PSCI_FN`).
#[rustfmt::skip]
pub mod v0_1 {
    /// Not implemented by KVM.
    pub const CPU_SUSPEND: u32 = 0x95c1_ba5e;
    /// Turns the calling CPU off.
    pub const CPU_OFF:     u32 = 0x95c1_ba5f;
    /// Turns another CPU on.
    pub const CPU_ON:      u32 = 0x95c1_ba60;
    /// Not implemented by KVM.
    pub const MIGRATE:     u32 = 0x95c1_ba61;
}

/// The standard function ids, in their 32-bit form (DEN0022, 5.1).
#[rustfmt::skip]
pub mod function {
    /// Which version: from 0.2.
    pub const PSCI_VERSION:   u32 = 0x8400_0000;
    /// Waits for an interrupt: from 0.2.
    pub const CPU_SUSPEND:    u32 = 0x8400_0001;
    /// Turns the calling CPU off: from 0.2.
    pub const CPU_OFF:        u32 = 0x8400_0002;
    /// Turns another CPU on: from 0.2.
    pub const CPU_ON:         u32 = 0x8400_0003;
    /// Whether a CPU is on: from 0.2.
    pub const AFFINITY_INFO:  u32 = 0x8400_0004;
    /// Turns the machine off: from 0.2.
    pub const SYSTEM_OFF:     u32 = 0x8400_0008;
    /// Resets the machine: from 0.2.
    pub const SYSTEM_RESET:   u32 = 0x8400_0009;
    /// Whether a function is implemented: from 1.0.
    pub const PSCI_FEATURES:  u32 = 0x8400_000a;
    /// Suspends the machine to RAM: from 1.0.
    pub const SYSTEM_SUSPEND: u32 = 0x8400_000e;
    /// Resets the machine in a chosen way: from 1.1.
    pub const SYSTEM_RESET2:  u32 = 0x8400_0012;
    /// Turns the machine off in a chosen way: from 1.3.
    pub const SYSTEM_OFF2:    u32 = 0x8400_0015;
}

/// The PSCI versions that KVM has offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PsciVersion {
    /// Function ids of the firmware's own choice.
    #[serde(rename = "0.1")]
    V0_1,
    /// Standard function ids.
    #[serde(rename = "0.2")]
    V0_2,
    /// PSCI_FEATURES, SYSTEM_SUSPEND.
    #[serde(rename = "1.0")]
    V1_0,
    /// SYSTEM_RESET2.
    #[serde(rename = "1.1")]
    V1_1,
    /// Nothing visible but the number.
    #[serde(rename = "1.2")]
    V1_2,
    /// SYSTEM_OFF2.
    #[serde(rename = "1.3")]
    V1_3,
}

impl PsciVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 6] =
        [Self::V0_1, Self::V0_2, Self::V1_0, Self::V1_1, Self::V1_2, Self::V1_3];

    /// As PSCI_VERSION and KVM's register `KVM_REG_ARM_PSCI_VERSION` say it:
    /// the major number in bits 31:16, the minor in 15:0.
    pub const fn register(self) -> u64 {
        match self {
            Self::V0_1 => 0x0_0001,
            Self::V0_2 => 0x0_0002,
            Self::V1_0 => 0x1_0000,
            Self::V1_1 => 0x1_0001,
            Self::V1_2 => 0x1_0002,
            Self::V1_3 => 0x1_0003,
        }
    }

    /// The version with this value of the register, if it is one of these.
    pub fn from_register(value: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.register() == value)
    }
}

impl fmt::Display for PsciVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let register = self.register();
        write!(f, "{}.{}", register >> 16, register & 0xffff)
    }
}

/// A text that is no PSCI version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no PSCI version `{text}`")]
pub struct NotAPsciVersion {
    /// The text.
    pub text: String,
}

impl Fix for NotAPsciVersion {
    fn fix(&self) -> Option<String> {
        let names: Vec<_> = PsciVersion::ALL.iter().map(ToString::to_string).collect();
        Some(format!("use one of: {}", names.join(", ")))
    }
}

impl FromStr for PsciVersion {
    type Err = NotAPsciVersion;

    fn from_str(text: &str) -> Result<Self, NotAPsciVersion> {
        Self::ALL
            .into_iter()
            .find(|version| version.to_string() == text)
            .ok_or_else(|| NotAPsciVersion { text: text.to_owned() })
    }
}

/// Why a machine does not get the PSCI version it wants.
#[derive(Debug, thiserror::Error)]
pub enum PsciError {
    /// The host's KVM does not know the version.
    #[error("this host offers its guests PSCI {offered}, not {wanted}")]
    Unsupported {
        /// What was asked for.
        wanted: PsciVersion,
        /// What the host offers of itself: its newest.
        offered: PsciVersion,
    },
    /// The hypervisor failed.
    #[error(transparent)]
    Hypervisor(#[from] HvError),
}

impl Fix for PsciError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Unsupported { offered, .. } => {
                Some(format!("ask for PSCI {offered} or older, or run on a newer host kernel"))
            }
            Self::Hypervisor(source) => source.fix(),
        }
    }
}

/// Gives the machine of `vcpu` the PSCI version `wanted`, or leaves it what the
/// host offers, and says which that is. After [`Vcpu::init`] with the features of
/// [`crate::vcpu::init_features`]; before anything runs, since KVM would let the
/// version change under a running guest.
///
/// # Errors
/// The host does not know the version.
pub fn settle(vcpu: &dyn Vcpu, wanted: Option<PsciVersion>) -> Result<PsciVersion, PsciError> {
    let newest = PsciVersion::V1_3;
    let offered = PsciVersion::from_register(vcpu.reg64(RegId::PSCI_VERSION)?);
    match (wanted, offered) {
        (None, Some(offered)) => Ok(offered),
        (Some(wanted), Some(offered)) if wanted == offered => Ok(offered),
        (Some(wanted), _) => {
            let refused = |_| PsciError::Unsupported { wanted, offered: offered.unwrap_or(newest) };
            vcpu.set_reg64(RegId::PSCI_VERSION, wanted.register()).map_err(refused)?;
            Ok(wanted)
        }
        // The host's kernel is newer than kedge: its guest gets what kedge knows.
        (None, None) => {
            vcpu.set_reg64(RegId::PSCI_VERSION, newest.register())?;
            Ok(newest)
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kedge_diag::report;

    use super::*;
    use crate::fakes::FakeVcpu;

    #[test]
    fn a_version_has_a_name_and_a_register_value() {
        for version in PsciVersion::ALL {
            assert_eq!(version.to_string().parse(), Ok(version));
            assert_eq!(PsciVersion::from_register(version.register()), Some(version));
        }
        assert_eq!(PsciVersion::V1_1.to_string(), "1.1");
        assert_eq!(PsciVersion::V0_2.register(), 2);
        assert_eq!(PsciVersion::from_register(3), None);
    }

    #[test]
    fn versions_are_ordered() {
        assert!(PsciVersion::ALL.is_sorted());
        assert!(PsciVersion::ALL.map(PsciVersion::register).is_sorted());
    }

    #[test]
    fn a_text_that_is_no_version_is_refused() {
        expect![[r#"
            error: there is no PSCI version `1.01`
              fix: use one of: 0.1, 0.2, 1.0, 1.1, 1.2, 1.3"#]]
        .assert_eq(&report(&"1.01".parse::<PsciVersion>().unwrap_err()));
    }

    #[test]
    fn the_hosts_version_is_taken_as_it_is() {
        let vcpu = FakeVcpu::new(0x1_0001);
        assert_eq!(settle(&vcpu, None).unwrap(), PsciVersion::V1_1);
    }

    #[test]
    fn an_older_version_is_set() {
        let vcpu = FakeVcpu::new(0x1_0003);
        assert_eq!(settle(&vcpu, Some(PsciVersion::V0_2)).unwrap(), PsciVersion::V0_2);
        assert_eq!(vcpu.registers(), [(RegId::PSCI_VERSION, 2)]);
    }

    #[test]
    fn a_newer_version_than_the_hosts_is_refused() {
        let vcpu = FakeVcpu::new(0x1_0001);
        let error = settle(&vcpu, Some(PsciVersion::V1_3)).unwrap_err();
        expect![[r#"
            error: this host offers its guests PSCI 1.1, not 1.3
              fix: ask for PSCI 1.1 or older, or run on a newer host kernel"#]]
        .assert_eq(&report(&error));
    }

    #[test]
    fn a_version_that_kedge_does_not_know_is_not_passed_on() {
        let vcpu = FakeVcpu::new(0x2_0000);
        assert_eq!(settle(&vcpu, None).unwrap(), PsciVersion::V1_3);
        assert_eq!(vcpu.registers(), [(RegId::PSCI_VERSION, 0x1_0003)]);
    }
}
