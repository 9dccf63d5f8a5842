//! A machine: its memory, vCPUs, interrupt lines and doorbells.

use std::sync::Arc;

use kedge_guest_memory::{GuestAddress, RamRegion};
use kedge_hv::{Access, Gic, GicConfig, GicVersion, HvError, Vcpu, Vm, VmConfig};
use kedge_ids::{Spi, VcpuId};
use kvm_bindings::{KVM_CAP_ARM_NISV_TO_USER, KVM_CAP_ARM_SYSTEM_SUSPEND, kvm_enable_cap};
use kvm_ioctls::{IoEventAddress, VmFd};
use libc::{EINTR, EINVAL};
use vmm_sys_util::eventfd::EventFd;

use crate::attribute::refused;
use crate::gic::{self, KvmGic};
use crate::machine::Machine;
use crate::vcpu::KvmVcpu;

/// A machine on KVM.
pub(crate) struct KvmVm {
    machine: Arc<Machine>,
}

impl KvmVm {
    /// A machine that differs from KVM's default in one thing: an access that the
    /// hardware does not describe is the user's to answer, where KVM would fail
    /// `KVM_RUN` with `ENOSYS`.
    pub(crate) fn create(kvm: &kvm_ioctls::Kvm, config: &VmConfig) -> Result<Self, HvError> {
        const CALL: &str = "create a machine";
        if config.ipa_bits == 0 {
            // KVM reads 0 as 40 bits, which not every host has.
            return Err(HvError::new(CALL, EINVAL));
        }
        let fd = loop {
            match kvm.create_vm_with_ipa_size(config.ipa_bits.into()) {
                // The kernel gives up when a signal arrives while it waits.
                Err(error) if error.errno() == EINTR => {}
                result => break result.map_err(refused(CALL))?,
            }
        };
        enable(&fd, KVM_CAP_ARM_NISV_TO_USER, "hand over accesses it cannot decode")?;
        Ok(Self { machine: Arc::new(Machine::new(fd)) })
    }
}

impl Vm for KvmVm {
    fn supports_gic(&self, version: GicVersion) -> bool {
        gic::supports(&self.machine.fd, version)
    }

    fn supports_its(&self) -> bool {
        gic::supports_its(&self.machine.fd)
    }

    fn map_ram(&self, slot: u32, region: Arc<RamRegion>, access: Access) -> Result<(), HvError> {
        self.machine.map_ram(slot, region, access)
    }

    fn create_vcpu(&self, id: VcpuId) -> Result<Box<dyn Vcpu>, HvError> {
        Ok(Box::new(KvmVcpu::create(id, Arc::clone(&self.machine))?))
    }

    fn create_gic(&self, config: &GicConfig) -> Result<Box<dyn Gic>, HvError> {
        Ok(Box::new(KvmGic::create(config, Arc::clone(&self.machine))?))
    }

    fn connect_irq(&self, spi: Spi, trigger: &EventFd) -> Result<(), HvError> {
        const CALL: &str = "wire an event to an interrupt";
        // KVM would take the event and lose its edges.
        if self.machine.spis.get().is_some_and(|&spis| spi.offset() >= spis) {
            return Err(HvError::new(CALL, EINVAL));
        }
        self.machine.fd.register_irqfd(trigger, spi.offset()).map_err(refused(CALL))
    }

    fn connect_doorbell(
        &self,
        address: GuestAddress,
        value: u32,
        event: &EventFd,
    ) -> Result<(), HvError> {
        self.machine
            .fd
            .register_ioevent(event, &IoEventAddress::Mmio(address.0), value)
            .map_err(refused("connect a doorbell"))
    }

    fn disconnect_doorbell(
        &self,
        address: GuestAddress,
        value: u32,
        event: &EventFd,
    ) -> Result<(), HvError> {
        self.machine
            .fd
            .unregister_ioevent(event, &IoEventAddress::Mmio(address.0), value)
            .map_err(refused("disconnect a doorbell"))
    }

    fn enable_system_suspend(&self) -> Result<(), HvError> {
        enable(&self.machine.fd, KVM_CAP_ARM_SYSTEM_SUSPEND, "hand over SYSTEM_SUSPEND")
    }
}

fn enable(vm: &VmFd, cap: u32, call: &'static str) -> Result<(), HvError> {
    vm.enable_cap(&kvm_enable_cap { cap, ..Default::default() }).map_err(refused(call))
}
