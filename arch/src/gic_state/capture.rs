//! Reading the controller's state, while no vCPU runs.

use kedge_diag::Fix;
use kedge_hv::{Gic, GicReg, GicVersion, HvError};
use kedge_ids::{Mpidr, usize_from};

use super::Tables;
use super::name::name;
use super::registers::{self, GITS_CTLR, Saved, Unreached, icc};
use super::saved::{GicV2CpuV1, GicV2StateV1, GicV3CpuV1, GicV3StateV1, ItsStateV1, LinesV1};

/// `ICC_AP0R<n>_EL1` and `ICC_AP1R<n>_EL1`: at most so many each.
pub(super) const AP_REGISTERS: usize = 4;
/// `GICC_APR<n>`.
pub(super) const GICC_APRS: usize = 4;
/// `GICD_SPENDSGIR<n>`.
pub(super) const SENDERS: usize = 4;
/// `GITS_BASER<n>`.
pub(super) const ITS_TABLES: usize = 8;
/// SGIs and PPIs.
const PRIVATE: usize = 32;
/// Which of them are SGIs, by bit.
const SGIS: u32 = 0xffff;

/// Why the controller's state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A register cannot be read.
    #[error("cannot read {register} of the interrupt controller")]
    Register {
        /// The register's name.
        register: String,
        /// What the hypervisor said.
        source: HvError,
    },
    /// The tables of interrupts cannot be brought up to date, and not by the guest's
    /// doing.
    #[error("cannot bring the guest's tables of interrupts up to date")]
    Tables {
        /// What the hypervisor said.
        source: HvError,
    },
}

impl Fix for CaptureError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Register { source, .. } | Self::Tables { source } => {
                (source.errno() == EBUSY).then(|| "pause every vCPU first".to_owned())
            }
        }
    }
}

const ENXIO: i32 = 6;
const EBUSY: i32 = 16;

impl From<Unreached> for CaptureError {
    fn from((reg, source): Unreached) -> Self {
        Self::Register { register: name(reg), source }
    }
}

/// Whether an errno says that the guest's tables are nonsense, or nowhere.
pub(super) fn by_the_guest(error: &HvError) -> bool {
    const ENOENT: i32 = 2;
    const E2BIG: i32 = 7;
    const EFAULT: i32 = 14;
    const EEXIST: i32 = 17;
    const EINVAL: i32 = 22;
    const ENOSPC: i32 = 28;
    [ENOENT, E2BIG, EFAULT, EEXIST, EINVAL, ENOSPC].contains(&error.errno())
}

/// Writes which LPIs are pending, and what the translation service knows, into guest
/// memory: once no vCPU runs and no device raises interrupts any more, before the
/// registers are captured and before the last look at which memory was written.
///
/// A guest whose tables cannot be written, since it put them where it has no memory or
/// let them overlap, loses interrupts by its own doing: no reason not to save it.
///
/// # Errors
/// A vCPU runs, or the hypervisor cannot write the tables.
pub fn flush_tables(gic: &dyn Gic) -> Result<Tables, CaptureError> {
    if gic.version() == GicVersion::V2 {
        return Ok(Tables::Kept);
    }
    let mut tables = Tables::Kept;
    for done in [gic.save_pending_tables(), gic.save_its_tables()] {
        match done {
            Ok(()) => {}
            // No translation service.
            Err(error) if error.errno() == ENXIO => {}
            Err(error) if by_the_guest(&error) => tables = Tables::Lost(error),
            Err(source) => return Err(CaptureError::Tables { source }),
        }
    }
    Ok(tables)
}

fn read(gic: &dyn Gic, list: Vec<Saved<'_>>) -> Result<(), CaptureError> {
    for mut saved in list {
        saved.read(gic)?;
    }
    Ok(())
}

/// How many registers of active priorities each group has by `ICC_CTLR_EL1`.PRIbits:
/// one for each 32 levels of preemption, of which there are 128 at most.
pub(super) fn active_priorities(icc_ctlr: u64) -> usize {
    match (icc_ctlr >> 8 & 0x7) + 1 {
        0..=5 => 1,
        6 => 2,
        _ => AP_REGISTERS,
    }
}

/// Lists that hold so many interrupts.
fn lines(interrupts: usize) -> LinesV1 {
    LinesV1 {
        igroupr: vec![0; interrupts / 32],
        isenabler: vec![0; interrupts / 32],
        icfgr: vec![0; interrupts / 16],
        ispendr: vec![0; interrupts / 32],
        isactiver: vec![0; interrupts / 32],
        ipriorityr: vec![0; interrupts / 4],
    }
}

fn v3_cpu(gic: &dyn Gic, mpidr: Mpidr) -> Result<GicV3CpuV1, CaptureError> {
    let ctlr = GicReg::CpuSystem { cpu: mpidr, encoding: icc::CTLR };
    let icc_ctlr = gic.reg(ctlr).map_err(|error| (ctlr, error))?;
    let active = vec![0; active_priorities(icc_ctlr)];
    Ok(GicV3CpuV1 {
        mpidr,
        gicr_ctlr: 0,
        gicr_statusr: 0,
        gicr_waker: 0,
        gicr_propbaser: 0,
        gicr_pendbaser: 0,
        private: lines(PRIVATE),
        private_levels: 0,
        icc_sre: 0,
        icc_ctlr,
        icc_igrpen0: 0,
        icc_igrpen1: 0,
        icc_pmr: 0,
        icc_bpr0: 0,
        icc_bpr1: 0,
        icc_ap0r: active.clone(),
        icc_ap1r: active,
    })
}

impl GicV3StateV1 {
    pub(super) fn capture(
        gic: &dyn Gic,
        cpus: &[Mpidr],
        spis: usize,
    ) -> Result<Self, CaptureError> {
        let mut state = Self {
            gicd_iidr: 0,
            gicd_typer2: 0,
            gicd_ctlr: 0,
            gicd_statusr: 0,
            spis: lines(spis),
            irouter: vec![0; spis],
            spi_levels: vec![0; spis / 32],
            cpus: cpus.iter().map(|mpidr| v3_cpu(gic, *mpidr)).collect::<Result<_, _>>()?,
        };
        read(gic, registers::v3(&mut state))?;
        Ok(state)
    }
}

impl GicV2StateV1 {
    pub(super) fn capture(gic: &dyn Gic, cpus: usize, spis: usize) -> Result<Self, CaptureError> {
        let cpu = || GicV2CpuV1 {
            private: lines(PRIVATE),
            spendsgir: vec![0; SENDERS],
            gicc_ctlr: 0,
            gicc_pmr: 0,
            gicc_bpr: 0,
            gicc_abpr: 0,
            gicc_apr: vec![0; GICC_APRS],
        };
        let mut state = Self {
            gicd_iidr: 0,
            gicd_ctlr: 0,
            spis: lines(spis),
            itargetsr: vec![0; spis / 4],
            cpus: std::iter::repeat_with(cpu).take(cpus).collect(),
        };
        read(gic, registers::v2(&mut state))?;
        for cpu in &mut state.cpus {
            // An SGI that was made pending there would be the receiver's own.
            cpu.private.ispendr.iter_mut().for_each(|pending| *pending &= !SGIS);
        }
        Ok(state)
    }
}

impl ItsStateV1 {
    /// Reads the translation service's registers, behind [`flush_tables`]. None: there
    /// is no service.
    ///
    /// # Errors
    /// A vCPU runs, or a register cannot be read.
    pub fn capture(gic: &dyn Gic) -> Result<Option<Self>, CaptureError> {
        let gits_ctlr = match gic.reg(GITS_CTLR) {
            Err(error) if error.errno() == ENXIO => return Ok(None),
            result => result.map_err(|error| (GITS_CTLR, error))?,
        };
        let mut state = Self {
            gits_iidr: 0,
            gits_cbaser: 0,
            gits_creadr: 0,
            gits_cwriter: 0,
            gits_baser: vec![0; ITS_TABLES],
            gits_ctlr,
        };
        read(gic, registers::its(&mut state))?;
        Ok(Some(state))
    }
}

/// A number of interrupts as a length.
pub(super) fn count(spis: u32) -> usize {
    usize_from(u64::from(spis))
}
