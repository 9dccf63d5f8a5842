//! The interrupt controller that the hypervisor emulates.

use kedge_guest_memory::GuestAddress;
use kedge_ids::{Mpidr, VcpuId};
use serde::{Deserialize, Serialize};

use crate::HvError;

/// Which Generic Interrupt Controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GicVersion {
    /// GICv2: at most 8 CPUs, no message-signalled interrupts.
    #[serde(rename = "v2")]
    V2,
    /// GICv3, with an Interrupt Translation Service where one is configured.
    #[serde(rename = "v3")]
    V3,
}

/// Where the controller's frames lie in guest physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicConfig {
    /// GICv2: 4 KiB aligned.
    V2 {
        /// The distributor, 4 KiB.
        distributor: GuestAddress,
        /// The CPU interface, 8 KiB.
        cpu_interface: GuestAddress,
        /// Shared peripheral interrupts wanted: a multiple of 32 up to 960.
        spis: u32,
    },
    /// GICv3: 64 KiB aligned.
    V3 {
        /// The distributor, 64 KiB.
        distributor: GuestAddress,
        /// The redistributors, 128 KiB for each vCPU, in order of their ids.
        redistributors: GuestAddress,
        /// The translation service, 128 KiB.
        its: Option<GuestAddress>,
        /// Shared peripheral interrupts wanted: a multiple of 32 up to 960.
        spis: u32,
    },
}

impl GicConfig {
    /// The version described.
    pub const fn version(&self) -> GicVersion {
        match self {
            Self::V2 { .. } => GicVersion::V2,
            Self::V3 { .. } => GicVersion::V3,
        }
    }
}

/// A register of the controller as its user reaches it (Linux,
/// Documentation/virt/kvm/devices/arm-vgic{,-v3,-its}.rst). 32 bits of value where
/// nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GicReg {
    /// One of a GICv3's distributor (`GICD_`), by its offset in bytes.
    Distributor {
        /// In the frame of 64 KiB.
        offset: u32,
    },
    /// One of a GICv3's redistributor (`GICR_`).
    Redistributor {
        /// Whose.
        cpu: Mpidr,
        /// In the two frames of 64 KiB.
        offset: u32,
    },
    /// A system register of a GICv3's CPU interface (`ICC_`), 64 bits.
    CpuSystem {
        /// Whose.
        cpu: Mpidr,
        /// Its encoding: op0 in bits 15:14, op1 13:11, CRn 10:7, CRm 6:3, op2 2:0.
        encoding: u16,
    },
    /// The levels of 32 of a GICv3's interrupt lines.
    LineLevel {
        /// Whose, where the interrupts are private.
        cpu: Mpidr,
        /// The INTID of the lowest: a multiple of 32 up to 992.
        first: u16,
    },
    /// One of the translation service (`GITS_`), 64 bits.
    Its {
        /// In its first frame of 64 KiB.
        offset: u32,
    },
    /// One of a GICv2's distributor (`GICD_`).
    DistributorV2 {
        /// Whose, where the register is banked.
        cpu: VcpuId,
        /// In the frame of 4 KiB.
        offset: u32,
    },
    /// One of a GICv2's CPU interface (`GICC_`).
    CpuInterfaceV2 {
        /// Whose.
        cpu: VcpuId,
        /// In the frame of 8 KiB.
        offset: u32,
    },
}

/// A machine's interrupt controller.
pub trait Gic: Send + Sync {
    /// Which it is.
    fn version(&self) -> GicVersion;

    /// Makes it ready, once all vCPUs exist. GICv2 would do so by itself at the
    /// first run. Doing it again does nothing.
    ///
    /// # Errors
    /// The frames do not fit the machine.
    fn init(&self) -> Result<(), HvError>;

    /// Reads a register, while no vCPU runs.
    ///
    /// # Errors
    /// `ENXIO`: the controller has no such register; `EINVAL`: no such vCPU;
    /// `EBUSY`: a vCPU runs, or a GICv3 before [`Gic::init`]; of that, Linux 7.2 gives
    /// `GICD_IIDR` away earlier. A GICv2 is made ready by the call.
    fn reg(&self, reg: GicReg) -> Result<u64, HvError>;

    /// Writes a register, while no vCPU runs.
    ///
    /// # Errors
    /// As [`Gic::reg`]; `EINVAL` also for a value the register cannot have.
    fn set_reg(&self, reg: GicReg, value: u64) -> Result<(), HvError>;

    /// Writes which LPIs are pending into the pending tables in guest memory, while no
    /// vCPU runs: the hypervisor keeps it to itself until then.
    ///
    /// # Errors
    /// `EBUSY`: a vCPU runs; `EFAULT`: the guest put a table where it has no memory;
    /// `ENXIO`: a GICv2; or, since Linux 6.1 or earlier, before [`Gic::init`].
    fn save_pending_tables(&self) -> Result<(), HvError>;

    /// Writes what the translation service knows of devices, their interrupts and
    /// collections into the tables in guest memory, while no vCPU runs.
    ///
    /// # Errors
    /// `EBUSY`: a vCPU runs; `EFAULT`, `EINVAL` and other: the guest put a table where it
    /// has no memory, or made it too small or nonsense; `ENXIO`: there is no service.
    fn save_its_tables(&self) -> Result<(), HvError>;

    /// Reads back what [`Gic::save_its_tables`] wrote, after everything else of the
    /// controller is in place but `GITS_CTLR`.
    ///
    /// # Errors
    /// `EBUSY`: a vCPU runs; `EFAULT`, `EINVAL` and other: the tables are inconsistent;
    /// `ENXIO`: there is no service.
    fn restore_its_tables(&self) -> Result<(), HvError>;

    /// Lets the translation service forget everything, as at a reset of the machine: the
    /// initialisation of vCPUs does not touch it.
    ///
    /// # Errors
    /// `EBUSY`: a vCPU runs; `ENXIO`: there is no service.
    fn reset_its(&self) -> Result<(), HvError>;

    /// The revision of the distributor's behaviour that the guest sees: bits 15:12
    /// of `GICD_IIDR`. KVM's is 2, and since Linux 5.19 its user can choose 2 or 3.
    ///
    /// # Errors
    /// As [`Gic::reg`].
    fn distributor_revision(&self) -> Result<u32, HvError> {
        let iidr = self.reg(gicd_iidr(self.version()))?;
        Ok(u32::try_from(iidr >> IIDR_REVISION.trailing_zeros() & 0xf).unwrap_or_default())
    }

    /// Chooses the revision of the distributor's behaviour. A GICv2 lets interrupt
    /// groups be written only once this was done.
    ///
    /// # Errors
    /// `EINVAL`: a revision that the host does not have, or a number past 15; else
    /// as [`Gic::reg`].
    fn set_distributor_revision(&self, revision: u32) -> Result<(), HvError> {
        if revision > 0xf {
            return Err(HvError::new("choose the distributor's revision", EINVAL));
        }
        let iidr = gicd_iidr(self.version());
        let revision = u64::from(revision) << IIDR_REVISION.trailing_zeros();
        self.set_reg(iidr, self.reg(iidr)? & !IIDR_REVISION | revision)
    }
}

const fn gicd_iidr(version: GicVersion) -> GicReg {
    match version {
        GicVersion::V2 => GicReg::DistributorV2 { cpu: VcpuId(0), offset: 0x8 },
        GicVersion::V3 => GicReg::Distributor { offset: 0x8 },
    }
}

/// `GICD_IIDR`.Revision.
const IIDR_REVISION: u64 = 0xf << 12;
const EINVAL: i32 = 22;
