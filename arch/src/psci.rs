//! The Power State Coordination Interface (Arm DEN0022) as KVM offers it to a
//! guest: versions, and the function ids that are not standard.

use std::fmt;
use std::str::FromStr;

use kedge_diag::Fix;
use kedge_firmware::{FwReg, Symbol};
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

/// A PSCI version, as PSCI_VERSION and KVM's register of that name say it: the major
/// number in bits 31:16, the minor in 15:0. Which there are is in the table of firmware
/// registers ([`FwReg::PsciVersion`]); a host may be newer than it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PsciVersion(u64);

#[rustfmt::skip]
impl PsciVersion {
    /// Function ids of the firmware's own choice.
    pub const V0_1: Self = Self(0x0_0001);
    /// Standard function ids.
    pub const V0_2: Self = Self(0x0_0002);
    /// PSCI_FEATURES, SYSTEM_SUSPEND.
    pub const V1_0: Self = Self(0x1_0000);
    /// SYSTEM_RESET2.
    pub const V1_1: Self = Self(0x1_0001);
    /// Nothing visible but the number.
    pub const V1_2: Self = Self(0x1_0002);
    /// SYSTEM_OFF2.
    pub const V1_3: Self = Self(0x1_0003);
}

impl PsciVersion {
    /// Those of the table, oldest first.
    pub fn all() -> impl Iterator<Item = Self> {
        symbols().iter().map(|symbol| Self(symbol.value))
    }

    /// The value of the register.
    pub const fn register(self) -> u64 {
        self.0
    }

    /// The version with this value of the register, if the table has it.
    pub fn from_register(value: u64) -> Option<Self> {
        Self::all().find(|version| version.0 == value)
    }

    /// The version that a host says it offers, known or not.
    pub const fn reported(value: u64) -> Self {
        Self(value)
    }
}

fn symbols() -> &'static [Symbol] {
    FwReg::PsciVersion.spec().domain.symbols()
}

impl fmt::Display for PsciVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl From<PsciVersion> for String {
    fn from(version: PsciVersion) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for PsciVersion {
    type Error = NotAPsciVersion;

    fn try_from(text: String) -> Result<Self, NotAPsciVersion> {
        text.parse()
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
        let names: Vec<_> = symbols().iter().map(|symbol| symbol.name).collect();
        Some(format!("use one of: {}", names.join(", ")))
    }
}

impl FromStr for PsciVersion {
    type Err = NotAPsciVersion;

    fn from_str(text: &str) -> Result<Self, NotAPsciVersion> {
        let named = symbols().iter().find(|symbol| symbol.name == text);
        let version = named.map(|symbol| Self(symbol.value));
        version.ok_or_else(|| NotAPsciVersion { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kedge_diag::report;

    use super::*;

    #[test]
    fn a_version_has_a_name_and_a_register_value() {
        for version in PsciVersion::all() {
            assert_eq!(version.to_string().parse(), Ok(version));
            assert_eq!(PsciVersion::from_register(version.register()), Some(version));
        }
        assert_eq!(PsciVersion::V1_1.to_string(), "1.1");
        assert_eq!(PsciVersion::V0_2.register(), 2);
        assert_eq!(PsciVersion::from_register(3), None);
    }

    #[test]
    fn the_table_has_these_versions_in_this_order() {
        let named = [
            PsciVersion::V0_1,
            PsciVersion::V0_2,
            PsciVersion::V1_0,
            PsciVersion::V1_1,
            PsciVersion::V1_2,
            PsciVersion::V1_3,
        ];
        assert!(PsciVersion::all().eq(named));
        assert!(named.is_sorted());
    }

    #[test]
    fn the_table_opens_the_functions_of_0_1_that_kvm_has() {
        let opens = symbols().first().map(|symbol| symbol.opens);
        assert_eq!(opens, Some([v0_1::CPU_OFF, v0_1::CPU_ON].as_slice()));
    }

    #[test]
    fn a_version_is_written_by_its_name() {
        let text = serde_json::to_string(&PsciVersion::V1_1).unwrap();
        assert_eq!(text, "\"1.1\"");
        assert_eq!(serde_json::from_str::<PsciVersion>(&text).unwrap(), PsciVersion::V1_1);
        assert!(serde_json::from_str::<PsciVersion>("\"9.9\"").is_err());
        assert_eq!(PsciVersion::reported(0x2_0007).to_string(), "2.7");
    }

    #[test]
    fn a_text_that_is_no_version_is_refused() {
        expect![[r#"
            error: there is no PSCI version `1.01`
              fix: use one of: 0.1, 0.2, 1.0, 1.1, 1.2, 1.3"#]]
        .assert_eq(&report(&"1.01".parse::<PsciVersion>().unwrap_err()));
    }
}
