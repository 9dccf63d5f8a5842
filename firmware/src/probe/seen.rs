//! What a guest reads in registers that a kernel leaves to the processor, whatever it
//! tells its user of them, if anything.

use kedge_hv::{GicVersion, HvError, Hypervisor, VcpuFeatures};
use kedge_ids::{Ppi, RegId, VcpuId};

use super::identity::CTR_EL0;
use super::{interrupts, scratch};
use crate::hex::Hex;
use crate::pmu::PmuEventSet;

const PMCEID0_EL0: RegId = RegId::system(3, 3, 9, 12, 6);
const PMCEID1_EL0: RegId = RegId::system(3, 3, 9, 12, 7);

/// What a guest reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// `CTR_EL0`: before Linux 6.11 the processor's own, which need not be what KVM's
    /// register has. Where cleaning the data cache is never needed, Linux sets IDC in its
    /// own copy (arch/arm64/kernel/cpufeature.c, `has_cache_idc`).
    pub(crate) ctr: Option<u64>,
    /// `PMCEID0_EL0` and `PMCEID1_EL0`, of vCPUs with performance monitors: in no list.
    pub(crate) events: Option<PmuEventSet>,
}

impl Seen {
    /// As a guest found it on a scratch machine, with performance monitors if there can
    /// be any.
    pub(crate) fn of_a_guest(hypervisor: &dyn Hypervisor) -> Result<Self, HvError> {
        let pmu = hypervisor.limits().features.contains(VcpuFeatures::PMU_V3);
        let vm = scratch::vm(hypervisor)?;
        let mut vcpu = vm.create_vcpu(VcpuId(0))?;
        if !pmu {
            vcpu.init(scratch::PLAIN)?;
            let [ctr, ..] = vcpu.read_as_guest(&[CTR_EL0])?[..] else { return Ok(Self::default()) };
            return Ok(Self { ctr, events: None });
        }
        vcpu.init(scratch::PLAIN | VcpuFeatures::PMU_V3)?;
        let v3 = vm.supports_gic(GicVersion::V3);
        let version = if v3 { GicVersion::V3 } else { GicVersion::V2 };
        let gic = vm.create_gic(&interrupts::config(version))?;
        gic.init()?;
        vcpu.init_pmu(Ppi::PMU)?;
        let found = vcpu.read_as_guest(&[CTR_EL0, PMCEID0_EL0, PMCEID1_EL0])?;
        let [ctr, pmceid0, pmceid1] = found[..] else { return Ok(Self::default()) };
        let events = pmceid0
            .zip(pmceid1)
            .map(|(pmceid0, pmceid1)| PmuEventSet { pmceid0: Hex(pmceid0), pmceid1: Hex(pmceid1) });
        Ok(Self { ctr, events })
    }

    /// What a guest reads in `id`, where it is something else than `told`.
    pub(crate) fn otherwise(&self, id: RegId, told: u64) -> Option<Hex> {
        self.ctr.filter(|ctr| id == CTR_EL0 && *ctr != told).map(Hex)
    }
}
