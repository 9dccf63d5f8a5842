//! A model machine as its user sees it: memory, vCPUs, interrupt controller,
//! events.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use kedge_guest_memory::{GuestAddress, GuestMemoryRegion, RamRegion};
use kedge_hv::{Access, Gic, GicConfig, GicVersion, HvError, Vcpu, Vm};
use kedge_ids::{Spi, VcpuId, u64_from};
use vmm_sys_util::epoll::{ControlOperation, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::machine::{Machine, identity, no_event};
use crate::refusal::Refusal;
use crate::registers::restart_counters;
use crate::release::Ability;
use crate::state::{Doorbell, GicState, Irq, Slot, VcpuState};
use crate::vcpu::ModelVcpu;

/// The smallest page of an arm64 host, in bytes.
const PAGE: u64 = 4096;

/// A machine of the model.
#[derive(Debug)]
pub(crate) struct ModelVm {
    pub(crate) machine: Arc<Machine>,
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
        vm.vcpus.insert(id.0, VcpuState::new(program, waker));
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
        vm.gic = Some(GicState { config: *config, ready: false });
        placed?;
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
}

/// The interrupt controller of a model machine.
struct ModelGic {
    machine: Arc<Machine>,
}

impl Gic for ModelGic {
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
