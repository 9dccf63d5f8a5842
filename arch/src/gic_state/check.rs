//! Whether a saved controller can be one at all: it is input. How many of a register
//! there are is checked here; what each holds is the controller's to take or refuse.

use kedge_ids::Mpidr;
use kedge_saved_state::{StateError, Versioned};

use super::capture::{AP_REGISTERS, GICC_APRS, ITS_TABLES, SENDERS, active_priorities};
use super::saved::{GicV2StateV1, GicV3StateV1, ItsStateV1, LinesV1};

/// The error about a field of `T`.
fn wrong<T: Versioned>(field: impl Into<String>, problem: impl Into<String>) -> StateError {
    StateError::field::<T>(field, problem)
}

fn length<T: Versioned>(field: String, found: usize, due: usize) -> Result<(), StateError> {
    if found == due {
        return Ok(());
    }
    Err(wrong::<T>(field, format!("has {found} elements, not the machine's {due}")))
}

/// Checks the lengths for so many interrupts.
fn lines<T: Versioned>(within: &str, lines: &LinesV1, interrupts: usize) -> Result<(), StateError> {
    let LinesV1 { igroupr, isenabler, icfgr, ispendr, isactiver, ipriorityr } = lines;
    for (name, list, to_one) in [
        ("igroupr", igroupr, 32),
        ("isenabler", isenabler, 32),
        ("icfgr", icfgr, 16),
        ("ispendr", ispendr, 32),
        ("isactiver", isactiver, 32),
        ("ipriorityr", ipriorityr, 4),
    ] {
        length::<T>(format!("{within}.{name}"), list.len(), interrupts / to_one)?;
    }
    Ok(())
}

impl GicV3StateV1 {
    /// Whether it can be the controller of a machine with these vCPUs and so many SPIs.
    pub(super) fn check(&self, cpus: &[Mpidr], spis: usize) -> Result<(), StateError> {
        lines::<Self>("spis", &self.spis, spis)?;
        length::<Self>("irouter".to_owned(), self.irouter.len(), spis)?;
        length::<Self>("spi_levels".to_owned(), self.spi_levels.len(), spis / 32)?;
        length::<Self>("cpus".to_owned(), self.cpus.len(), cpus.len())?;
        if let Some(n) = self.irouter.iter().position(|route| route >> 24 != 0) {
            let problem = format!("is {:#x}, which is no affinity", self.irouter[n]);
            return Err(wrong::<Self>(format!("irouter[{n}]"), problem));
        }
        for (n, (cpu, mpidr)) in self.cpus.iter().zip(cpus).enumerate() {
            if cpu.mpidr != *mpidr {
                let (found, due) = (cpu.mpidr.affinity(), mpidr.affinity());
                let problem = format!("is {found:#x}, not the vCPU's {due:#x}");
                return Err(wrong::<Self>(format!("cpus[{n}].mpidr"), problem));
            }
            lines::<Self>(&format!("cpus[{n}].private"), &cpu.private, 32)?;
            let due = active_priorities(cpu.icc_ctlr);
            for (name, list) in [("icc_ap0r", &cpu.icc_ap0r), ("icc_ap1r", &cpu.icc_ap1r)] {
                if list.len() != due || due > AP_REGISTERS {
                    let problem = format!("has {} elements, not {due} by icc_ctlr", list.len());
                    return Err(wrong::<Self>(format!("cpus[{n}].{name}"), problem));
                }
            }
        }
        Ok(())
    }
}

impl GicV2StateV1 {
    /// Whether it can be the controller of a machine with so many vCPUs and SPIs.
    pub(super) fn check(&self, cpus: usize, spis: usize) -> Result<(), StateError> {
        lines::<Self>("spis", &self.spis, spis)?;
        length::<Self>("itargetsr".to_owned(), self.itargetsr.len(), spis / 4)?;
        length::<Self>("cpus".to_owned(), self.cpus.len(), cpus)?;
        for (n, cpu) in self.cpus.iter().enumerate() {
            lines::<Self>(&format!("cpus[{n}].private"), &cpu.private, 32)?;
            length::<Self>(format!("cpus[{n}].spendsgir"), cpu.spendsgir.len(), SENDERS)?;
            length::<Self>(format!("cpus[{n}].gicc_apr"), cpu.gicc_apr.len(), GICC_APRS)?;
        }
        Ok(())
    }
}

impl ItsStateV1 {
    /// Whether it can be a translation service.
    pub(super) fn check(&self) -> Result<(), StateError> {
        length::<Self>("gits_baser".to_owned(), self.gits_baser.len(), ITS_TABLES)?;
        // The queue's size in pages of 4 KiB, less one.
        let end = ((self.gits_cbaser & 0xff) + 1) << 12;
        let queue = [("gits_creadr", self.gits_creadr), ("gits_cwriter", self.gits_cwriter)];
        for (field, offset) in queue {
            if offset >= end || offset % COMMAND != 0 {
                let problem = format!("is {offset:#x}: no command of a queue of {end:#x} bytes");
                return Err(wrong::<Self>(field, problem));
            }
        }
        Ok(())
    }
}

/// Bytes of a command.
const COMMAND: u64 = 32;
