//! The model, watched: what a probe must not do is noted, and registers can be made to
//! take one write per machine only.

mod hand_on;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use hand_on::hand_on_to;
use kedge_guest_memory::{GuestAddress, RamRegion};
use kedge_hv::{
    Abilities, Access, DirtyLog, Exit, Gic, GicConfig, GicVersion, HvError, Hypervisor, Limits,
    Msi, MsiFate, SmcccRange, Vcpu, VcpuReg, Vm, VmConfig, WritableMasks,
};
use kedge_hv_model::{ModelHypervisor, Release};
use kedge_ids::{RegId, Ring, Spi, VcpuId};
use vmm_sys_util::eventfd::EventFd;

/// What was noted.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: String) {
        self.0.lock().unwrap().push(note);
    }
}

/// The model, watched.
pub(crate) struct Watched {
    model: ModelHypervisor,
    /// Takes one write per machine.
    once: Option<RegId>,
    notes: Notes,
    writes: Writes,
}

/// Every write to a register: through which vCPU, to which, what.
type Writes = Arc<Mutex<Vec<(u32, RegId, Vec<u8>)>>>;

impl Watched {
    pub(crate) fn new(release: &Release, once: Option<RegId>) -> Self {
        let model = ModelHypervisor::new(release).unwrap();
        Self { model, once, notes: Notes::default(), writes: Arc::default() }
    }

    /// Every write to a register, in order: through which vCPU, to which, what.
    pub(crate) fn writes(&self) -> Vec<(u32, RegId, Vec<u8>)> {
        self.writes.lock().unwrap().clone()
    }

    /// All that was run, and every write to a register that was not listed.
    pub(crate) fn misdeeds(&self) -> Vec<String> {
        self.notes.0.lock().unwrap().clone()
    }
}

impl Hypervisor for Watched {
    fn limits(&self) -> Limits {
        self.model.limits()
    }

    fn abilities(&self) -> Abilities {
        self.model.abilities()
    }

    fn create_vm(&self, config: &VmConfig) -> Result<Arc<dyn Vm>, HvError> {
        let vm = self.model.create_vm(config)?;
        let written = Arc::default();
        let (notes, writes) = (self.notes.clone(), Arc::clone(&self.writes));
        Ok(Arc::new(WatchedVm { vm, once: self.once, written, notes, writes }))
    }
}

struct WatchedVm {
    vm: Arc<dyn Vm>,
    once: Option<RegId>,
    written: Arc<Mutex<BTreeSet<RegId>>>,
    notes: Notes,
    writes: Writes,
}

impl Vm for WatchedVm {
    fn supports_gic(&self, version: GicVersion) -> bool {
        self.vm.supports_gic(version)
    }
    fn supports_its(&self) -> bool {
        self.vm.supports_its()
    }
    fn map_ram(&self, slot: u32, region: Arc<RamRegion>, access: Access) -> Result<(), HvError> {
        self.vm.map_ram(slot, region, access)
    }
    fn set_dirty_log(&self, slot: u32, log: DirtyLog) -> Result<(), HvError> {
        self.vm.set_dirty_log(slot, log)
    }
    fn take_dirty_log(&self, slot: u32) -> Result<Vec<u64>, HvError> {
        self.vm.take_dirty_log(slot)
    }
    fn create_vcpu(&self, id: VcpuId) -> Result<Box<dyn Vcpu>, HvError> {
        let vcpu = self.vm.create_vcpu(id)?;
        let (written, notes) = (Arc::clone(&self.written), self.notes.clone());
        let writes = Arc::clone(&self.writes);
        Ok(Box::new(WatchedVcpu { vcpu, once: self.once, written, notes, writes }))
    }
    fn create_gic(&self, config: &GicConfig) -> Result<Box<dyn Gic>, HvError> {
        self.vm.create_gic(config)
    }
    fn connect_irq(&self, spi: Spi, trigger: &EventFd) -> Result<(), HvError> {
        self.vm.connect_irq(spi, trigger)
    }
    fn pulse_irq(&self, spi: Spi) -> Result<(), HvError> {
        self.vm.pulse_irq(spi)
    }
    fn signal_msi(&self, message: Msi) -> Result<MsiFate, HvError> {
        self.vm.signal_msi(message)
    }
    fn connect_doorbell(
        &self,
        address: GuestAddress,
        ring: Ring,
        event: &EventFd,
    ) -> Result<(), HvError> {
        self.vm.connect_doorbell(address, ring, event)
    }
    fn disconnect_doorbell(
        &self,
        address: GuestAddress,
        ring: Ring,
        event: &EventFd,
    ) -> Result<(), HvError> {
        self.vm.disconnect_doorbell(address, ring, event)
    }
    fn enable_system_suspend(&self) -> Result<(), HvError> {
        self.vm.enable_system_suspend()
    }
    fn supports_smccc_filter(&self) -> bool {
        self.vm.supports_smccc_filter()
    }
    fn filter_smccc(&self, range: &SmcccRange) -> Result<(), HvError> {
        self.vm.filter_smccc(range)
    }
    fn set_counter_offset(&self, offset: u64) -> Result<(), HvError> {
        self.vm.set_counter_offset(offset)
    }
    fn writable_id_masks(&self) -> Result<Option<WritableMasks>, HvError> {
        self.vm.writable_id_masks()
    }
}

struct WatchedVcpu {
    vcpu: Box<dyn Vcpu>,
    once: Option<RegId>,
    written: Arc<Mutex<BTreeSet<RegId>>>,
    notes: Notes,
    writes: Writes,
}

impl Vcpu for WatchedVcpu {
    hand_on_to!(vcpu);

    fn reg_list(&self) -> Result<Vec<RegId>, HvError> {
        self.vcpu.reg_list()
    }
    fn reg(&self, id: RegId) -> Result<VcpuReg, HvError> {
        self.vcpu.reg(id)
    }
    fn set_reg(&self, id: RegId, value: &[u8]) -> Result<(), HvError> {
        const EINVAL: i32 = 22;
        self.writes.lock().unwrap().push((self.id().0, id, value.to_vec()));
        if !self.reg_list()?.contains(&id) {
            self.notes.add(format!("{id} was written and is not listed"));
        }
        if self.once == Some(id) && !self.written.lock().unwrap().insert(id) {
            return Err(HvError::new("write a register again", EINVAL));
        }
        self.vcpu.set_reg(id, value)
    }
    fn complete_access(&mut self) -> Result<(), HvError> {
        self.notes.add("a vCPU was entered".to_owned());
        self.vcpu.complete_access()
    }
    fn run(&mut self) -> Result<Exit<'_>, HvError> {
        self.notes.add("a vCPU was run".to_owned());
        self.vcpu.run()
    }
}
