//! Writing a saved state into a controller that was just made ready.

use kedge_diag::Fix;
use kedge_guest_memory::GuestAddress;
use kedge_hv::{Gic, GicReg, HvError};
use kedge_saved_state::StateError;

use super::capture::by_the_guest;
use super::fit::Misfit;
use super::name::name;
use super::registers::{self, GITS_CTLR, Saved, Unreached};
use super::saved::{GicV2StateV1, GicV3StateV1, ItsStateV1};
use super::{Devices, Tables};

/// Why a saved controller cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The saved state is none.
    #[error(transparent)]
    Implausible(#[from] StateError),
    /// This host's controller differs where the guest would see it. Nothing was written.
    #[error("the saved interrupt controller is not this host's: {}", list(.0))]
    Misfit(Vec<Misfit>),
    /// A register cannot be read.
    #[error("cannot read {register} of the interrupt controller")]
    Read {
        /// The register's name.
        register: String,
        /// What the hypervisor said.
        source: HvError,
    },
    /// A register cannot be written.
    #[error("cannot set {register} of the interrupt controller to {value:#x}")]
    Write {
        /// The register's name.
        register: String,
        /// The saved value.
        value: u64,
        /// What the hypervisor said.
        source: HvError,
    },
    /// A register took another value.
    #[error("{register} of the interrupt controller is {found:#x} once it was set to {value:#x}")]
    Dropped {
        /// The register's name.
        register: String,
        /// The saved value.
        value: u64,
        /// What it holds.
        found: u64,
    },
    /// The tables of interrupts cannot be read, and not by the guest's doing.
    #[error("cannot take the guest's tables of interrupts up again")]
    Tables {
        /// What the hypervisor said.
        source: HvError,
    },
}

fn list(misfits: &[Misfit]) -> String {
    misfits.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Fix for RestoreError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Implausible(error) => error.fix(),
            Self::Misfit(_) => Some(
                "restore on a host with the same kind of interrupt controller, and a kernel \
                 at least as new as the one the guest was born on"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl From<Unreached> for RestoreError {
    fn from((reg, source): Unreached) -> Self {
        Self::Read { register: name(reg), source }
    }
}

pub(super) fn write(gic: &dyn Gic, (reg, value): (GicReg, u64)) -> Result<(), RestoreError> {
    let refused = |source| RestoreError::Write { register: name(reg), value, source };
    gic.set_reg(reg, value).map_err(refused)
}

fn write_all(gic: &dyn Gic, list: &[Saved<'_>]) -> Result<(), RestoreError> {
    list.iter().flat_map(Saved::writes).try_for_each(|due| write(gic, due))
}

impl GicV3StateV1 {
    pub(super) fn restore(&self, gic: &dyn Gic) -> Result<(), RestoreError> {
        write_all(gic, &registers::v3(&mut self.clone()))
    }
}

impl GicV2StateV1 {
    pub(super) fn restore(&self, gic: &dyn Gic) -> Result<(), RestoreError> {
        write_all(gic, &registers::v2(&mut self.clone()))
    }
}

/// `GITS_BASER<n>.Valid`.
const VALID: u64 = 1 << 63;

/// Whether a `GITS_BASER<n>` has a table of devices behind it.
const fn is_of_devices(baser: u64) -> bool {
    const DEVICES: u64 = 1;
    baser & VALID != 0 && baser >> 56 & 0x7 == DEVICES
}

impl ItsStateV1 {
    /// Restores the translation service of a machine that was just made, behind its
    /// guest memory and the rest of the controller ([`super::GicState::restore`]).
    ///
    /// Tables that make no sense are the guest's doing: the service then knows nothing,
    /// as one whose guest never mapped anything. A table of devices that is known to be
    /// empty is not looked through: KVM reads it entry by entry, thousands of them.
    ///
    /// # Errors
    /// The state is implausible, or there is no service here that can hold it; or the
    /// hypervisor fails for a reason of its own.
    pub fn restore(&self, gic: &dyn Gic, devices: Devices) -> Result<Tables, RestoreError> {
        self.check()?;
        let looked_through = match devices {
            Devices::Unknown => self.clone(),
            Devices::None => self.without_devices(),
        };
        looked_through.write(gic)?;
        let tables = match gic.restore_its_tables() {
            Ok(()) => Tables::Kept,
            Err(error) if by_the_guest(&error) => {
                gic.reset_its().map_err(|source| RestoreError::Tables { source })?;
                self.write(gic)?;
                Tables::Lost(error)
            }
            Err(source) => return Err(RestoreError::Tables { source }),
        };
        self.write_beyond(&looked_through, gic)?;
        write(gic, (GITS_CTLR, self.gits_ctlr))?;
        Ok(tables)
    }

    /// Where the guest's table of devices begins, and how many bytes its first level has,
    /// if it has any (Arm IHI 0069, 12.19.1): KVM's pages have 64 KiB.
    pub fn device_table(&self) -> Option<(GuestAddress, u64)> {
        const PAGE: u64 = 64 << 10;
        let table = *self.gits_baser.iter().find(|baser| is_of_devices(**baser))?;
        let address = table & 0xffff_ffff_0000 | (table & 0xf000) << 36;
        Some((GuestAddress(address), ((table & 0xff) + 1) * PAGE))
    }

    /// The same with no table of devices.
    fn without_devices(&self) -> Self {
        let mut state = self.clone();
        let devices = state.gits_baser.iter_mut().filter(|baser| is_of_devices(**baser));
        devices.for_each(|baser| *baser &= !VALID);
        state
    }

    /// Writes the registers, and sees that they hold: parts of some cannot be changed.
    fn write(&self, gic: &dyn Gic) -> Result<(), RestoreError> {
        let writes: Vec<_> =
            registers::its(&mut self.clone()).iter().flat_map(Saved::writes).collect();
        write_and_look(gic, &writes)
    }

    /// The same of those that are otherwise than those written of `before`.
    fn write_beyond(&self, before: &Self, gic: &dyn Gic) -> Result<(), RestoreError> {
        let writes = |state: &Self| -> Vec<_> {
            registers::its(&mut state.clone()).iter().flat_map(Saved::writes).collect()
        };
        let before = writes(before);
        let mut due = writes(self);
        due.retain(|write| !before.contains(write));
        write_and_look(gic, &due)
    }
}

fn write_and_look(gic: &dyn Gic, writes: &[(GicReg, u64)]) -> Result<(), RestoreError> {
    writes.iter().try_for_each(|due| write(gic, *due))?;
    for (reg, value) in writes.iter().copied() {
        let found = gic.reg(reg).map_err(|error| (reg, error))?;
        if found != value {
            return Err(RestoreError::Dropped { register: name(reg), value, found });
        }
    }
    Ok(())
}
