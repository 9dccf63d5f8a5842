//! The interrupt controller as it is saved. Frozen: a change is a new struct.
//!
//! Fields have the names of the registers that they hold (Arm IHI 0048 and IHI 0069).
//! Lists count interrupts from the first of their kind: 32 to an element of
//! `igroupr`, `isenabler`, `ispendr`, `isactiver` and levels, 16 to one of `icfgr`, 4 to
//! one of `ipriorityr` and `itargetsr`, one to one of `irouter`.

use kedge_ids::Mpidr;
use kedge_saved_state::Versioned;
use serde::{Deserialize, Serialize};

/// A GICv3, without its translation service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GicV3StateV1 {
    /// `GICD_IIDR`.
    pub gicd_iidr: u32,
    /// `GICD_TYPER2`.
    pub gicd_typer2: u32,
    /// `GICD_CTLR`.
    pub gicd_ctlr: u32,
    /// `GICD_STATUSR`.
    pub gicd_statusr: u32,
    /// The SPIs.
    pub spis: LinesV1,
    /// `GICD_IROUTER<n>` without its upper half: KVM has no fourth level of affinity.
    pub irouter: Vec<u32>,
    /// The levels of the SPIs' lines.
    pub spi_levels: Vec<u32>,
    /// By vCPU.
    pub cpus: Vec<GicV3CpuV1>,
}

impl Versioned for GicV3StateV1 {
    const KIND: &'static str = "gic-v3";
    const VERSION: u16 = 1;
}

/// What a GICv3 has for one vCPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GicV3CpuV1 {
    /// Whose.
    pub mpidr: Mpidr,
    /// `GICR_CTLR`.
    pub gicr_ctlr: u32,
    /// `GICR_STATUSR`.
    pub gicr_statusr: u32,
    /// `GICR_WAKER`.
    pub gicr_waker: u32,
    /// `GICR_PROPBASER`.
    pub gicr_propbaser: u64,
    /// `GICR_PENDBASER`.
    pub gicr_pendbaser: u64,
    /// The SGIs and PPIs.
    pub private: LinesV1,
    /// The levels of their lines.
    pub private_levels: u32,
    /// `ICC_SRE_EL1`.
    pub icc_sre: u64,
    /// `ICC_CTLR_EL1`.
    pub icc_ctlr: u64,
    /// `ICC_IGRPEN0_EL1`.
    pub icc_igrpen0: u64,
    /// `ICC_IGRPEN1_EL1`.
    pub icc_igrpen1: u64,
    /// `ICC_PMR_EL1`.
    pub icc_pmr: u64,
    /// `ICC_BPR0_EL1`.
    pub icc_bpr0: u64,
    /// `ICC_BPR1_EL1`.
    pub icc_bpr1: u64,
    /// `ICC_AP0R<n>_EL1`, as many as the bits of a priority ask for.
    pub icc_ap0r: Vec<u64>,
    /// `ICC_AP1R<n>_EL1`, as many.
    pub icc_ap1r: Vec<u64>,
}

/// A GICv2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GicV2StateV1 {
    /// `GICD_IIDR`.
    pub gicd_iidr: u32,
    /// `GICD_CTLR`.
    pub gicd_ctlr: u32,
    /// The SPIs.
    pub spis: LinesV1,
    /// `GICD_ITARGETSR<n>` of the SPIs.
    pub itargetsr: Vec<u32>,
    /// By vCPU.
    pub cpus: Vec<GicV2CpuV1>,
}

impl Versioned for GicV2StateV1 {
    const KIND: &'static str = "gic-v2";
    const VERSION: u16 = 1;
}

/// What a GICv2 has for one vCPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GicV2CpuV1 {
    /// The SGIs and PPIs. Which SGIs are pending is not in `ispendr`.
    pub private: LinesV1,
    /// `GICD_SPENDSGIR<n>`: 4 SGIs to an element, the senders of each as 8 bits.
    pub spendsgir: Vec<u32>,
    /// `GICC_CTLR`.
    pub gicc_ctlr: u32,
    /// `GICC_PMR`, as KVM gives it: the five upper bits.
    pub gicc_pmr: u32,
    /// `GICC_BPR`.
    pub gicc_bpr: u32,
    /// `GICC_ABPR`.
    pub gicc_abpr: u32,
    /// `GICC_APR<n>`.
    pub gicc_apr: Vec<u32>,
}

/// What every controller has for an interrupt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinesV1 {
    /// The group.
    pub igroupr: Vec<u32>,
    /// Whether it is let through.
    pub isenabler: Vec<u32>,
    /// Edge or level.
    pub icfgr: Vec<u32>,
    /// Whether it is pending: on a GICv3 without the level of its line.
    pub ispendr: Vec<u32>,
    /// Whether it is being served.
    pub isactiver: Vec<u32>,
    /// The priority.
    pub ipriorityr: Vec<u32>,
}

/// An interrupt translation service. Its tables are in guest memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItsStateV1 {
    /// `GITS_IIDR`: its revision is that of the tables.
    pub gits_iidr: u64,
    /// `GITS_CBASER`.
    pub gits_cbaser: u64,
    /// `GITS_CREADR`.
    pub gits_creadr: u64,
    /// `GITS_CWRITER`.
    pub gits_cwriter: u64,
    /// `GITS_BASER<n>`.
    pub gits_baser: Vec<u64>,
    /// `GITS_CTLR`.
    pub gits_ctlr: u64,
}

impl Versioned for ItsStateV1 {
    const KIND: &'static str = "gic-its";
    const VERSION: u16 = 1;
}
