//! The interrupt controller of a model machine: its registers, as their user reaches
//! them.

use std::sync::Arc;

use kedge_hv::{Gic, GicConfig, GicReg, GicVersion, HvError};

use crate::machine::Machine;
use crate::refusal::Refusal;
use crate::release::Ability;
use crate::state::VmState;

/// The interrupt controller of a model machine.
pub(crate) struct ModelGic {
    machine: Arc<Machine>,
}

impl ModelGic {
    pub(crate) fn new(machine: Arc<Machine>) -> Self {
        Self { machine }
    }

    /// Whether there is a translation service.
    fn its(&self) -> Result<(), HvError> {
        let gic = self.machine.lock().gic.as_ref().map(|gic| gic.config);
        match gic {
            Some(GicConfig::V3 { its: Some(_), .. }) => Ok(()),
            _ => self.machine.refuse(Refusal::NoIts),
        }
    }

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

    fn save_pending_tables(&self) -> Result<(), HvError> {
        match self.version() {
            GicVersion::V2 => self.machine.refuse(Refusal::NoPendingTables),
            GicVersion::V3 => Ok(()),
        }
    }

    fn save_its_tables(&self) -> Result<(), HvError> {
        self.its()
    }

    fn restore_its_tables(&self) -> Result<(), HvError> {
        self.its()
    }

    fn reset_its(&self) -> Result<(), HvError> {
        self.its()
    }
}
