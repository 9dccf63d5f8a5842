//! Which interrupt controller a machine gets.

use kedge_diag::Fix;
use kedge_hv::{GicVersion, Vm};

/// An interrupt controller that the host can emulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicChoice {
    /// GICv2.
    V2,
    /// GICv3.
    V3 {
        /// Whether it has an Interrupt Translation Service.
        its: bool,
    },
}

impl GicChoice {
    /// Its version.
    pub const fn version(self) -> GicVersion {
        match self {
            Self::V2 => GicVersion::V2,
            Self::V3 { .. } => GicVersion::V3,
        }
    }

    /// vCPUs it serves: a GICv2 has 8 CPU interfaces (Arm IHI 0048, 1.1), KVM's
    /// GICv3 has 512.
    pub const fn most_cpus(self) -> u32 {
        match self {
            Self::V2 => 8,
            Self::V3 { .. } => 512,
        }
    }
}

/// Why a machine gets no interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GicError {
    /// The one asked for is not to be had here.
    #[error("this host cannot give a guest a GIC{}", name(*version))]
    Absent {
        /// What was asked for.
        version: GicVersion,
    },
    /// The host emulates none at all.
    #[error("this host can give a guest neither a GICv3 nor a GICv2")]
    None,
}

impl Fix for GicError {
    fn fix(&self) -> Option<String> {
        let cure = match self {
            Self::Absent { .. } => "leave the choice of the interrupt controller to kedge",
            Self::None => "run on a host whose own interrupt controller is a GICv2 or GICv3",
        };
        Some(cure.to_owned())
    }
}

/// The name of a version, without the `GIC`.
pub const fn name(version: GicVersion) -> &'static str {
    match version {
        GicVersion::V2 => "v2",
        GicVersion::V3 => "v3",
    }
}

/// The version `wanted`, or the best there is: a GICv3, with an ITS if possible,
/// before a GICv2.
///
/// # Errors
/// The host has not the one asked for, or none at all.
pub fn choose(vm: &dyn Vm, wanted: Option<GicVersion>) -> Result<GicChoice, GicError> {
    let versions = match wanted {
        Some(GicVersion::V2) => &[GicVersion::V2][..],
        Some(GicVersion::V3) => &[GicVersion::V3],
        None => &[GicVersion::V3, GicVersion::V2],
    };
    match versions.iter().find(|version| vm.supports_gic(**version)) {
        Some(GicVersion::V2) => Ok(GicChoice::V2),
        Some(GicVersion::V3) => Ok(GicChoice::V3 { its: vm.supports_its() }),
        None => Err(wanted.map_or(GicError::None, |version| GicError::Absent { version })),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kedge_diag::report;

    use super::*;
    use crate::fakes::FakeVm;

    fn host(gics: &[GicVersion]) -> FakeVm {
        FakeVm { gics: gics.to_vec(), its: true }
    }

    #[test]
    fn the_best_controller_is_taken() {
        let both = host(&[GicVersion::V2, GicVersion::V3]);
        assert_eq!(choose(&both, None), Ok(GicChoice::V3 { its: true }));
        assert_eq!(choose(&host(&[GicVersion::V2]), None), Ok(GicChoice::V2));
        assert_eq!(choose(&both, Some(GicVersion::V2)), Ok(GicChoice::V2));
    }

    #[test]
    fn a_gicv3_goes_without_an_its_where_there_is_none() {
        let host = FakeVm { gics: vec![GicVersion::V3], its: false };
        assert_eq!(choose(&host, None), Ok(GicChoice::V3 { its: false }));
    }

    #[test]
    fn an_absent_controller_is_refused() {
        let error = choose(&host(&[GicVersion::V3]), Some(GicVersion::V2)).unwrap_err();
        expect![[r#"
            error: this host cannot give a guest a GICv2
              fix: leave the choice of the interrupt controller to kedge"#]]
        .assert_eq(&report(&error));
        assert_eq!(choose(&host(&[]), None), Err(GicError::None));
    }
}
