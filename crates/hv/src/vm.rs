//! A virtual machine and the hypervisor that makes it.

use std::sync::Arc;

use kedge_guest_memory::{GuestAddress, RamRegion};
use kedge_ids::{Ring, Spi, VcpuId};
use vmm_sys_util::eventfd::EventFd;

use crate::{
    Gic, GicConfig, GicVersion, HvError, Msi, MsiFate, SmcccRange, Vcpu, VcpuFeatures,
    WritableMasks,
};

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

/// What the host can do that not every host can. Each question costs a call of the
/// kernel: they are asked when they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// [`Vm::set_counter_offset`] works (`KVM_CAP_COUNTER_OFFSET`, Linux 6.4).
    pub counter_offset: bool,
    /// [`Vcpu::set_pv_time`] works (`KVM_CAP_STEAL_TIME`, Linux 5.10).
    pub pv_time: bool,
    /// [`VmConfig::writable_imp_ids`] can be had
    /// (`KVM_CAP_ARM_WRITABLE_IMP_ID_REGS`, Linux 6.15).
    pub writable_imp_ids: bool,
    /// Its guests can ask KVM for the precise time (`KVM_CAP_PTP_KVM`, Linux 5.13).
    /// Where no register switches KVM's own calls, this tells whether there are any.
    pub ptp: bool,
    /// Ticks of the counter in a second, as `CNTFRQ_EL0` has it: no hypervisor can
    /// change what its guests read there. 0 where it cannot be read.
    pub counter_hz: u32,
}

/// What a machine is created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// Bits of a guest physical address: 32 to [`Limits::ipa_bits`].
    pub ipa_bits: u8,
    /// Whether `MIDR_EL1`, `REVIDR_EL1` and `AIDR_EL1` are the machine's, to be
    /// written before the first run, rather than the host's
    /// ([`Abilities::writable_imp_ids`]).
    pub writable_imp_ids: bool,
}

impl VmConfig {
    /// A machine with so many address bits and nothing out of the ordinary.
    pub const fn new(ipa_bits: u8) -> Self {
        Self { ipa_bits, writable_imp_ids: false }
    }
}

/// What guest code may do with a memory slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Load, store, execute.
    ReadWrite,
    /// Load and execute; a store comes back as [`crate::Exit::MmioWrite`].
    ReadOnly,
}

/// Whether writes to a memory slot are noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirtyLog {
    /// Each page that is written, until it is asked for.
    On,
    /// Not at all.
    Off,
}

/// Makes machines.
pub trait Hypervisor: Send + Sync {
    /// What it can give.
    fn limits(&self) -> Limits;

    /// What it can do that others cannot.
    fn abilities(&self) -> Abilities;

    /// A machine without memory, vCPUs or interrupt controller.
    ///
    /// # Errors
    /// `EINVAL`: fewer than 32 address bits, more than the host has, or
    /// implementation ID registers that the host cannot let anybody write.
    fn create_vm(&self, config: &VmConfig) -> Result<Arc<dyn Vm>, HvError>;

    /// The same, whose vCPUs will be initialised with `features`: who has such a machine
    /// ready gives that one.
    ///
    /// # Errors
    /// As [`Hypervisor::create_vm`].
    fn create_vm_for(
        &self,
        config: &VmConfig,
        _features: VcpuFeatures,
    ) -> Result<Arc<dyn Vm>, HvError> {
        self.create_vm(config)
    }
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

    /// Says whether writes to memory slot `slot` are noted, from now on: those of guest
    /// code, and the hypervisor's own (tables of the interrupt controller, records of
    /// stolen time), but not those of this process. Switching it on forgets nothing
    /// where it is on, and starts with no page where it is off.
    ///
    /// # Errors
    /// `ENOENT`: nothing was mapped as that slot.
    fn set_dirty_log(&self, slot: u32, log: DirtyLog) -> Result<(), HvError>;

    /// The pages of memory slot `slot` that were written since the last call, or since
    /// the log was switched on: bit n % 64 of element n / 64 is the host's page n of
    /// the slot. Nothing is lost between two calls, even while vCPUs run.
    ///
    /// # Errors
    /// `ENOENT`: the slot has no log, or is none.
    fn take_dirty_log(&self, slot: u32) -> Result<Vec<u64>, HvError>;

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

    /// Gives the guest an edge on `spi`, which it has triggered by edges. Any thread may,
    /// while vCPUs run. The edge has arrived when this returns, where one by an event is on
    /// its way by another thread of the host.
    ///
    /// # Errors
    /// `ENXIO`: there is no controller; `EBUSY`: too early; `EINVAL`: no such interrupt.
    fn pulse_irq(&self, spi: Spi) -> Result<(), HvError>;

    /// Sends a message to the translation service, as the device's store would. Any thread
    /// may, while vCPUs run. It costs what raising a wired interrupt does, and unlike a
    /// message that is wired to an event it leaves nothing behind: what a device is to send
    /// can change with each message, and no edge is on its way when all devices rest.
    ///
    /// # Errors
    /// `EINVAL`: there is no controller, or no service at the address; `ENODEV`: the
    /// controller has no service; `EBUSY`: the guest has not switched the service on.
    fn signal_msi(&self, message: Msi) -> Result<MsiFate, HvError>;

    /// From now on, the store of `ring` to `address` writes to `event` instead of leaving
    /// the guest.
    ///
    /// # Errors
    /// `EEXIST`: there is one.
    fn connect_doorbell(
        &self,
        address: GuestAddress,
        ring: Ring,
        event: &EventFd,
    ) -> Result<(), HvError>;

    /// Undoes [`Vm::connect_doorbell`].
    ///
    /// # Errors
    /// `ENOENT`: there is none.
    fn disconnect_doorbell(
        &self,
        address: GuestAddress,
        ring: Ring,
        event: &EventFd,
    ) -> Result<(), HvError>;

    /// Lets PSCI SYSTEM_SUSPEND reach the user as an event.
    ///
    /// # Errors
    /// `EINVAL`: the host cannot (Linux 5.19).
    fn enable_system_suspend(&self) -> Result<(), HvError>;

    /// Whether [`Vm::filter_smccc`] works here (Linux 6.4).
    fn supports_smccc_filter(&self) -> bool;

    /// Says what becomes of some calls of the firmware, for the life of the machine:
    /// there is no way to change, take back or read what was said.
    ///
    /// # Errors
    /// `EINVAL`: no function id, or the range goes past the last one; `EEXIST`: it
    /// overlaps one that was said before, or the architecture's own calls
    /// (0x80000000 to 0x8000ffff, 0xc0000000 to 0xc000ffff); `EBUSY`: a vCPU has run;
    /// `ENXIO` or `ENOTTY`: the host has no filter.
    fn filter_smccc(&self, range: &SmcccRange) -> Result<(), HvError>;

    /// Makes both counters of every vCPU, present and future, the host's physical
    /// counter less `offset`. From then on writing them does nothing. It cannot be
    /// read back.
    ///
    /// # Errors
    /// `EBUSY`: a vCPU is in use by another thread; `ENOTTY`: the host cannot
    /// ([`Abilities::counter_offset`]).
    fn set_counter_offset(&self, offset: u64) -> Result<(), HvError>;

    /// The bits of ID registers that can be changed, or none where the host does not
    /// say (before Linux 6.7).
    ///
    /// # Errors
    /// The host says that it says, and does not.
    fn writable_id_masks(&self) -> Result<Option<WritableMasks>, HvError>;
}
