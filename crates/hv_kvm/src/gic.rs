//! The interrupt controllers that KVM emulates (Linux,
//! Documentation/virt/kvm/devices/arm-vgic{,-v3,-its}.rst).
//!
//! The order that works on every kernel: the controller, its number of
//! interrupts, its addresses; the translation service and its address; then, when
//! all vCPUs are there, the controller's INIT and the service's. KVM would take
//! the service later, too, but a GICv4 host sets up its direct injection in the
//! controller's INIT only for a machine that has one by then.
//!
//! A controller that was created and then refused an address stays in the
//! machine: KVM has no way to take it back, and answers `EEXIST` to the next.

use std::sync::Arc;

use kedge_guest_memory::GuestAddress;
use kedge_hv::{Gic, GicConfig, GicReg, GicVersion, HvError};
use kvm_bindings::{
    KVM_DEV_ARM_ITS_CTRL_RESET, KVM_DEV_ARM_ITS_RESTORE_TABLES, KVM_DEV_ARM_ITS_SAVE_TABLES,
    KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CPU_REGS,
    KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
    KVM_DEV_ARM_VGIC_GRP_ITS_REGS, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
    KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT,
    KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES, KVM_VGIC_ITS_ADDR_TYPE, KVM_VGIC_V2_ADDR_TYPE_CPU,
    KVM_VGIC_V2_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST,
    VGIC_LEVEL_INFO_LINE_LEVEL, kvm_create_device,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS as VGIC_ITS,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2 as VGIC_V2,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3 as VGIC_V3,
};
use kvm_ioctls::{DeviceFd, VmFd};
use libc::ENXIO;

use crate::attribute::{Attribute, Attributes, attribute, refused};
use crate::ioctl;
use crate::machine::Machine;

const INIT: Attribute = control(KVM_DEV_ARM_VGIC_CTRL_INIT);
const SAVE_PENDING_TABLES: Attribute = control(KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES);
const SAVE_TABLES: Attribute = control(KVM_DEV_ARM_ITS_SAVE_TABLES);
const RESTORE_TABLES: Attribute = control(KVM_DEV_ARM_ITS_RESTORE_TABLES);
const RESET: Attribute = control(KVM_DEV_ARM_ITS_CTRL_RESET);
const NR_IRQS: Attribute = (KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0);

/// Something that a controller or a translation service is to do.
const fn control(number: u32) -> Attribute {
    attribute(KVM_DEV_ARM_VGIC_GRP_CTRL, number)
}

/// SGIs and PPIs, which `NR_IRQS` counts in.
const PRIVATE_INTERRUPTS: u32 = 32;

/// A machine's interrupt controller.
pub(crate) struct KvmGic {
    version: GicVersion,
    gic: DeviceFd,
    its: Option<DeviceFd>,
    /// Behind the files: tables are flushed into its memory through them.
    _machine: Arc<Machine>,
}

impl KvmGic {
    /// Creates the controller and places its frames.
    pub(crate) fn create(config: &GicConfig, machine: Arc<Machine>) -> Result<Self, HvError> {
        let (gic, its, spis) = match *config {
            GicConfig::V2 { distributor, cpu_interface, spis } => {
                let gic = create_device(&machine.fd, VGIC_V2, "create a GICv2")?;
                set_interrupts(&gic, spis)?;
                place(&gic, KVM_VGIC_V2_ADDR_TYPE_DIST, distributor)?;
                place(&gic, KVM_VGIC_V2_ADDR_TYPE_CPU, cpu_interface)?;
                (gic, None, spis)
            }
            GicConfig::V3 { distributor, redistributors, its, spis } => {
                let gic = create_device(&machine.fd, VGIC_V3, "create a GICv3")?;
                set_interrupts(&gic, spis)?;
                place(&gic, KVM_VGIC_V3_ADDR_TYPE_DIST, distributor)?;
                place(&gic, KVM_VGIC_V3_ADDR_TYPE_REDIST, redistributors)?;
                (gic, its.map(|at| create_its(&machine.fd, at)).transpose()?, spis)
            }
        };
        // A second controller is refused above, so this is the first value.
        machine.spis.get_or_init(|| spis);
        Ok(Self { version: config.version(), gic, its, _machine: machine })
    }
}

impl KvmGic {
    /// The device that has a register, and the attribute that is the register.
    fn attribute(&self, reg: GicReg) -> Option<(&DeviceFd, Attribute)> {
        let of_cpu = |cpu: u64, rest: u64| cpu << 32 | rest;
        let v3 = |group, attr| (GicVersion::V3, &self.gic, (group, attr));
        let v2 = |group, attr| (GicVersion::V2, &self.gic, (group, attr));
        let (version, device, attribute) = match reg {
            GicReg::Distributor { offset } => v3(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, offset.into()),
            GicReg::Redistributor { cpu, offset } => {
                v3(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, of_cpu(cpu.packed(), offset.into()))
            }
            GicReg::CpuSystem { cpu, encoding } => {
                v3(KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, of_cpu(cpu.packed(), encoding.into()))
            }
            GicReg::LineLevel { cpu, first } => {
                let level = u64::from(VGIC_LEVEL_INFO_LINE_LEVEL);
                let info = level << KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT | u64::from(first);
                v3(KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, of_cpu(cpu.packed(), info))
            }
            GicReg::Its { offset } => {
                let group = KVM_DEV_ARM_VGIC_GRP_ITS_REGS;
                (GicVersion::V3, self.its.as_ref()?, (group, offset.into()))
            }
            GicReg::DistributorV2 { cpu, offset } => {
                v2(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, of_cpu(cpu.0.into(), offset.into()))
            }
            GicReg::CpuInterfaceV2 { cpu, offset } => {
                v2(KVM_DEV_ARM_VGIC_GRP_CPU_REGS, of_cpu(cpu.0.into(), offset.into()))
            }
        };
        // The two versions have numbers in common that mean different things.
        (version == self.version).then_some((device, attribute))
    }

    /// Lets the translation service do something, if there is one.
    fn service(&self, what: Attribute, call: &'static str) -> Result<(), HvError> {
        let its = self.its.as_ref().ok_or(HvError::new(call, ENXIO))?;
        its.perform(what, call)
    }
}

impl Gic for KvmGic {
    fn version(&self) -> GicVersion {
        self.version
    }

    fn reg(&self, reg: GicReg) -> Result<u64, HvError> {
        const CALL: &str = "read a register of the interrupt controller";
        let (device, attribute) = self.attribute(reg).ok_or(HvError::new(CALL, ENXIO))?;
        device.get_u64(attribute, CALL)
    }

    fn set_reg(&self, reg: GicReg, value: u64) -> Result<(), HvError> {
        const CALL: &str = "write a register of the interrupt controller";
        let (device, attribute) = self.attribute(reg).ok_or(HvError::new(CALL, ENXIO))?;
        device.set_u64(attribute, value, CALL)
    }

    fn init(&self) -> Result<(), HvError> {
        self.gic.perform(INIT, "initialize the interrupt controller")?;
        match &self.its {
            Some(its) => its.perform(INIT, "initialize the interrupt translation service"),
            None => Ok(()),
        }
    }

    fn save_pending_tables(&self) -> Result<(), HvError> {
        self.gic.perform(SAVE_PENDING_TABLES, "write the pending LPIs into the guest's memory")
    }

    fn save_its_tables(&self) -> Result<(), HvError> {
        self.service(SAVE_TABLES, "write the interrupt translations into the guest's memory")
    }

    fn restore_its_tables(&self) -> Result<(), HvError> {
        self.service(RESTORE_TABLES, "read the interrupt translations from the guest's memory")
    }

    fn reset_its(&self) -> Result<(), HvError> {
        self.service(RESET, "reset the interrupt translation service")
    }
}

/// Whether the host has what a controller of this version needs.
pub(crate) fn supports(vm: &VmFd, version: GicVersion) -> bool {
    let type_ = match version {
        GicVersion::V2 => VGIC_V2,
        GicVersion::V3 => VGIC_V3,
    };
    ioctl::has_device_type(vm, type_)
}

/// Whether the host has what a translation service needs.
pub(crate) fn supports_its(vm: &VmFd) -> bool {
    ioctl::has_device_type(vm, VGIC_ITS)
}

fn create_device(vm: &VmFd, type_: u32, call: &'static str) -> Result<DeviceFd, HvError> {
    let mut device = kvm_create_device { type_, fd: 0, flags: 0 };
    vm.create_device(&mut device).map_err(refused(call))
}

fn create_its(vm: &VmFd, at: GuestAddress) -> Result<DeviceFd, HvError> {
    let its = create_device(vm, VGIC_ITS, "create an interrupt translation service")?;
    place(&its, KVM_VGIC_ITS_ADDR_TYPE, at)?;
    Ok(its)
}

fn set_interrupts(gic: &DeviceFd, spis: u32) -> Result<(), HvError> {
    let all = spis.saturating_add(PRIVATE_INTERRUPTS);
    gic.set_u32(NR_IRQS, all, "set the number of interrupts")
}

fn place(device: &DeviceFd, frame: u32, at: GuestAddress) -> Result<(), HvError> {
    device.set_u64(
        attribute(KVM_DEV_ARM_VGIC_GRP_ADDR, frame),
        at.0,
        "place the interrupt controller",
    )
}
