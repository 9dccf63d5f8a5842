//! A model machine as its user sees it: memory, vCPUs, interrupt controller,
//! events.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use kedge_guest_memory::{GuestAddress, GuestMemoryRegion, RamRegion};
use kedge_hv::{
    Access, Gic, GicConfig, GicReg, GicVersion, HvError, SmcccRange, Vcpu, Vm, WritableMasks,
};
use kedge_ids::{Spi, VcpuId, u64_from};
use vmm_sys_util::epoll::{ControlOperation, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::machine::{Machine, identity, no_event};
use crate::refusal::Refusal;
use crate::registers::{Registers, offset_counters, restart_counters};
use crate::release::{Ability, EmptyRange, Rule, Scope};
use crate::state::{Doorbell, GicState, Irq, Slot, VcpuState, VmState, number};
use crate::vcpu::ModelVcpu;

/// The smallest page of an arm64 host, in bytes.
const PAGE: u64 = 4096;

/// The architecture's own calls, which no filter can touch: first and last.
const RESERVED: [(u32, u32); 2] = [(0x8000_0000, 0x8000_ffff), (0xc000_0000, 0xc000_ffff)];

/// A machine of the model.
#[derive(Debug)]
pub(crate) struct ModelVm {
    pub(crate) machine: Arc<Machine>,
}

impl ModelVm {
    /// Lets ID registers say which controller there is.
    fn tell_controller(&self, vm: &mut VmState, version: GicVersion) {
        let shared = &self.machine.shared;
        let Some(vcpu) = vm.vcpus.keys().next().copied() else { return };
        let mut registers =
            Registers { release: &shared.release, host: &shared.host, vm, vcpu, now: 0 };
        for (id, field, v3) in shared.release.gic_fields {
            let row = shared.release.row(*id);
            let value = if version == GicVersion::V3 { *v3 } else { 0 };
            let value = number(&registers.stored(row, *id)) & !field | value;
            registers.store(row, *id, &value.to_le_bytes());
        }
    }
}

impl Vm for ModelVm {
    fn supports_gic(&self, version: GicVersion) -> bool {
        self.machine.shared.gics.contains(&version)
    }

    fn supports_its(&self) -> bool {
        self.supports_gic(GicVersion::V3)
    }

    fn map_ram(&self, slot: u32, region: Arc<RamRegion>, access: Access) -> Result<(), HvError> {
        let mut vm = self.machine.lock();
        let new = Slot { region, access };
        let (start, end) = new.bounds();
        let limits = &self.machine.shared.host.limits;
        if slot >= limits.slots || new.region.len() > limits.slot_bytes {
            return self.machine.refuse(Refusal::SlotNumber);
        }
        if !start.is_multiple_of(PAGE) || !new.region.len().is_multiple_of(PAGE) {
            return self.machine.refuse(Refusal::SlotMisaligned);
        }
        if vm.slots.contains_key(&slot) {
            return self.machine.refuse(Refusal::SlotTwice);
        }
        let overlaps = |slot: &Slot| {
            let (other_start, other_end) = slot.bounds();
            start < other_end && other_start < end
        };
        if vm.slots.values().any(overlaps) {
            return self.machine.refuse(Refusal::SlotOverlap);
        }
        if end > 1 << vm.ipa_bits {
            return self.machine.refuse(Refusal::SlotBeyond);
        }
        vm.slots.insert(slot, new);
        Ok(())
    }

    fn create_vcpu(&self, id: VcpuId) -> Result<Box<dyn Vcpu>, HvError> {
        let mut vm = self.machine.lock();
        if vm.gic.as_ref().is_some_and(|gic| gic.ready) {
            return self.machine.refuse(Refusal::VcpuLate);
        }
        if id.0 >= self.machine.shared.host.limits.vcpus {
            return self.machine.refuse(Refusal::VcpuNumber);
        }
        if vm.vcpus.contains_key(&id.0) {
            return self.machine.refuse(Refusal::VcpuTwice);
        }
        let wake = EventFd::new(EFD_NONBLOCK).map_err(no_event)?;
        let waker = wake.try_clone().map_err(no_event)?;
        let program = self.machine.shared.program(self.machine.number, id);
        let mut vcpu = VcpuState::new(program, waker);
        let first = vm.vcpus.values().next();
        if let (Scope::Vm, Some(first)) = (self.machine.shared.release.timer_ppis, first) {
            vcpu.timers = first.timers;
        }
        vm.vcpus.insert(id.0, vcpu);
        restart_counters(&self.machine.shared.release, &mut vm, self.machine.shared.counter());
        Ok(Box::new(ModelVcpu::new(id, Arc::clone(&self.machine), wake)))
    }

    fn create_gic(&self, config: &GicConfig) -> Result<Box<dyn Gic>, HvError> {
        let mut vm = self.machine.lock();
        if !self.supports_gic(config.version()) {
            return self.machine.refuse(Refusal::GicVersion);
        }
        if vm.gic.is_some() {
            return self.machine.refuse(Refusal::GicTwice);
        }
        if vm.ran {
            return self.machine.refuse(Refusal::GicLate);
        }
        if vm.vcpus.len() > Machine::gic_vcpus(config.version()) {
            return self.machine.refuse(Refusal::GicCrowded);
        }
        // A controller that was refused an address stays: there is no way back.
        let placed = self.machine.check_gic(&vm, config);
        let revision = self.machine.shared.release.gic_revisions.last().copied().unwrap_or(0);
        vm.gic = Some(GicState { config: *config, ready: false, revision });
        placed?;
        self.tell_controller(&mut vm, config.version());
        Ok(Box::new(ModelGic { machine: Arc::clone(&self.machine) }))
    }

    fn connect_irq(&self, spi: Spi, trigger: &EventFd) -> Result<(), HvError> {
        let mut vm = self.machine.lock();
        let spis = vm.gic.as_ref().map(|gic| match gic.config {
            GicConfig::V2 { spis, .. } | GicConfig::V3 { spis, .. } => spis,
        });
        if spis.is_some_and(|spis| spi.offset() >= spis) {
            return self.machine.refuse(Refusal::IrqBeyond);
        }
        let identity = identity(trigger);
        if vm.irqs.iter().any(|irq| irq.identity == identity) {
            return self.machine.refuse(Refusal::IrqTwice);
        }
        let trigger = trigger.try_clone().map_err(no_event)?;
        let wanted = EpollEvent::new(EventSet::IN, u64_from(vm.irqs.len()));
        vm.triggers.ctl(ControlOperation::Add, trigger.as_raw_fd(), wanted).map_err(no_event)?;
        vm.irqs.push(Irq { spi, trigger, identity, pending: 0, raised: 0 });
        Ok(())
    }

    fn connect_doorbell(
        &self,
        address: GuestAddress,
        value: u32,
        event: &EventFd,
    ) -> Result<(), HvError> {
        let mut vm = self.machine.lock();
        if vm.doorbells.iter().any(|bell| bell.address == address.0 && bell.value == value) {
            return self.machine.refuse(Refusal::DoorbellTwice);
        }
        let identity = identity(event);
        let event = event.try_clone().map_err(no_event)?;
        vm.doorbells.push(Doorbell { address: address.0, value, event, identity, rung: 0 });
        Ok(())
    }

    fn disconnect_doorbell(
        &self,
        address: GuestAddress,
        value: u32,
        event: &EventFd,
    ) -> Result<(), HvError> {
        let mut vm = self.machine.lock();
        let found = vm.doorbells.iter().position(|bell| {
            bell.address == address.0 && bell.value == value && bell.identity == identity(event)
        });
        match found {
            Some(index) => {
                vm.doorbells.remove(index);
                Ok(())
            }
            None => self.machine.refuse(Refusal::DoorbellMissing),
        }
    }

    fn enable_system_suspend(&self) -> Result<(), HvError> {
        match self.machine.shared.release.system_suspend {
            Ability::Present => {
                self.machine.lock().suspend = Ability::Present;
                Ok(())
            }
            Ability::Absent => self.machine.refuse(Refusal::SystemSuspend),
        }
    }

    fn supports_smccc_filter(&self) -> bool {
        self.machine.shared.release.smccc_filter == Ability::Present
    }

    fn filter_smccc(&self, range: &SmcccRange) -> Result<(), HvError> {
        let mut vm = self.machine.lock();
        if !self.supports_smccc_filter() {
            return self.machine.refuse(Refusal::NoFilter);
        }
        let release = &self.machine.shared.release;
        let last = range.base.wrapping_add(range.count).wrapping_sub(1);
        let nothing = range.count == 0 && release.empty_range == EmptyRange::Nothing;
        if last < range.base || nothing {
            return self.machine.refuse(Refusal::FilterRange);
        }
        if vm.ran {
            return self.machine.refuse(Refusal::FilterLate);
        }
        let overlaps = |(first, end): (u32, u32)| range.base <= end && first <= last;
        let said = vm.filter.iter().map(|said| (said.base, said.base + (said.count - 1)));
        if RESERVED.into_iter().chain(said).any(overlaps) {
            return self.machine.refuse(Refusal::FilterOverlap);
        }
        vm.filter.push(*range);
        Ok(())
    }

    fn set_counter_offset(&self, offset: u64) -> Result<(), HvError> {
        let release = &self.machine.shared.release;
        match release.counter_offset {
            Ability::Present => {
                offset_counters(release, &mut self.machine.lock(), offset);
                Ok(())
            }
            Ability::Absent => self.machine.refuse(Refusal::NoCounterOffset),
        }
    }

    fn writable_id_masks(&self) -> Result<Option<WritableMasks>, HvError> {
        let shared = &self.machine.shared;
        let said = shared.release.id_masks == Ability::Present;
        let own = self.machine.lock().imp_ids == Ability::Present;
        let mask = |id| match shared.release.row(id).rule {
            Rule::ImpId(mask) if own => mask,
            _ => shared.host.mask(id),
        };
        Ok(said.then(|| WritableMasks::of(mask)))
    }
}

/// The interrupt controller of a model machine.
struct ModelGic {
    machine: Arc<Machine>,
}

impl ModelGic {
    /// Whether there is this register, and it can be reached.
    fn check(&self, vm: &mut VmState, reg: GicReg) -> Result<(), HvError> {
        let Some(gic) = &mut vm.gic else { return self.machine.refuse(Refusal::NoGicRegister) };
        let version = gic.config.version();
        let known = match reg {
            GicReg::Distributor { offset } => version == GicVersion::V3 && offset == GICD_IIDR,
            GicReg::DistributorV2 { offset, .. } => {
                version == GicVersion::V2 && offset == GICD_IIDR
            }
            _ => false,
        };
        // Reaching for a register of a GICv2 makes it ready.
        gic.ready |= known && version == GicVersion::V2;
        let ready = gic.ready || self.machine.shared.release.early_revision == Ability::Present;
        match (known, ready) {
            (false, _) => self.machine.refuse(Refusal::NoGicRegister),
            (true, false) => self.machine.refuse(Refusal::GicRegisterEarly),
            (true, true) => Ok(()),
        }
    }
}

/// The one register that the model has of the controllers.
const GICD_IIDR: u32 = 0x8;
/// `GICD_IIDR`: KVM's product, 'K', and Arm.
const PRODUCT: u64 = 0x4b00_043b;
const REVISION_SHIFT: u32 = 12;

impl Gic for ModelGic {
    fn version(&self) -> GicVersion {
        self.machine.lock().gic.as_ref().map_or(GicVersion::V3, |gic| gic.config.version())
    }

    fn reg(&self, reg: GicReg) -> Result<u64, HvError> {
        let mut vm = self.machine.lock();
        self.check(&mut vm, reg)?;
        let revision = vm.gic.as_ref().map_or(0, |gic| gic.revision);
        Ok(PRODUCT | u64::from(revision) << REVISION_SHIFT)
    }

    fn set_reg(&self, reg: GicReg, value: u64) -> Result<(), HvError> {
        let mut vm = self.machine.lock();
        self.check(&mut vm, reg)?;
        let revisions = self.machine.shared.release.gic_revisions.iter();
        let mut values = revisions.map(|r| (*r, PRODUCT | u64::from(*r) << REVISION_SHIFT));
        let chosen = values.find(|(_, iidr)| *iidr == value & 0xffff_ffff);
        match (&mut vm.gic, chosen) {
            (Some(gic), Some((revision, _))) => {
                gic.revision = revision;
                Ok(())
            }
            _ => self.machine.refuse(Refusal::GicRegisterValue),
        }
    }

    fn init(&self) -> Result<(), HvError> {
        let mut vm = self.machine.lock();
        if vm.dead {
            return self.machine.refuse(Refusal::Dead);
        }
        if let Some(gic) = &mut vm.gic {
            gic.ready = true;
        }
        Ok(())
    }
}
