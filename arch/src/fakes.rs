//! Stand-ins for a hypervisor's objects, for tests: they hold what this crate
//! asks of them and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kedge_guest_memory::{GuestAddress, RamRegion};
use kedge_hv::{
    Access, DirtyLog, Exit, Gic, GicConfig, GicVersion, HvError, Kick, MpState, Msi, MsiFate,
    SError, SmcccRange, Timer, Vcpu, VcpuFeatures, VcpuReg, Vm, WritableMasks,
};
use kedge_ids::{Ppi, RegId, Ring, Spi, VcpuId};
use vmm_sys_util::eventfd::EventFd;

fn absent() -> HvError {
    HvError::new("do what the stand-in cannot", 38)
}

/// A host with these interrupt controllers.
pub(crate) struct FakeVm {
    pub(crate) gics: Vec<GicVersion>,
    pub(crate) its: bool,
}

impl Vm for FakeVm {
    fn supports_gic(&self, version: GicVersion) -> bool {
        self.gics.contains(&version)
    }
    fn supports_its(&self) -> bool {
        self.its
    }
    fn map_ram(&self, _: u32, _: Arc<RamRegion>, _: Access) -> Result<(), HvError> {
        Err(absent())
    }
    fn set_dirty_log(&self, _: u32, _: DirtyLog) -> Result<(), HvError> {
        Err(absent())
    }
    fn take_dirty_log(&self, _: u32) -> Result<Vec<u64>, HvError> {
        Err(absent())
    }
    fn create_vcpu(&self, _: VcpuId) -> Result<Box<dyn Vcpu>, HvError> {
        Err(absent())
    }
    fn create_gic(&self, _: &GicConfig) -> Result<Box<dyn Gic>, HvError> {
        Err(absent())
    }
    fn connect_irq(&self, _: Spi, _: &EventFd) -> Result<(), HvError> {
        Err(absent())
    }
    fn pulse_irq(&self, _: Spi) -> Result<(), HvError> {
        Err(absent())
    }
    fn signal_msi(&self, _: Msi) -> Result<MsiFate, HvError> {
        Err(absent())
    }
    fn connect_doorbell(&self, _: GuestAddress, _: Ring, _: &EventFd) -> Result<(), HvError> {
        Err(absent())
    }
    fn disconnect_doorbell(&self, _: GuestAddress, _: Ring, _: &EventFd) -> Result<(), HvError> {
        Err(absent())
    }
    fn enable_system_suspend(&self) -> Result<(), HvError> {
        Err(absent())
    }
    fn supports_smccc_filter(&self) -> bool {
        false
    }
    fn filter_smccc(&self, _: &SmcccRange) -> Result<(), HvError> {
        Err(absent())
    }
    fn set_counter_offset(&self, _: u64) -> Result<(), HvError> {
        Err(absent())
    }
    fn writable_id_masks(&self) -> Result<Option<WritableMasks>, HvError> {
        Ok(None)
    }
}

/// A vCPU of a host whose newest PSCI version has the register value `newest`.
pub(crate) struct FakeVcpu {
    newest: u64,
    registers: Mutex<BTreeMap<RegId, u64>>,
}

impl FakeVcpu {
    pub(crate) fn new(newest: u64) -> Self {
        let registers = BTreeMap::from([(RegId::PSCI_VERSION, newest)]);
        Self { newest, registers: Mutex::new(registers) }
    }

    pub(crate) fn registers(&self) -> Vec<(RegId, u64)> {
        self.registers.lock().unwrap().iter().map(|(id, value)| (*id, *value)).collect()
    }
}

impl Vcpu for FakeVcpu {
    fn id(&self) -> VcpuId {
        VcpuId(0)
    }
    fn init(&mut self, _: VcpuFeatures) -> Result<(), HvError> {
        Err(absent())
    }
    fn finalize_sve(&mut self) -> Result<(), HvError> {
        Err(absent())
    }
    fn reg_list(&self) -> Result<Vec<RegId>, HvError> {
        Ok(self.registers.lock().unwrap().keys().copied().collect())
    }
    fn reg(&self, id: RegId) -> Result<VcpuReg, HvError> {
        let registers = self.registers.lock().unwrap();
        registers.get(&id).map(|value| value.to_le_bytes().to_vec()).ok_or_else(absent)
    }
    fn set_reg(&self, id: RegId, value: &[u8]) -> Result<(), HvError> {
        let value = u64::from_le_bytes(value.try_into().unwrap());
        if id == RegId::PSCI_VERSION && value > self.newest {
            return Err(HvError::new("write a register", 22));
        }
        self.registers.lock().unwrap().insert(id, value);
        Ok(())
    }
    fn mp_state(&self) -> Result<MpState, HvError> {
        Err(absent())
    }
    fn set_mp_state(&self, _: MpState) -> Result<(), HvError> {
        Err(absent())
    }
    fn hide_pmu_events(&self, _: kedge_hv::PmuEvents) -> Result<(), HvError> {
        Err(absent())
    }
    fn read_as_guest(&mut self, _: &[RegId]) -> Result<Vec<Option<u64>>, HvError> {
        Err(absent())
    }
    fn init_pmu(&self, _: Ppi) -> Result<(), HvError> {
        Err(absent())
    }
    fn inject_external_abort(&mut self) -> Result<(), HvError> {
        Err(absent())
    }
    fn set_pv_time(&self, _: GuestAddress) -> Result<(), HvError> {
        Err(absent())
    }
    fn pv_time(&self) -> Result<Option<GuestAddress>, HvError> {
        Err(absent())
    }
    fn set_timer_ppi(&self, _: Timer, _: Ppi) -> Result<(), HvError> {
        Err(absent())
    }
    fn serror(&self) -> Result<Option<SError>, HvError> {
        Err(absent())
    }
    fn set_serror(&self, _: SError) -> Result<(), HvError> {
        Err(absent())
    }
    fn has_run(&self) -> bool {
        false
    }
    fn complete_access(&mut self) -> Result<(), HvError> {
        Err(absent())
    }
    fn kicker(&mut self) -> Result<Box<dyn Kick>, HvError> {
        Err(absent())
    }
    fn run(&mut self) -> Result<Exit<'_>, HvError> {
        Err(absent())
    }
}
