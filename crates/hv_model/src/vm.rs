//! A model machine as its user sees it: memory, vCPUs, interrupt controller,
//! events.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use kedge_guest_memory::{GuestAddress, GuestMemoryRegion, RamRegion};
use kedge_hv::{
    Access, DirtyLog, Gic, GicConfig, GicVersion, HvError, Msi, MsiFate, SmcccRange, Vcpu, Vm,
    WritableMasks,
};
use kedge_ids::{Ring, Spi, VcpuId, u64_from};
use vmm_sys_util::epoll::{ControlOperation, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::gic::{GicState, ITS_SIZE, Its, ModelGic};
use crate::machine::{Machine, identity, no_event};
use crate::memory::Slot;
use crate::refusal::Refusal;
use crate::registers::{Registers, offset_counters, restart_counters};
use crate::release::{Ability, EmptyRange, Rule, Scope};
use crate::state::{Doorbell, Irq, VcpuState, VmState, number};
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
        let new = Slot::new(region, access);
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

    fn set_dirty_log(&self, slot: u32, log: DirtyLog) -> Result<(), HvError> {
        match self.machine.lock().slots.get_mut(&slot) {
            Some(slot) => {
                slot.set_log(log);
                Ok(())
            }
            None => self.machine.refuse(Refusal::NoSlot),
        }
    }

    fn take_dirty_log(&self, slot: u32) -> Result<Vec<u64>, HvError> {
        let log = self.machine.lock().slots.get_mut(&slot).and_then(Slot::take_log);
        log.map_or_else(|| self.machine.refuse(Refusal::NoDirtyLog), Ok)
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
        vm.gic = Some(GicState::new(*config, revision));
        placed?;
        self.tell_controller(&mut vm, config.version());
        Ok(Box::new(ModelGic::new(Arc::clone(&self.machine))))
    }

    fn connect_irq(&self, spi: Spi, trigger: &EventFd) -> Result<(), HvError> {
        let mut vm = self.machine.lock();
        if vm.gic.as_ref().is_some_and(|gic| !gic.has(spi)) {
            return self.machine.refuse(Refusal::IrqBeyond);
        }
        let identity = identity(trigger);
        let is_it = |irq: &Irq| irq.trigger.as_ref().is_some_and(|(_, its)| *its == identity);
        if vm.irqs.iter().any(is_it) {
            return self.machine.refuse(Refusal::IrqTwice);
        }
        let trigger = trigger.try_clone().map_err(no_event)?;
        let wanted = EpollEvent::new(EventSet::IN, u64_from(vm.irqs.len()));
        vm.triggers.ctl(ControlOperation::Add, trigger.as_raw_fd(), wanted).map_err(no_event)?;
        vm.irqs.push(Irq { spi, trigger: Some((trigger, identity)), pending: 0, raised: 0 });
        Ok(())
    }

    fn pulse_irq(&self, spi: Spi) -> Result<(), HvError> {
        let mut vm = self.machine.lock();
        let Some(gic) = &vm.gic else { return self.machine.refuse(Refusal::PulseWithoutGic) };
        if !gic.ready && matches!(gic.config, GicConfig::V3 { .. }) {
            return self.machine.refuse(Refusal::PulseEarly);
        }
        if !gic.has(spi) {
            return self.machine.refuse(Refusal::PulseBeyond);
        }
        let is_it = |irq: &Irq| irq.spi == spi && irq.trigger.is_none();
        let index = vm.irqs.iter().position(is_it).unwrap_or_else(|| {
            vm.irqs.push(Irq { spi, trigger: None, pending: 0, raised: 0 });
            vm.irqs.len() - 1
        });
        vm.irqs[index].raise();
        vm.wake_all();
        Ok(())
    }

    fn signal_msi(&self, message: Msi) -> Result<MsiFate, HvError> {
        let mut vm = self.machine.lock();
        let Some(gic) = &vm.gic else { return self.machine.refuse(Refusal::MsiWithoutGic) };
        let GicConfig::V3 { its: Some(start), .. } = gic.config else {
            return self.machine.refuse(Refusal::MsiWithoutIts);
        };
        let enabled = gic.its.as_ref().is_some_and(Its::is_enabled);
        if !(start.0..start.0 + ITS_SIZE).contains(&message.address) {
            return self.machine.refuse(Refusal::MsiElsewhere);
        }
        vm.messages.push(message);
        if enabled {
            // No guest here maps interrupts.
            Ok(MsiFate::Dropped)
        } else {
            self.machine.refuse(Refusal::MsiEarly)
        }
    }

    fn connect_doorbell(
        &self,
        address: GuestAddress,
        ring: Ring,
        event: &EventFd,
    ) -> Result<(), HvError> {
        let mut vm = self.machine.lock();
        if vm.doorbells.iter().any(|bell| bell.address == address.0 && bell.ring == ring) {
            return self.machine.refuse(Refusal::DoorbellTwice);
        }
        let identity = identity(event);
        let event = event.try_clone().map_err(no_event)?;
        vm.doorbells.push(Doorbell { address: address.0, ring, event, identity, rung: 0 });
        Ok(())
    }

    fn disconnect_doorbell(
        &self,
        address: GuestAddress,
        ring: Ring,
        event: &EventFd,
    ) -> Result<(), HvError> {
        let mut vm = self.machine.lock();
        let found = vm.doorbells.iter().position(|bell| {
            bell.address == address.0 && bell.ring == ring && bell.identity == identity(event)
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
