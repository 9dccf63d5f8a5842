//! Machines of which nothing has run, on a host that is watched.

use std::sync::Arc;

use kedge_firmware::{BirthError, Born, Firmware, GuestAbi, Newborn, RegValue, settle};
use kedge_guest_memory::GuestAddress;
use kedge_hv::{Gic, GicConfig, Hypervisor, Vcpu, VcpuFeatures, Vm, VmConfig};
use kedge_hv_model::Release;
use kedge_ids::{RegId, VcpuId};

use crate::watched::Watched;

/// A machine of which nothing has run.
pub(crate) struct Nursery {
    pub(crate) hypervisor: Watched,
    pub(crate) vm: Arc<dyn Vm>,
    pub(crate) gic: Box<dyn Gic>,
    pub(crate) vcpus: Vec<Box<dyn Vcpu>>,
}

impl Nursery {
    pub(crate) fn new(release: &Release, vcpus: u32) -> Self {
        Self::with(release, vcpus, &VmConfig::new(40))
    }

    pub(crate) fn with(release: &Release, vcpus: u32, config: &VmConfig) -> Self {
        let hypervisor = Watched::new(release, None);
        let vm = hypervisor.create_vm(config).unwrap();
        let create = |id| {
            let mut vcpu = vm.create_vcpu(VcpuId(id)).unwrap();
            vcpu.init(VcpuFeatures::PSCI_0_2).unwrap();
            vcpu
        };
        let vcpus = (0..vcpus).map(create).collect();
        let gic = vm.create_gic(&GicConfig::V3 {
            distributor: GuestAddress(0x800_0000),
            redistributors: GuestAddress(0x80a_0000),
            its: None,
            spis: 32,
        });
        let gic = gic.unwrap();
        gic.init().unwrap();
        Self { hypervisor, vm, gic, vcpus }
    }

    pub(crate) fn with_newborn<T>(&self, act: impl FnOnce(&Newborn<'_>) -> T) -> T {
        let vcpus: Vec<&dyn Vcpu> = self.vcpus.iter().map(|vcpu| vcpu.as_ref()).collect();
        act(&Newborn {
            hypervisor: &self.hypervisor,
            vm: self.vm.as_ref(),
            gic: Some(self.gic.as_ref()),
            vcpus: &vcpus,
            services: &[],
            notes: None,
        })
    }

    pub(crate) fn settle(&self, abi: &GuestAbi) -> Result<Born, BirthError> {
        self.with_newborn(|newborn| settle(newborn, abi))
    }

    /// The writes as `vcpu register value`.
    pub(crate) fn writes(&self) -> Vec<String> {
        let text = |(vcpu, id, value): (u32, RegId, Vec<u8>)| {
            let register = Firmware::of(id).map_or(id.to_string(), |firmware| firmware.to_string());
            format!("{vcpu} {register} {:#x}", RegValue(value).as_u64().unwrap_or(0))
        };
        self.hypervisor.writes().into_iter().map(text).collect()
    }
}
