//! Whether a saved controller can be had here: what the guest sees of a controller and
//! its user cannot choose.

use std::fmt;

use kedge_hv::{Gic, GicReg, GicVersion};
use kedge_ids::{VcpuId, u64_from};

use super::registers::{Unreached, icc};
use super::saved::{GicV2StateV1, GicV3StateV1};

/// Something that is otherwise here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The field, by the register that shows it.
    pub field: &'static str,
    /// What is saved.
    pub saved: u64,
    /// What this host has, or its most.
    pub here: u64,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, saved, here } = self;
        write!(f, "{field} is saved as {saved:#x} and {here:#x} here")
    }
}

/// `GICD_TYPER` (Arm IHI 0069, 12.9.38): how many interrupts, by 32, less one.
const IT_LINES: u64 = 0x1f;
/// Whether there are LPIs.
const LPIS: u64 = 1 << 17;
/// `GICR_CTLR`.EnableLPIs.
const ENABLE_LPIS: u32 = 1;
/// `GICD_IIDR`.Revision.
const REVISION: u64 = 0xf << 12;

/// Fields of `ICC_CTLR_EL1` (Arm IHI 0069, 12.2.6): lowest bit, width, and whether the
/// host's can be had smaller.
const ICC_CTLR: [(&str, u32, u64, Room); 4] = [
    ("ICC_CTLR_EL1.PRIbits", 8, 0x7, Room::AtMost),
    ("ICC_CTLR_EL1.IDbits", 11, 0x7, Room::AtMost),
    ("ICC_CTLR_EL1.SEIS", 14, 0x1, Room::Exactly),
    ("ICC_CTLR_EL1.A3V", 15, 0x1, Room::Exactly),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    AtMost,
    Exactly,
}

fn read(gic: &dyn Gic, reg: GicReg) -> Result<u64, Unreached> {
    gic.reg(reg).map_err(|error| (reg, error))
}

/// What the distributor says of itself: whose it is and its revision, and how many
/// interrupts there are.
fn distributor(
    gic: &dyn Gic,
    register: impl Fn(u32) -> GicReg,
    iidr: u32,
    spis: usize,
) -> Result<Vec<Misfit>, Unreached> {
    let mut misfits = Vec::new();
    let saved = u64::from(iidr);
    let here = read(gic, register(0x8))?;
    if (saved ^ here) & !REVISION != 0 {
        misfits.push(Misfit { field: "GICD_IIDR", saved, here });
    } else if gic.set_reg(register(0x8), saved).is_err() {
        // Which revisions there are can only be tried: the first step of restoring, and
        // none at all where it is refused.
        misfits.push(Misfit {
            field: "GICD_IIDR.Revision",
            saved: revision(saved),
            here: revision(here),
        });
    }
    let here = read(gic, register(0x4))? & IT_LINES;
    let saved = u64_from(spis / 32);
    if saved != here {
        misfits.push(Misfit { field: "GICD_TYPER.ITLinesNumber", saved, here });
    }
    Ok(misfits)
}

const fn revision(iidr: u64) -> u64 {
    iidr >> REVISION.trailing_zeros() & 0xf
}

impl GicV3StateV1 {
    pub(super) fn misfits(&self, gic: &dyn Gic) -> Result<Vec<Misfit>, Unreached> {
        let gicd = |offset| GicReg::Distributor { offset };
        let mut misfits = distributor(gic, gicd, self.gicd_iidr, self.irouter.len())?;
        let typer2 = read(gic, gicd(0xc))?;
        if u64::from(self.gicd_typer2) != typer2 {
            let saved = self.gicd_typer2.into();
            misfits.push(Misfit { field: "GICD_TYPER2", saved, here: typer2 });
        }
        let lpis = read(gic, gicd(0x4))? & LPIS != 0;
        if !lpis && self.cpus.iter().any(|cpu| cpu.gicr_ctlr & ENABLE_LPIS != 0) {
            // The switch would stay off, without a word.
            misfits.push(Misfit { field: "GICD_TYPER.LPIS", saved: 1, here: 0 });
        }
        let Some(first) = self.cpus.first() else { return Ok(misfits) };
        // Every vCPU is born with the host's. Never tried by writing: a refused value is
        // taken in part, and PRIbits and IDbits only ever shrink.
        let here = read(gic, GicReg::CpuSystem { cpu: first.mpidr, encoding: icc::CTLR })?;
        for cpu in &self.cpus {
            for (field, shift, mask, room) in ICC_CTLR {
                let (saved, here) = (cpu.icc_ctlr >> shift & mask, here >> shift & mask);
                let misfit = Misfit { field, saved, here };
                let differs = saved > here || saved != here && room == Room::Exactly;
                if differs && !misfits.contains(&misfit) {
                    misfits.push(misfit);
                }
            }
        }
        Ok(misfits)
    }
}

impl GicV2StateV1 {
    pub(super) fn misfits(&self, gic: &dyn Gic) -> Result<Vec<Misfit>, Unreached> {
        let gicd = |offset| GicReg::DistributorV2 { cpu: VcpuId(0), offset };
        distributor(gic, gicd, self.gicd_iidr, self.itargetsr.len() * 4)
    }
}

/// A controller of the other version.
pub(super) fn other_version(saved: GicVersion, here: GicVersion) -> Misfit {
    let number = |version| match version {
        GicVersion::V2 => 2,
        GicVersion::V3 => 3,
    };
    Misfit { field: "the version of the GIC", saved: number(saved), here: number(here) }
}
