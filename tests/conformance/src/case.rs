//! A case, and what a host must be able to do for it.

use kedge_hv::{GicVersion, VcpuFeatures};
use kedge_hv_model::id;
use kedge_ids::RegId;

use crate::Ctx;
use crate::cases::{gic_moved::obeys_commands, taken};

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
    /// No SYSTEM_SUSPEND.
    NoSuspend,
    /// PSCI 1.1.
    Psci1_1,
    /// PSCI 1.3.
    Psci1_3,
    /// A GICv2.
    GicV2,
    /// A GICv3.
    GicV3,
    /// A GICv3 with a translation service.
    Its,
    /// A translation service that does what its queue says: none of the model's does.
    Commands,
    /// The guests of `tests/payloads`, and a host that can start them in the middle.
    Payloads,
    /// No GICv2.
    NoGicV2,
    /// A filter of firmware calls.
    Filter,
    /// No such filter.
    NoFilter,
    /// Offsets of the counters.
    CounterOffset,
    /// No such offsets.
    NoCounterOffset,
    /// A physical counter among the registers.
    PhysicalCounter,
    /// Records of stolen time.
    PvTime,
    /// Main ID registers that can be a machine's own.
    ImpIds,
    /// Main ID registers that are the host's.
    NoImpIds,
    /// CPUs with the reliability extension (FEAT_RAS).
    Ras,
    /// CPUs without it.
    NoRas,
}

const ID_AA64PFR0_EL1: RegId = RegId::system(3, 0, 0, 4, 0);

/// What a host can do, found out by asking it.
#[derive(Clone, Debug)]
pub struct Abilities {
    features: VcpuFeatures,
    psci: u64,
    bitmaps: bool,
    suspend: bool,
    gics: Vec<GicVersion>,
    its: bool,
    commands: bool,
    begins_with_mmu: bool,
    filter: bool,
    physical_counter: bool,
    ras: bool,
    host: kedge_hv::Abilities,
}

impl Abilities {
    /// Asks.
    ///
    /// # Errors
    /// The host cannot make a machine with one plain vCPU.
    pub fn probe(ctx: &Ctx<'_>) -> anyhow::Result<Self> {
        let machine = ctx.machine(1)?;
        let list = machine[0].reg_list()?;
        let gics = [GicVersion::V2, GicVersion::V3];
        Ok(Self {
            features: ctx.limits().features,
            psci: machine[0].reg64(RegId::PSCI_VERSION)?,
            bitmaps: list.contains(&id::STD_BMAP),
            its: machine.vm.supports_its(),
            commands: machine.vm.supports_its() && obeys_commands(ctx)?,
            begins_with_mmu: taken::begins_with_mmu(ctx)?,
            filter: machine.vm.supports_smccc_filter(),
            physical_counter: list.contains(&id::PTIMER_CNT),
            ras: machine[0].reg64(ID_AA64PFR0_EL1)? >> 28 & 0xf != 0,
            host: ctx.host_abilities(),
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
            Need::NoSuspend => !self.suspend,
            Need::Psci1_1 => self.psci >= 0x1_0001,
            Need::Psci1_3 => self.psci >= 0x1_0003,
            Need::GicV2 => self.gics.contains(&GicVersion::V2),
            Need::GicV3 => self.gics.contains(&GicVersion::V3),
            Need::Its => self.its && self.gics.contains(&GicVersion::V3),
            Need::Commands => self.commands,
            Need::Payloads => self.begins_with_mmu && taken::payload().is_some(),
            Need::NoGicV2 => !self.gics.contains(&GicVersion::V2),
            Need::Filter => self.filter,
            Need::NoFilter => !self.filter,
            Need::CounterOffset => self.host.counter_offset,
            Need::NoCounterOffset => !self.host.counter_offset,
            Need::PhysicalCounter => self.physical_counter,
            Need::PvTime => self.host.pv_time,
            Need::ImpIds => self.host.writable_imp_ids,
            Need::NoImpIds => !self.host.writable_imp_ids,
            Need::Ras => self.ras,
            Need::NoRas => !self.ras,
        }
    }
}
