//! A hypervisor that refuses one of the calls that are made of it, and notes what is
//! done to its guests' time and accesses.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kedge_firmware::{PHYSICAL_COUNTER, VIRTUAL_COUNTER};

use kedge_guest_memory::{GuestAddress, RamRegion};
use kedge_hv::{
    Abilities, Access, DirtyLog, Exit, Gic, GicConfig, GicReg, GicVersion, HvError, Hypervisor,
    Kick, Limits, MpState, Msi, MsiFate, SError, SmcccRange, Timer, Vcpu, VcpuFeatures, VcpuReg,
    Vm, VmConfig, WritableMasks,
};
use kedge_hv_model::ModelHypervisor;
use kedge_ids::{Ppi, RegId, Ring, Spi, VcpuId};
use vmm_sys_util::eventfd::EventFd;

const ENOMEM: i32 = 12;

/// A change of a guest's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClockChange {
    /// The machine's distance from its host's.
    Offset(u64),
    /// A counter was written, through this vCPU.
    Written(VcpuId, RegId),
}

/// How many calls were made, and which of them is refused; what was noted.
struct Count {
    calls: AtomicUsize,
    maps: AtomicUsize,
    refused: usize,
    clock: Mutex<Vec<ClockChange>>,
    /// vCPUs that left their guest in the middle of an access.
    open: AtomicUsize,
}

impl Count {
    fn call(&self) -> Result<(), HvError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        if number == self.refused { Err(HvError::new("do it", ENOMEM)) } else { Ok(()) }
    }
}

/// The model, but for one call.
pub(crate) struct Faulty {
    model: Arc<ModelHypervisor>,
    count: Arc<Count>,
}

impl Faulty {
    /// Refuses call number `refused`, from 0.
    pub(crate) fn new(model: impl Into<Arc<ModelHypervisor>>, refused: usize) -> Self {
        Self {
            model: model.into(),
            count: Arc::new(Count {
                calls: AtomicUsize::new(0),
                maps: AtomicUsize::new(0),
                refused,
                clock: Mutex::default(),
                open: AtomicUsize::new(0),
            }),
        }
    }

    /// What was done to the guests' counters.
    pub(crate) fn clock_changes(&self) -> Vec<ClockChange> {
        self.count.clock.lock().unwrap().clone()
    }

    /// vCPUs that are in the middle of an access.
    pub(crate) fn open_accesses(&self) -> usize {
        self.count.open.load(Ordering::SeqCst)
    }

    /// Memory slots that were mapped so far.
    pub(crate) fn maps(&self) -> usize {
        self.count.maps.load(Ordering::Relaxed)
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> usize {
        self.count.calls.load(Ordering::Relaxed)
    }
}

impl Hypervisor for Faulty {
    fn limits(&self) -> Limits {
        self.model.limits()
    }

    fn abilities(&self) -> Abilities {
        self.model.abilities()
    }

    fn create_vm(&self, config: &VmConfig) -> Result<Arc<dyn Vm>, HvError> {
        self.count.call()?;
        let vm = self.model.create_vm(config)?;
        Ok(Arc::new(FaultyVm { vm, count: Arc::clone(&self.count) }))
    }
}

struct FaultyVm {
    vm: Arc<dyn Vm>,
    count: Arc<Count>,
}

impl Vm for FaultyVm {
    fn supports_gic(&self, version: GicVersion) -> bool {
        self.vm.supports_gic(version)
    }

    fn supports_its(&self) -> bool {
        self.vm.supports_its()
    }

    fn map_ram(&self, slot: u32, region: Arc<RamRegion>, access: Access) -> Result<(), HvError> {
        self.count.maps.fetch_add(1, Ordering::Relaxed);
        self.count.call()?;
        self.vm.map_ram(slot, region, access)
    }

    fn set_dirty_log(&self, slot: u32, log: DirtyLog) -> Result<(), HvError> {
        self.count.call()?;
        self.vm.set_dirty_log(slot, log)
    }

    fn take_dirty_log(&self, slot: u32) -> Result<Vec<u64>, HvError> {
        self.count.call()?;
        self.vm.take_dirty_log(slot)
    }

    fn create_vcpu(&self, id: VcpuId) -> Result<Box<dyn Vcpu>, HvError> {
        self.count.call()?;
        let vcpu = self.vm.create_vcpu(id)?;
        let (count, kicked) = (Arc::clone(&self.count), Arc::default());
        Ok(Box::new(FaultyVcpu { vcpu, count, kicked, open: false }))
    }

    fn create_gic(&self, config: &GicConfig) -> Result<Box<dyn Gic>, HvError> {
        self.count.call()?;
        let gic = self.vm.create_gic(config)?;
        Ok(Box::new(FaultyGic { gic, count: Arc::clone(&self.count) }))
    }

    fn connect_irq(&self, spi: Spi, trigger: &EventFd) -> Result<(), HvError> {
        self.count.call()?;
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
        self.count.call()?;
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
        self.count.call()?;
        self.vm.enable_system_suspend()
    }

    fn supports_smccc_filter(&self) -> bool {
        self.vm.supports_smccc_filter()
    }

    fn filter_smccc(&self, range: &SmcccRange) -> Result<(), HvError> {
        self.count.call()?;
        self.vm.filter_smccc(range)
    }

    fn set_counter_offset(&self, offset: u64) -> Result<(), HvError> {
        self.count.call()?;
        self.count.clock.lock().unwrap().push(ClockChange::Offset(offset));
        self.vm.set_counter_offset(offset)
    }

    fn writable_id_masks(&self) -> Result<Option<WritableMasks>, HvError> {
        self.count.call()?;
        self.vm.writable_id_masks()
    }
}

struct FaultyGic {
    gic: Box<dyn Gic>,
    count: Arc<Count>,
}

impl Gic for FaultyGic {
    fn version(&self) -> GicVersion {
        self.gic.version()
    }

    fn reg(&self, reg: GicReg) -> Result<u64, HvError> {
        self.count.call()?;
        self.gic.reg(reg)
    }

    fn set_reg(&self, reg: GicReg, value: u64) -> Result<(), HvError> {
        self.count.call()?;
        self.gic.set_reg(reg, value)
    }

    fn init(&self) -> Result<(), HvError> {
        self.count.call()?;
        self.gic.init()
    }

    fn save_pending_tables(&self) -> Result<(), HvError> {
        self.count.call()?;
        self.gic.save_pending_tables()
    }

    fn save_its_tables(&self) -> Result<(), HvError> {
        self.count.call()?;
        self.gic.save_its_tables()
    }

    fn restore_its_tables(&self) -> Result<(), HvError> {
        self.count.call()?;
        self.gic.restore_its_tables()
    }

    fn reset_its(&self) -> Result<(), HvError> {
        self.count.call()?;
        self.gic.reset_its()
    }
}

/// Refuses what is called while a machine is built; runs as the model does, but for a
/// kick: that is noticed before the last access is completed.
struct FaultyVcpu {
    vcpu: Box<dyn Vcpu>,
    count: Arc<Count>,
    kicked: Arc<AtomicBool>,
    open: bool,
}

impl FaultyVcpu {
    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            self.count.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

struct FaultyKick {
    kick: Box<dyn Kick>,
    kicked: Arc<AtomicBool>,
}

impl Kick for FaultyKick {
    fn kick(&self) {
        self.kicked.store(true, Ordering::SeqCst);
        self.kick.kick();
    }
}

impl Vcpu for FaultyVcpu {
    fn id(&self) -> VcpuId {
        self.vcpu.id()
    }

    fn init(&mut self, features: VcpuFeatures) -> Result<(), HvError> {
        self.count.call()?;
        self.vcpu.init(features)
    }

    fn finalize_sve(&mut self) -> Result<(), HvError> {
        self.count.call()?;
        self.vcpu.finalize_sve()
    }

    fn reg_list(&self) -> Result<Vec<RegId>, HvError> {
        self.vcpu.reg_list()
    }

    fn reg(&self, id: RegId) -> Result<VcpuReg, HvError> {
        self.count.call()?;
        self.vcpu.reg(id)
    }

    fn set_reg(&self, id: RegId, value: &[u8]) -> Result<(), HvError> {
        self.count.call()?;
        if id == VIRTUAL_COUNTER || id == PHYSICAL_COUNTER {
            self.count.clock.lock().unwrap().push(ClockChange::Written(self.id(), id));
        }
        self.vcpu.set_reg(id, value)
    }

    fn mp_state(&self) -> Result<MpState, HvError> {
        self.vcpu.mp_state()
    }

    fn set_mp_state(&self, state: MpState) -> Result<(), HvError> {
        self.vcpu.set_mp_state(state)
    }

    fn init_pmu(&self, irq: Ppi) -> Result<(), HvError> {
        self.count.call()?;
        self.vcpu.init_pmu(irq)
    }

    fn hide_pmu_events(&self, events: kedge_hv::PmuEvents) -> Result<(), HvError> {
        self.count.call()?;
        self.vcpu.hide_pmu_events(events)
    }

    fn read_as_guest(&mut self, ids: &[RegId]) -> Result<Vec<Option<u64>>, HvError> {
        self.count.call()?;
        self.vcpu.read_as_guest(ids)
    }

    fn inject_external_abort(&mut self) -> Result<(), HvError> {
        self.vcpu.inject_external_abort()
    }

    fn set_pv_time(&self, address: GuestAddress) -> Result<(), HvError> {
        self.count.call()?;
        self.vcpu.set_pv_time(address)
    }

    fn pv_time(&self) -> Result<Option<GuestAddress>, HvError> {
        self.vcpu.pv_time()
    }

    fn set_timer_ppi(&self, timer: Timer, ppi: Ppi) -> Result<(), HvError> {
        self.count.call()?;
        self.vcpu.set_timer_ppi(timer, ppi)
    }

    fn serror(&self) -> Result<Option<SError>, HvError> {
        self.vcpu.serror()
    }

    fn set_serror(&self, serror: SError) -> Result<(), HvError> {
        self.count.call()?;
        self.vcpu.set_serror(serror)
    }

    fn has_run(&self) -> bool {
        self.vcpu.has_run()
    }

    fn complete_access(&mut self) -> Result<(), HvError> {
        self.close();
        self.vcpu.complete_access()
    }

    fn kicker(&mut self) -> Result<Box<dyn Kick>, HvError> {
        self.count.call()?;
        let (kick, kicked) = (self.vcpu.kicker()?, Arc::clone(&self.kicked));
        Ok(Box::new(FaultyKick { kick, kicked }))
    }

    fn run(&mut self) -> Result<Exit<'_>, HvError> {
        if self.kicked.swap(false, Ordering::SeqCst) {
            // It is interrupted as KVM is: with nothing half done.
            self.complete_access()?;
            return Ok(Exit::Interrupted);
        }
        self.close();
        let exit = self.vcpu.run()?;
        if matches!(exit, Exit::MmioRead { .. } | Exit::MmioWrite { .. }) {
            self.open = true;
            self.count.open.fetch_add(1, Ordering::SeqCst);
        }
        Ok(exit)
    }
}
