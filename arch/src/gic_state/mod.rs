//! The interrupt controller's state: saved, judged, restored.
//!
//! Saving, once no vCPU runs and no device raises interrupts: [`flush_tables`],
//! [`GicState::capture`], [`ItsStateV1::capture`], then the guest's memory, into which the
//! first of them wrote. Restoring, into a machine that was just made, with its memory,
//! its vCPUs and their registers in place and its controller initialised, and before any
//! event is wired to an interrupt: [`GicState::restore`], [`ItsStateV1::restore`].
//!
//! The order within is that of Linux, Documentation/virt/kvm/devices/arm-vgic-v3.rst and
//! arm-vgic-its.rst. What every ready controller starts with is not written again: see
//! `registers`. Levels of lines that are the host's own, timers' and the performance
//! monitors', are computed anew at the next run; on a GICv2, which has no register for
//! levels, a line that was high comes back as an interrupt that is pending once.

mod capture;
mod check;
mod fit;
mod name;
mod registers;
mod restore;
pub mod saved;

use kedge_hv::{Gic, GicVersion, HvError};
use kedge_ids::Mpidr;
use kedge_saved_state::{Part, StateError, Versioned};

use capture::count;
pub use capture::{CaptureError, flush_tables};
pub use fit::Misfit;
pub use restore::RestoreError;
pub use saved::{GicV2StateV1, GicV3StateV1, ItsStateV1};

/// What became of the tables of interrupts in guest memory.
#[derive(Debug)]
#[must_use]
pub enum Tables {
    /// They are whole.
    Kept,
    /// The guest put them where it has no memory, or wrote nonsense into them: it loses
    /// interrupts by its own doing, which is worth a warning and no more.
    Lost(HvError),
}

/// What is known of the devices whose interrupts the guest has translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// Nothing: its tables are to be looked through.
    Unknown,
    /// There are none: their table is all zeroes.
    None,
}

/// A saved controller, without its translation service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GicState {
    /// A GICv2.
    V2(GicV2StateV1),
    /// A GICv3.
    V3(GicV3StateV1),
}

impl GicState {
    /// Reads the state of a controller with these vCPUs and so many SPIs, behind
    /// [`flush_tables`].
    ///
    /// # Errors
    /// A vCPU runs, or a register cannot be read.
    pub fn capture(gic: &dyn Gic, cpus: &[Mpidr], spis: u32) -> Result<Self, CaptureError> {
        match gic.version() {
            GicVersion::V2 => GicV2StateV1::capture(gic, cpus.len(), count(spis)).map(Self::V2),
            GicVersion::V3 => GicV3StateV1::capture(gic, cpus, count(spis)).map(Self::V3),
        }
    }

    /// Its version.
    pub const fn version(&self) -> GicVersion {
        match self {
            Self::V2(_) => GicVersion::V2,
            Self::V3(_) => GicVersion::V3,
        }
    }

    /// The state as a part of a saved machine.
    pub fn to_part(&self) -> Part {
        match self {
            Self::V2(state) => Part::of(state),
            Self::V3(state) => Part::of(state),
        }
    }

    /// The state in a part of a saved machine.
    ///
    /// # Errors
    /// The part is no controller's, or damaged.
    pub fn from_part(part: &Part) -> Result<Self, StateError> {
        if part.kind == GicV2StateV1::KIND {
            part.read().map(Self::V2)
        } else {
            part.read().map(Self::V3)
        }
    }

    /// Checks that it can be the controller of a machine with these vCPUs and so many
    /// SPIs: it is input.
    ///
    /// # Errors
    /// It cannot; the error names the field.
    pub fn check(&self, cpus: &[Mpidr], spis: u32) -> Result<(), StateError> {
        match self {
            Self::V2(state) => state.check(cpus.len(), count(spis)),
            Self::V3(state) => state.check(cpus, count(spis)),
        }
    }

    /// What of it `gic`, a controller that was just made ready, cannot have: one of any
    /// machine of this host with as many SPIs, if only with the first vCPU. At most the
    /// revision of the distributor's behaviour is chosen in passing, as restoring would.
    ///
    /// # Errors
    /// A register cannot be read.
    pub fn misfits(&self, gic: &dyn Gic) -> Result<Vec<Misfit>, RestoreError> {
        if self.version() != gic.version() {
            return Ok(vec![fit::other_version(self.version(), gic.version())]);
        }
        Ok(match self {
            Self::V2(state) => state.misfits(gic)?,
            Self::V3(state) => state.misfits(gic)?,
        })
    }

    /// Restores it into `gic`, a controller that was just made ready, of a machine with
    /// these vCPUs and so many SPIs. The tables of LPIs are in guest memory by now.
    ///
    /// # Errors
    /// It is implausible, or `gic` cannot have it; then nothing was written. Or the
    /// hypervisor refuses a value.
    pub fn restore(&self, gic: &dyn Gic, cpus: &[Mpidr], spis: u32) -> Result<(), RestoreError> {
        self.check(cpus, spis)?;
        let misfits = self.misfits(gic)?;
        if !misfits.is_empty() {
            return Err(RestoreError::Misfit(misfits));
        }
        match self {
            Self::V2(state) => state.restore(gic),
            Self::V3(state) => state.restore(gic),
        }
    }
}
