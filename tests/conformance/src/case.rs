//! A case, and what a host must be able to do for it.

use kedge_hv::{GicVersion, VcpuFeatures};
use kedge_hv_model::id;
use kedge_ids::RegId;

use crate::Ctx;

/// One statement about the traits.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The statement, as a sentence with underscores.
    pub name: &'static str,
    /// Without this, the case has nothing to say.
    pub need: Need,
    /// The check: an error says what was found instead.
    pub run: fn(&Ctx<'_>) -> anyhow::Result<()>,
}

/// Makes a table of cases: the need of each, and the function that is its name.
macro_rules! cases {
    ($($need:ident $run:ident),* $(,)?) => {
        /// The cases of this file.
        pub const CASES: &[$crate::Case] = &[$(
            $crate::Case { name: stringify!($run), need: $crate::Need::$need, run: $run },
        )*];
    };
}
pub(crate) use cases;

/// What a case needs of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing beyond KVM.
    Kvm,
    /// The Scalable Vector Extension.
    Sve,
    /// Performance monitors.
    Pmu,
    /// Pointer authentication.
    Ptrauth,
    /// AArch32 at EL1.
    TwoWidths,
    /// Bitmaps of firmware services.
    Bitmaps,
    /// SYSTEM_SUSPEND, and power states to go with it.
    Suspend,
    /// PSCI 1.1.
    Psci1_1,
    /// PSCI 1.3.
    Psci1_3,
    /// A GICv2.
    GicV2,
    /// A GICv3.
    GicV3,
    /// No GICv2.
    NoGicV2,
}

/// What a host can do, found out by asking it.
#[derive(Clone, Debug)]
pub struct Abilities {
    features: VcpuFeatures,
    psci: u64,
    bitmaps: bool,
    suspend: bool,
    gics: Vec<GicVersion>,
}

impl Abilities {
    /// Asks.
    ///
    /// # Errors
    /// The host cannot make a machine with one plain vCPU.
    pub fn probe(ctx: &Ctx<'_>) -> anyhow::Result<Self> {
        let machine = ctx.machine(1)?;
        let gics = [GicVersion::V2, GicVersion::V3];
        Ok(Self {
            features: ctx.limits().features,
            psci: machine[0].reg64(RegId::PSCI_VERSION)?,
            bitmaps: machine[0].reg_list()?.contains(&id::STD_BMAP),
            suspend: machine.vm.enable_system_suspend().is_ok(),
            gics: gics.into_iter().filter(|gic| machine.vm.supports_gic(*gic)).collect(),
        })
    }

    /// Whether a case can be run here.
    pub fn meet(&self, need: Need) -> bool {
        match need {
            Need::Kvm => true,
            Need::Sve => self.features.contains(VcpuFeatures::SVE),
            Need::Pmu => self.features.contains(VcpuFeatures::PMU_V3),
            Need::Ptrauth => self.features.contains(VcpuFeatures::PTRAUTH),
            Need::TwoWidths => self.features.contains(VcpuFeatures::EL1_32BIT),
            Need::Bitmaps => self.bitmaps,
            Need::Suspend => self.suspend,
            Need::Psci1_1 => self.psci >= 0x1_0001,
            Need::Psci1_3 => self.psci >= 0x1_0003,
            Need::GicV2 => self.gics.contains(&GicVersion::V2),
            Need::GicV3 => self.gics.contains(&GicVersion::V3),
            Need::NoGicV2 => !self.gics.contains(&GicVersion::V2),
        }
    }
}
