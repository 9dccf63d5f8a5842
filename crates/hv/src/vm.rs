//! A virtual machine and the hypervisor that makes it.

use std::sync::Arc;

use kedge_guest_memory::{GuestAddress, RamRegion};
use kedge_ids::{Spi, VcpuId};
use vmm_sys_util::eventfd::EventFd;

use crate::{Gic, GicConfig, GicVersion, HvError, Vcpu, VcpuFeatures};

/// What the host can give any machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bits of a guest physical address.
    pub ipa_bits: u8,
    /// vCPUs of a machine, before the interrupt controller's own limit.
    pub vcpus: u32,
    /// Bytes of RAM in one memory slot.
    pub slot_bytes: u64,
    /// Memory slots of a machine.
    pub slots: u32,
    /// vCPU features that can be asked for.
    pub features: VcpuFeatures,
}

/// What a machine is created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// Bits of a guest physical address: 32 to [`Limits::ipa_bits`].
    pub ipa_bits: u8,
}

/// What guest code may do with a memory slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Load, store, execute.
    ReadWrite,
    /// Load and execute; a store comes back as [`crate::Exit::MmioWrite`].
    ReadOnly,
}

/// Makes machines.
pub trait Hypervisor: Send + Sync {
    /// What it can give.
    fn limits(&self) -> Limits;

    /// A machine without memory, vCPUs or interrupt controller.
    ///
    /// # Errors
    /// `EINVAL`: fewer than 32 address bits, or more than the host has.
    fn create_vm(&self, config: &VmConfig) -> Result<Arc<dyn Vm>, HvError>;
}

/// A virtual machine. Guest code cannot run once the last vCPU is gone.
pub trait Vm: Send + Sync {
    /// Whether an interrupt controller of this version can be created here.
    fn supports_gic(&self, version: GicVersion) -> bool;

    /// Whether a GICv3 here can have a translation service.
    fn supports_its(&self) -> bool;

    /// Puts `region` into the guest's address space as memory slot `slot`, for
    /// the life of the machine.
    ///
    /// # Errors
    /// `EINVAL`: too large, misaligned, no such slot; `EEXIST`: overlaps, or the
    /// slot is in use; `EFAULT`: past the machine's address bits.
    fn map_ram(&self, slot: u32, region: Arc<RamRegion>, access: Access) -> Result<(), HvError>;

    /// Creates vCPU `id`. All of them come before [`Gic::init`].
    ///
    /// # Errors
    /// `EEXIST`: there is one; `EINVAL`: more than the host allows; `EBUSY`: too late.
    fn create_vcpu(&self, id: VcpuId) -> Result<Box<dyn Vcpu>, HvError>;

    /// Creates the interrupt controller and places its frames.
    ///
    /// # Errors
    /// `ENODEV`: not this version; `EEXIST`: there is one; `E2BIG`: past the
    /// address bits, or more vCPUs than it serves.
    fn create_gic(&self, config: &GicConfig) -> Result<Box<dyn Gic>, HvError>;

    /// From now on, each write to `trigger` gives the guest an edge on `spi`.
    /// After [`Gic::init`].
    ///
    /// # Errors
    /// `EAGAIN`: too early; `EBUSY`: the event is wired already; `EINVAL`: no such
    /// interrupt.
    fn connect_irq(&self, spi: Spi, trigger: &EventFd) -> Result<(), HvError>;

    /// From now on, a 32-bit store of `value` to `address` writes to `event`
    /// instead of leaving the guest.
    ///
    /// # Errors
    /// `EEXIST`: there is one.
    fn connect_doorbell(
        &self,
        address: GuestAddress,
        value: u32,
        event: &EventFd,
    ) -> Result<(), HvError>;

    /// Undoes [`Vm::connect_doorbell`].
    ///
    /// # Errors
    /// `ENOENT`: there is none.
    fn disconnect_doorbell(
        &self,
        address: GuestAddress,
        value: u32,
        event: &EventFd,
    ) -> Result<(), HvError>;

    /// Lets PSCI SYSTEM_SUSPEND reach the user as an event.
    ///
    /// # Errors
    /// `EINVAL`: the host cannot (Linux 5.19).
    fn enable_system_suspend(&self) -> Result<(), HvError>;
}
