//! The registers that are saved, in the order in which they are restored (Linux,
//! Documentation/virt/kvm/devices/arm-vgic{,-v3,-its}.rst), each with its place in the
//! saved state.
//!
//! The one list serves both ways: what is read into the places is what is written from
//! them.

use kedge_hv::{Gic, GicReg, HvError};
use kedge_ids::{Mpidr, VcpuId};

use super::saved::{GicV2CpuV1, GicV2StateV1, GicV3CpuV1, GicV3StateV1, ItsStateV1, LinesV1};

/// A register and the place of its value.
#[derive(Debug)]
pub(super) struct Saved<'a> {
    reg: GicReg,
    place: Place<'a>,
    birth: Birth,
}

#[derive(Debug)]
enum Place<'a> {
    Word(&'a mut u32),
    Double(&'a mut u64),
    /// The lower half, and the register that is the upper one.
    Halves(&'a mut u64, GicReg),
}

/// What a register holds in a controller that was just made ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Birth {
    /// Zero, need not be written; or it was never zero.
    Zero,
    /// Something else, or it depends on the host.
    Other,
    /// Some bits are set, and a write of this register only sets them: SGIs are let
    /// through from the start.
    Set,
}

const LOWER: u64 = 0xffff_ffff;

/// A register that cannot be reached, and why.
pub(super) type Unreached = (GicReg, HvError);

impl Saved<'_> {
    /// Reads the register into its place.
    pub(super) fn read(&mut self, gic: &dyn Gic) -> Result<(), Unreached> {
        let read = |reg| gic.reg(reg).map_err(|error| (reg, error));
        let value = read(self.reg)?;
        match &mut self.place {
            Place::Word(place) => **place = word(value),
            Place::Double(place) => **place = value,
            Place::Halves(place, upper) => **place = value & LOWER | read(*upper)? << 32,
        }
        Ok(())
    }

    /// What to write to which register of a controller that was just made ready.
    pub(super) fn writes(&self) -> impl Iterator<Item = (GicReg, u64)> + use<> {
        let (value, upper) = match &self.place {
            Place::Word(place) => (u64::from(**place), None),
            Place::Double(place) => (**place, None),
            Place::Halves(place, upper) => (**place & LOWER, Some((*upper, **place >> 32))),
        };
        let due =
            self.birth != Birth::Zero || value != 0 || upper.is_some_and(|(_, half)| half != 0);
        let first = (self.birth == Birth::Set).then(|| (clearing(self.reg), !value & LOWER));
        let all = [first, Some((self.reg, value)), upper];
        all.into_iter().filter(move |_| due).flatten()
    }
}

/// The lower half of a value.
pub(super) fn word(value: u64) -> u32 {
    u32::try_from(value & LOWER).expect("32 bits fit")
}

/// From a register that sets bits to the one that clears them: `ISENABLER<n>` to
/// `ICENABLER<n>`.
fn clearing(reg: GicReg) -> GicReg {
    const FURTHER: u32 = 0x80;
    match reg {
        GicReg::Redistributor { cpu, offset } => {
            GicReg::Redistributor { cpu, offset: offset + FURTHER }
        }
        GicReg::DistributorV2 { cpu, offset } => {
            GicReg::DistributorV2 { cpu, offset: offset + FURTHER }
        }
        other => other,
    }
}

/// The list, as it grows.
#[derive(Default)]
struct List<'a>(Vec<Saved<'a>>);

impl<'a> List<'a> {
    fn word(&mut self, reg: GicReg, place: &'a mut u32, birth: Birth) {
        self.0.push(Saved { reg, place: Place::Word(place), birth });
    }

    fn double(&mut self, reg: GicReg, place: &'a mut u64, birth: Birth) {
        self.0.push(Saved { reg, place: Place::Double(place), birth });
    }

    fn halves(&mut self, reg: impl Fn(u32) -> GicReg, offset: u32, place: &'a mut u64) {
        let place = Place::Halves(place, reg(offset + 4));
        self.0.push(Saved { reg: reg(offset), place, birth: Birth::Zero });
    }

    /// As many registers as there are places, from this offset on.
    fn words(
        &mut self,
        reg: impl Fn(u32) -> GicReg,
        first: u32,
        places: &'a mut [u32],
        birth: Birth,
    ) {
        for (offset, place) in (first..).step_by(4).zip(places) {
            self.word(reg(offset), place, birth);
        }
    }
}

// Where the registers of lines begin, in a distributor and, but for the frame, in a
// redistributor (Arm IHI 0069, 12.9).
const IGROUPR: u32 = 0x80;
const ISENABLER: u32 = 0x100;
const ISPENDR: u32 = 0x200;
const ISACTIVER: u32 = 0x300;
const IPRIORITYR: u32 = 0x400;
const ITARGETSR: u32 = 0x800;
const ICFGR: u32 = 0xc00;
const SPENDSGIR: u32 = 0xf20;
const IROUTER: u32 = 0x6000;
/// The second frame of a redistributor.
const SGI_FRAME: u32 = 0x1_0000;

const CTLR: u32 = 0x0;
const GICD_IIDR: u32 = 0x8;
const GICD_TYPER2: u32 = 0xc;
const STATUSR: u32 = 0x10;
const GICR_WAKER: u32 = 0x14;
const GICR_PROPBASER: u32 = 0x70;
const GICR_PENDBASER: u32 = 0x78;

/// The registers of a GICv3.
pub(super) fn v3(state: &mut GicV3StateV1) -> Vec<Saved<'_>> {
    let GicV3StateV1 { gicd_iidr, gicd_typer2, gicd_ctlr, gicd_statusr, .. } = state;
    let GicV3StateV1 { spis, irouter, spi_levels, cpus, .. } = state;
    let gicd = |offset| GicReg::Distributor { offset };
    let mut list = List::default();
    // The revision first: it says what the other registers do.
    list.word(gicd(GICD_IIDR), gicd_iidr, Birth::Other);
    list.word(gicd(GICD_TYPER2), gicd_typer2, Birth::Other);
    list.word(gicd(CTLR), gicd_ctlr, Birth::Other);
    list.word(gicd(STATUSR), gicd_statusr, Birth::Zero);
    let mut parts = V3Parts::default();
    let any = cpus.first().map_or(Mpidr::of(VcpuId(0)), |cpu| cpu.mpidr);
    cpus.iter_mut().for_each(|cpu| v3_cpu(&mut parts, cpu));
    // All tables before any LPIs are let through: they stay where they are from then on.
    list.0.extend(parts.tables.0.into_iter().chain(parts.switches.0).chain(parts.private.0));

    let LinesV1 { igroupr, isenabler, icfgr, ispendr, isactiver, ipriorityr } = spis;
    list.words(gicd, IGROUPR + 4, igroupr, Birth::Other);
    list.words(gicd, ISENABLER + 4, isenabler, Birth::Zero);
    for (n, place) in (32..).zip(irouter) {
        list.word(gicd(IROUTER + 8 * n), place, Birth::Zero);
    }
    // A line has a level only where it is not an edge.
    list.words(gicd, ICFGR + 8, icfgr, Birth::Other);
    for (first, place) in (32..).step_by(32).zip(spi_levels) {
        list.word(GicReg::LineLevel { cpu: any, first }, place, Birth::Zero);
    }
    list.words(gicd, ISPENDR + 4, ispendr, Birth::Zero);
    list.words(gicd, ISACTIVER + 4, isactiver, Birth::Zero);
    list.words(gicd, IPRIORITYR + 32, ipriorityr, Birth::Zero);
    list.0.extend(parts.interfaces.0);
    list.0
}

/// What vCPUs have, apart: the order goes through all of them part by part.
#[derive(Default)]
struct V3Parts<'a> {
    tables: List<'a>,
    switches: List<'a>,
    private: List<'a>,
    interfaces: List<'a>,
}

fn v3_cpu<'a>(parts: &mut V3Parts<'a>, state: &'a mut GicV3CpuV1) {
    let cpu = state.mpidr;
    let gicr = |offset| GicReg::Redistributor { cpu, offset };
    let sgi = |offset| GicReg::Redistributor { cpu, offset: SGI_FRAME + offset };
    let icc = |encoding| GicReg::CpuSystem { cpu, encoding };
    // Zero where there is no translation service, and only there.
    parts.tables.halves(gicr, GICR_PROPBASER, &mut state.gicr_propbaser);
    parts.tables.halves(gicr, GICR_PENDBASER, &mut state.gicr_pendbaser);
    parts.switches.word(gicr(CTLR), &mut state.gicr_ctlr, Birth::Other);

    let list = &mut parts.private;
    list.word(gicr(STATUSR), &mut state.gicr_statusr, Birth::Zero);
    list.word(gicr(GICR_WAKER), &mut state.gicr_waker, Birth::Zero);
    let LinesV1 { igroupr, isenabler, icfgr, ispendr, isactiver, ipriorityr } = &mut state.private;
    list.words(sgi, IGROUPR, igroupr, Birth::Other);
    list.words(sgi, ISENABLER, isenabler, Birth::Set);
    list.words(sgi, ICFGR, icfgr, Birth::Other);
    list.word(GicReg::LineLevel { cpu, first: 0 }, &mut state.private_levels, Birth::Zero);
    list.words(sgi, ISPENDR, ispendr, Birth::Zero);
    list.words(sgi, ISACTIVER, isactiver, Birth::Zero);
    list.words(sgi, IPRIORITYR, ipriorityr, Birth::Zero);

    let list = &mut parts.interfaces;
    list.double(icc(icc::SRE), &mut state.icc_sre, Birth::Other);
    list.double(icc(icc::CTLR), &mut state.icc_ctlr, Birth::Other);
    list.double(icc(icc::IGRPEN0), &mut state.icc_igrpen0, Birth::Zero);
    list.double(icc(icc::IGRPEN1), &mut state.icc_igrpen1, Birth::Zero);
    list.double(icc(icc::PMR), &mut state.icc_pmr, Birth::Zero);
    list.double(icc(icc::BPR0), &mut state.icc_bpr0, Birth::Zero);
    list.double(icc(icc::BPR1), &mut state.icc_bpr1, Birth::Zero);
    for (n, place) in (0..).zip(&mut state.icc_ap0r) {
        list.double(icc(icc::AP0R0 + n), place, Birth::Zero);
    }
    for (n, place) in (0..).zip(&mut state.icc_ap1r) {
        list.double(icc(icc::AP1R0 + n), place, Birth::Zero);
    }
}

/// The encodings of the CPU interface's registers (Arm IHI 0069, 12.2).
#[rustfmt::skip]
pub(super) mod icc {
    const fn encoding(crn: u16, crm: u16, op2: u16) -> u16 {
        3 << 14 | crn << 7 | crm << 3 | op2
    }

    pub(in super::super) const PMR:     u16 = encoding(4, 6, 0);
    pub(in super::super) const BPR0:    u16 = encoding(12, 8, 3);
    pub(in super::super) const AP0R0:   u16 = encoding(12, 8, 4);
    pub(in super::super) const AP1R0:   u16 = encoding(12, 9, 0);
    pub(in super::super) const BPR1:    u16 = encoding(12, 12, 3);
    pub(in super::super) const CTLR:    u16 = encoding(12, 12, 4);
    pub(in super::super) const SRE:     u16 = encoding(12, 12, 5);
    pub(in super::super) const IGRPEN0: u16 = encoding(12, 12, 6);
    pub(in super::super) const IGRPEN1: u16 = encoding(12, 12, 7);
}

/// The registers of a GICv2.
pub(super) fn v2(state: &mut GicV2StateV1) -> Vec<Saved<'_>> {
    let GicV2StateV1 { gicd_iidr, gicd_ctlr, spis, itargetsr, cpus } = state;
    let gicd = |offset| GicReg::DistributorV2 { cpu: VcpuId(0), offset };
    let mut list = List::default();
    // Groups can be written once the revision was.
    list.word(gicd(GICD_IIDR), gicd_iidr, Birth::Other);
    list.word(gicd(CTLR), gicd_ctlr, Birth::Zero);
    let mut interfaces = List::default();
    for (id, cpu) in (0..).map(VcpuId).zip(cpus) {
        v2_cpu(&mut list, &mut interfaces, id, cpu);
    }
    let LinesV1 { igroupr, isenabler, icfgr, ispendr, isactiver, ipriorityr } = spis;
    list.words(gicd, IGROUPR + 4, igroupr, Birth::Other);
    list.words(gicd, ISENABLER + 4, isenabler, Birth::Zero);
    list.words(gicd, ITARGETSR + 32, itargetsr, Birth::Other);
    list.words(gicd, ICFGR + 8, icfgr, Birth::Other);
    list.words(gicd, ISPENDR + 4, ispendr, Birth::Zero);
    list.words(gicd, ISACTIVER + 4, isactiver, Birth::Zero);
    list.words(gicd, IPRIORITYR + 32, ipriorityr, Birth::Zero);
    list.0.extend(interfaces.0);
    list.0
}

fn v2_cpu<'a>(
    list: &mut List<'a>,
    interfaces: &mut List<'a>,
    cpu: VcpuId,
    state: &'a mut GicV2CpuV1,
) {
    let gicd = |offset| GicReg::DistributorV2 { cpu, offset };
    let gicc = |offset| GicReg::CpuInterfaceV2 { cpu, offset };
    let LinesV1 { igroupr, isenabler, icfgr, ispendr, isactiver, ipriorityr } = &mut state.private;
    list.words(gicd, IGROUPR, igroupr, Birth::Other);
    list.words(gicd, ISENABLER, isenabler, Birth::Set);
    list.words(gicd, ICFGR, icfgr, Birth::Other);
    list.words(gicd, ISPENDR, ispendr, Birth::Zero);
    list.words(gicd, SPENDSGIR, &mut state.spendsgir, Birth::Zero);
    list.words(gicd, ISACTIVER, isactiver, Birth::Zero);
    list.words(gicd, IPRIORITYR, ipriorityr, Birth::Zero);
    // Arm IHI 0048, 4.4: GICC_CTLR, PMR, BPR, ABPR, APR<n>.
    interfaces.word(gicc(0x0), &mut state.gicc_ctlr, Birth::Zero);
    interfaces.word(gicc(0x4), &mut state.gicc_pmr, Birth::Zero);
    interfaces.word(gicc(0x8), &mut state.gicc_bpr, Birth::Zero);
    interfaces.word(gicc(0x1c), &mut state.gicc_abpr, Birth::Zero);
    interfaces.words(gicc, 0xd0, &mut state.gicc_apr, Birth::Zero);
}

/// `GITS_CTLR`, which comes last, behind the tables.
pub(super) const GITS_CTLR: GicReg = GicReg::Its { offset: 0x0 };

/// The registers of a translation service but for its `GITS_CTLR`.
pub(super) fn its(state: &mut ItsStateV1) -> Vec<Saved<'_>> {
    let gits = |offset| GicReg::Its { offset };
    let mut list = List::default();
    list.double(gits(0x4), &mut state.gits_iidr, Birth::Other);
    // What is written to CBASER zeroes CREADR.
    list.double(gits(0x80), &mut state.gits_cbaser, Birth::Zero);
    list.double(gits(0x90), &mut state.gits_creadr, Birth::Zero);
    list.double(gits(0x88), &mut state.gits_cwriter, Birth::Zero);
    for (offset, place) in (0x100..).step_by(8).zip(&mut state.gits_baser) {
        list.double(gits(offset), place, Birth::Zero);
    }
    list.0
}
