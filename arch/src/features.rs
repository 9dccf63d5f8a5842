//! The vCPU features that a user can ask for, and whether the host has them.

use kedge_diag::Fix;
use kedge_hv::{Limits, VcpuFeatures};

/// A feature that a user can ask for.
struct Optional {
    /// How it is asked for.
    name: &'static str,
    /// What it is called in a message.
    title: &'static str,
    bits: VcpuFeatures,
}

const OPTIONAL: [Optional; 3] = [
    Optional { name: "pmu", title: "performance monitors (PMU)", bits: VcpuFeatures::PMU_V3 },
    Optional { name: "sve", title: "Scalable Vector Extension (SVE)", bits: VcpuFeatures::SVE },
    Optional { name: "ptrauth", title: "pointer authentication", bits: VcpuFeatures::PTRAUTH },
];

/// The names that [`named`] takes.
pub fn names() -> impl Iterator<Item = &'static str> {
    OPTIONAL.iter().map(|feature| feature.name)
}

/// A name that is no feature's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no CPU feature `{name}`")]
pub struct UnknownFeature {
    /// What was asked for.
    pub name: String,
}

impl Fix for UnknownFeature {
    fn fix(&self) -> Option<String> {
        Some(format!("use any of: {}", names().collect::<Vec<_>>().join(", ")))
    }
}

/// The feature that a user calls `name`.
///
/// # Errors
/// There is none of that name.
pub fn named(name: &str) -> Result<VcpuFeatures, UnknownFeature> {
    OPTIONAL
        .iter()
        .find(|feature| feature.name == name)
        .map(|feature| feature.bits)
        .ok_or_else(|| UnknownFeature { name: name.to_owned() })
}

/// A feature that the host cannot give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host has no {title} for its guests")]
pub struct AbsentFeature {
    /// How it was asked for.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
}

impl Fix for AbsentFeature {
    fn fix(&self) -> Option<String> {
        Some(format!("leave `{}` out of the CPU features, or run on a host that has it", self.name))
    }
}

/// Checks that the host has every feature of `asked`.
///
/// # Errors
/// The first that it lacks.
pub fn check(asked: VcpuFeatures, limits: &Limits) -> Result<(), AbsentFeature> {
    let absent = |feature: &&Optional| {
        asked.0 & feature.bits.0 != 0 && !limits.features.contains(feature.bits)
    };
    match OPTIONAL.iter().find(absent) {
        Some(&Optional { name, title, .. }) => Err(AbsentFeature { name, title }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kedge_diag::report;

    use super::*;

    fn host(features: VcpuFeatures) -> Limits {
        Limits { ipa_bits: 40, vcpus: 8, slot_bytes: 1 << 40, slots: 32, features }
    }

    #[test]
    fn a_host_with_the_features_gives_them() {
        let all = VcpuFeatures::PMU_V3 | VcpuFeatures::SVE | VcpuFeatures::PTRAUTH;
        assert_eq!(check(all, &host(all)), Ok(()));
        assert_eq!(check(VcpuFeatures::NONE, &host(VcpuFeatures::NONE)), Ok(()));
    }

    #[test]
    fn an_absent_feature_is_named_with_the_cure() {
        let asked = VcpuFeatures::PMU_V3 | VcpuFeatures::SVE;
        let error = check(asked, &host(VcpuFeatures::PMU_V3)).unwrap_err();
        expect![[r#"
            error: this host has no Scalable Vector Extension (SVE) for its guests
              fix: leave `sve` out of the CPU features, or run on a host that has it"#]]
        .assert_eq(&report(&error));
    }

    #[test]
    fn half_of_pointer_authentication_is_not_enough() {
        let address_keys = VcpuFeatures(1 << 5);
        assert!(check(VcpuFeatures::PTRAUTH, &host(address_keys)).is_err());
        assert!(check(address_keys, &host(VcpuFeatures::NONE)).is_err());
    }

    #[test]
    fn features_have_names() {
        assert_eq!(named("ptrauth"), Ok(VcpuFeatures::PTRAUTH));
        expect![[r#"
            error: there is no CPU feature `sse`
              fix: use any of: pmu, sve, ptrauth"#]]
        .assert_eq(&report(&named("sse").unwrap_err()));
    }
}
