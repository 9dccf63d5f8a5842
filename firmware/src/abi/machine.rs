//! What a profile promises that no register shows.

use kedge_hv::GicVersion;
use serde::{Deserialize, Serialize};

use crate::hex::Hex;
use crate::pmu::PmuEventSet;

/// What is promised of the machine around the vCPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineAbi {
    /// Whether PSCI offers SYSTEM_SUSPEND; where absent, if the host can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_suspend: Option<bool>,
    /// Whether there is memory for stolen time; where absent, if the host can. Without
    /// it the functions that `std_hyp_bmap` opens answer that they are not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pv_time: Option<bool>,
    /// Ranges of SMCCC functions that KVM does not answer by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub smccc_filter: Vec<FilterRange>,
    /// The interrupt controller; where absent, as the machine asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gic: Option<GicVersion>,
    /// The revision in `GICD_IIDR`, bits 15:12; where absent, the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gicd_revision: Option<u32>,
    /// `GICD_TYPER2`; where absent, the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gicd_typer2: Option<Hex>,
    /// The timers' interrupts.
    #[serde(default)]
    pub timer_ppis: TimerPpis,
    /// The INTID of the performance monitors' interrupt.
    #[serde(default = "pmu_ppi")]
    pub pmu_ppi: u32,
    /// The events that the performance monitors of vCPUs with `pmu` count: a host counts
    /// these at least, and others of its are hidden. Where absent, the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmu_events: Option<PmuEventSet>,
    /// What the guest's clocks do while it does not run.
    #[serde(default)]
    pub counter: CounterPolicy,
    /// The bits of a guest physical address that every host must have; where absent, as
    /// many as the machine needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipa_bits: Option<u8>,
}

impl Default for MachineAbi {
    fn default() -> Self {
        Self {
            system_suspend: None,
            pv_time: None,
            smccc_filter: Vec::new(),
            gic: None,
            gicd_revision: None,
            gicd_typer2: None,
            timer_ppis: TimerPpis::default(),
            pmu_ppi: pmu_ppi(),
            pmu_events: None,
            counter: CounterPolicy::default(),
            ipa_bits: None,
        }
    }
}

const fn pmu_ppi() -> u32 {
    23
}

/// INTIDs of the timers' interrupts (Linux, Documentation/virt/kvm/devices/vcpu.rst, 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimerPpis {
    /// Of the virtual timer.
    pub virtual_timer: u32,
    /// Of the physical timer.
    pub physical_timer: u32,
}

impl Default for TimerPpis {
    fn default() -> Self {
        Self { virtual_timer: 27, physical_timer: 30 }
    }
}

/// What a guest's counters do while it is paused or saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CounterPolicy {
    /// They stand still: the guest does not notice.
    #[default]
    Stop,
    /// They go on.
    Advance,
}

/// A range of SMCCC function ids (Arm DEN0028, 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterRange {
    /// The first.
    pub base: Hex,
    /// How many.
    pub count: u32,
    /// Who answers them.
    pub action: FilterAction,
}

/// Who answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterAction {
    /// Nobody: NOT_SUPPORTED.
    Deny,
    /// kedge or the program that embeds it.
    Forward,
}
