//! The interrupt controller of a model machine: its registers, as their user reaches
//! them. What they hold changes nothing for guests here, whose interrupts are those of
//! their scripts.

mod attributes;
mod controller;
mod interface;
mod its;
mod lines;

use std::sync::{Arc, MutexGuard};

pub(crate) use controller::GicState;
use controller::{PRODUCT, REVISION_SHIFT, named};
pub(crate) use its::{ITS_SIZE, Its};
use kedge_hv::{Gic, GicReg, GicVersion, HvError};

use crate::machine::Machine;
use crate::refusal::{Refusal, refuse};
use crate::release::Ability;
use crate::state::VmState;

/// The interrupt controller of a model machine.
pub(crate) struct ModelGic {
    machine: Arc<Machine>,
}

/// `GICD_IIDR` and `GICD_TYPER2`.
const GICD_IIDR: u32 = 0x8;
const GICD_TYPER2: u32 = 0xc;

/// Which version has this register.
const fn version_of(reg: GicReg) -> GicVersion {
    match reg {
        GicReg::DistributorV2 { .. } | GicReg::CpuInterfaceV2 { .. } => GicVersion::V2,
        _ => GicVersion::V3,
    }
}

impl ModelGic {
    pub(crate) fn new(machine: Arc<Machine>) -> Self {
        Self { machine }
    }

    /// The machine, while no vCPU runs.
    fn standing(&self) -> Result<MutexGuard<'_, VmState>, Refusal> {
        let vm = self.machine.lock();
        if vm.running > 0 { Err(Refusal::GicRunning) } else { Ok(vm) }
    }

    fn told<T>(&self, result: Result<T, Refusal>) -> Result<T, HvError> {
        result.or_else(|refusal| refuse(&self.machine.shared.release, refusal))
    }

    /// Does something with a register that there is and that can be reached: hands over
    /// the vCPU through which it is, and how many there are.
    fn reach<T>(
        &self,
        reg: GicReg,
        act: impl FnOnce(&mut GicState, (u32, usize)) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut vm = self.standing()?;
        let VmState { gic, vcpus, .. } = &mut *vm;
        let gic = gic.as_mut().ok_or(Refusal::NoGicRegister)?;
        let version = gic.config.version();
        let missing = matches!(reg, GicReg::Its { .. }) && gic.its.is_none();
        if version != version_of(reg) || missing {
            return Err(Refusal::NoGicRegister);
        }
        let index = named(reg, vcpus.keys().copied()).ok_or(Refusal::NoGicCpu)?;
        // Reaching for a register of a GICv2 makes it ready.
        gic.ready |= version == GicVersion::V2;
        if !gic.ready && !self.early(reg) {
            return Err(Refusal::GicRegisterEarly);
        }
        act(gic, (index, vcpus.len()))
    }

    /// Whether a register can be reached before its controller is ready.
    fn early(&self, reg: GicReg) -> bool {
        let told = self.machine.shared.release.early_revision == Ability::Present;
        match reg {
            GicReg::Its { .. } => true,
            GicReg::Distributor { offset: GICD_IIDR | GICD_TYPER2 } => told,
            _ => false,
        }
    }

    /// Chooses the revision of the distributor's behaviour.
    fn choose(&self, gic: &mut GicState, value: u64) -> Result<(), Refusal> {
        let iidr = |revision: u32| u64::from(PRODUCT | revision << REVISION_SHIFT);
        let mut revisions = self.machine.shared.release.gic_revisions.iter();
        let chosen = revisions.find(|revision| iidr(**revision) == value & 0xffff_ffff);
        gic.revision = *chosen.ok_or(Refusal::GicRegisterValue)?;
        gic.chosen = true;
        Ok(())
    }

    /// Does something with the tables of the translation service.
    fn with_tables(
        &self,
        act: impl FnOnce(&mut VmState, [Option<u64>; 2]) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut vm = self.standing()?;
        let its = vm.gic.as_ref().and_then(|gic| gic.its.as_ref()).ok_or(Refusal::NoIts)?;
        let tables = its.tables();
        act(&mut vm, tables)
    }
}

impl Gic for ModelGic {
    fn version(&self) -> GicVersion {
        self.machine.lock().gic.as_ref().map_or(GicVersion::V3, |gic| gic.config.version())
    }

    fn reg(&self, reg: GicReg) -> Result<u64, HvError> {
        self.told(self.reach(reg, |gic, (index, cpus)| gic.read(reg, index, cpus)))
    }

    fn set_reg(&self, reg: GicReg, value: u64) -> Result<(), HvError> {
        self.told(self.reach(reg, |gic, cpu| match reg {
            GicReg::Distributor { offset: GICD_IIDR }
            | GicReg::DistributorV2 { offset: GICD_IIDR, .. } => self.choose(gic, value),
            _ => gic.write(reg, cpu, value),
        }))
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
        let vm = self.told(self.standing())?;
        let Some(gic) = &vm.gic else { return self.machine.refuse(Refusal::NoPendingTables) };
        let early = self.machine.shared.release.early_pending_tables == Ability::Present;
        match gic.config.version() {
            GicVersion::V2 => self.machine.refuse(Refusal::NoPendingTables),
            // No guest here lets LPIs through.
            GicVersion::V3 if gic.ready || early => Ok(()),
            GicVersion::V3 => self.machine.refuse(Refusal::PendingTablesEarly),
        }
    }

    fn save_its_tables(&self) -> Result<(), HvError> {
        self.told(self.with_tables(its::save))
    }

    fn restore_its_tables(&self) -> Result<(), HvError> {
        self.told(self.with_tables(its::restore))
    }

    fn reset_its(&self) -> Result<(), HvError> {
        self.told(self.with_tables(|vm, _| {
            vm.gic.iter_mut().filter_map(|gic| gic.its.as_mut()).for_each(Its::reset);
            Ok(())
        }))
    }
}
