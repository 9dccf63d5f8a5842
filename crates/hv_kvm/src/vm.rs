//! A machine: its memory, vCPUs, interrupt lines and doorbells.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kedge_guest_memory::{GuestAddress, RamRegion};
use kedge_hv::{
    Access, DirtyLog, Gic, GicConfig, GicVersion, HvError, Msi, MsiFate, SmcccAction, SmcccRange,
    Vcpu, VcpuFeatures, Vm, VmConfig, WritableMasks,
};
use kedge_ids::{Ring, Spi, VcpuId};
use kvm_bindings::{
    KVM_ARM_IRQ_TYPE_SHIFT, KVM_ARM_IRQ_TYPE_SPI, KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER,
    KVM_CAP_ARM_NISV_TO_USER, KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES, KVM_CAP_ARM_SYSTEM_SUSPEND,
    KVM_CAP_ARM_WRITABLE_IMP_ID_REGS, KVM_MSI_VALID_DEVID, kvm_device_attr, kvm_enable_cap,
    kvm_msi, kvm_smccc_filter, kvm_smccc_filter_action_KVM_SMCCC_FILTER_DENY as FILTER_DENY,
    kvm_smccc_filter_action_KVM_SMCCC_FILTER_FWD_TO_USER as FILTER_FWD_TO_USER,
    kvm_smccc_filter_action_KVM_SMCCC_FILTER_HANDLE as FILTER_HANDLE,
};
use kvm_ioctls::{IoEventAddress, VmFd};
use libc::{EINTR, EINVAL};
use vmm_sys_util::eventfd::EventFd;

use crate::attribute::{Attribute, Attributes, attribute, refused};
use crate::gic::{self, KvmGic};
use crate::ioctl;
use crate::machine::Machine;
use crate::vcpu::KvmVcpu;

const SMCCC_FILTER: Attribute = attribute(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER);

/// A machine on KVM.
pub(crate) struct KvmVm {
    machine: Arc<Machine>,
    /// Its first vCPU, where that was made before it is asked for.
    ready: Mutex<Option<KvmVcpu>>,
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
        if config.writable_imp_ids {
            enable(&fd, KVM_CAP_ARM_WRITABLE_IMP_ID_REGS, "make the main ID registers writable")?;
        }
        Ok(Self { machine: Arc::new(Machine::new(fd)), ready: Mutex::default() })
    }

    /// Makes its first vCPU before it is asked for.
    pub(crate) fn make_vcpu_ready(&self, features: VcpuFeatures) -> Result<(), HvError> {
        let mut vcpu = KvmVcpu::create(VcpuId(0), Arc::clone(&self.machine))?;
        vcpu.make_ready(features)?;
        *self.ready() = Some(vcpu);
        Ok(())
    }

    fn ready(&self) -> MutexGuard<'_, Option<KvmVcpu>> {
        // It changes in one step.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn set_dirty_log(&self, slot: u32, log: DirtyLog) -> Result<(), HvError> {
        self.machine.set_dirty_log(slot, log)
    }

    fn take_dirty_log(&self, slot: u32) -> Result<Vec<u64>, HvError> {
        self.machine.take_dirty_log(slot)
    }

    fn create_vcpu(&self, id: VcpuId) -> Result<Box<dyn Vcpu>, HvError> {
        let ready = self.ready().take_if(|ready| ready.id() == id);
        match ready {
            Some(ready) => Ok(Box::new(ready)),
            None => Ok(Box::new(KvmVcpu::create(id, Arc::clone(&self.machine))?)),
        }
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

    fn pulse_irq(&self, spi: Spi) -> Result<(), HvError> {
        let input = KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | spi.intid();
        // Each time is an edge, where the guest has the input triggered by edges: lowering
        // it does nothing then.
        self.machine.fd.set_irq_line(input, true).map_err(refused("raise an interrupt"))
    }

    fn signal_msi(&self, Msi { device, address, data }: Msi) -> Result<MsiFate, HvError> {
        let half = |part: u64| u32::try_from(part & u64::from(u32::MAX)).unwrap_or_default();
        let message = kvm_msi {
            address_lo: half(address),
            address_hi: half(address >> 32),
            data,
            flags: KVM_MSI_VALID_DEVID,
            devid: device,
            pad: [0; 12],
        };
        match self.machine.fd.signal_msi(message).map_err(refused("send a message"))? {
            0 => Ok(MsiFate::Dropped),
            _ => Ok(MsiFate::Pending),
        }
    }

    fn connect_doorbell(
        &self,
        address: GuestAddress,
        ring: Ring,
        event: &EventFd,
    ) -> Result<(), HvError> {
        let (fd, address) = (&self.machine.fd, IoEventAddress::Mmio(address.0));
        match ring {
            Ring::Half(value) => fd.register_ioevent(event, &address, value),
            Ring::Word(value) => fd.register_ioevent(event, &address, value),
        }
        .map_err(refused("connect a doorbell"))
    }

    fn disconnect_doorbell(
        &self,
        address: GuestAddress,
        ring: Ring,
        event: &EventFd,
    ) -> Result<(), HvError> {
        let (fd, address) = (&self.machine.fd, IoEventAddress::Mmio(address.0));
        match ring {
            Ring::Half(value) => fd.unregister_ioevent(event, &address, value),
            Ring::Word(value) => fd.unregister_ioevent(event, &address, value),
        }
        .map_err(refused("disconnect a doorbell"))
    }

    fn enable_system_suspend(&self) -> Result<(), HvError> {
        enable(&self.machine.fd, KVM_CAP_ARM_SYSTEM_SUSPEND, "hand over SYSTEM_SUSPEND")
    }

    fn supports_smccc_filter(&self) -> bool {
        let (group, attr) = SMCCC_FILTER;
        let attr = kvm_device_attr { group, attr, ..Default::default() };
        self.machine.fd.has_device_attr(&attr).is_ok()
    }

    fn filter_smccc(&self, range: &SmcccRange) -> Result<(), HvError> {
        const CALL: &str = "filter calls of the firmware";
        let action = match range.action {
            SmcccAction::Handle => FILTER_HANDLE,
            SmcccAction::Deny => FILTER_DENY,
            SmcccAction::Forward => FILTER_FWD_TO_USER,
        };
        let filter = kvm_smccc_filter {
            base: range.base,
            nr_functions: range.count,
            action: action.try_into().map_err(|_| HvError::new(CALL, EINVAL))?,
            pad: [0; 15],
        };
        self.machine.fd.set_to(SMCCC_FILTER, &filter, CALL)
    }

    fn set_counter_offset(&self, offset: u64) -> Result<(), HvError> {
        ioctl::set_counter_offset(&self.machine.fd, offset)
            .map_err(refused("set the distance of the counters from the host's"))
    }

    fn writable_id_masks(&self) -> Result<Option<WritableMasks>, HvError> {
        let ranges = KVM_CAP_ARM_SUPPORTED_REG_MASK_RANGES;
        // Bit n of the answer: the kernel has range n. The ID registers are range 0.
        if self.machine.fd.check_extension_raw(ranges.into()) & 1 == 0 {
            return Ok(None);
        }
        let masks = ioctl::writable_masks(&self.machine.fd)
            .map_err(refused("tell which bits of ID registers can be changed"))?;
        Ok(Some(WritableMasks::new(masks)))
    }
}

fn enable(vm: &VmFd, cap: u32, call: &'static str) -> Result<(), HvError> {
    vm.enable_cap(&kvm_enable_cap { cap, ..Default::default() }).map_err(refused(call))
}
