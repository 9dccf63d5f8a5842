//! The interrupt controller's state, and which part of it a register is.

use std::collections::BTreeMap;

use kedge_hv::{GicConfig, GicReg, GicVersion};
use kedge_ids::{Mpidr, Spi, VcpuId};

use crate::gic::attributes::{REDISTRIBUTOR, sanitised};
use crate::gic::interface::{MappedInterface, SystemInterface};
use crate::gic::its::Its;
use crate::gic::lines::{Line, Lines, Rules};
use crate::refusal::Refusal;

/// The interrupt controller.
#[derive(Debug)]
pub(crate) struct GicState {
    pub(crate) config: GicConfig,
    pub(crate) ready: bool,
    /// Of the distributor's behaviour.
    pub(crate) revision: u32,
    /// Whether its user chose the revision.
    pub(crate) chosen: bool,
    enabled: bool,
    spis: Vec<Line>,
    cpus: BTreeMap<u32, Cpu>,
    propbaser: u64,
    pub(crate) its: Option<Its>,
}

/// What the controller has for one vCPU.
#[derive(Debug)]
struct Cpu {
    private: Vec<Line>,
    lpis: bool,
    pendbaser: u64,
    system: SystemInterface,
    mapped: MappedInterface,
}

/// Inner shareable, and cacheable as KVM would have it.
const TABLES: u64 = 3 << 7 | 1 << 10;
/// `GICR_PROPBASER` and `GICR_PENDBASER`: bits that there are not.
const NO_PROPERTIES: u64 = 0x1f << 59 | 0xf << 52 | 3 << 5;
const NO_PENDING: u64 = 1 << 63 | 7 << 59 | 0xf << 52 | 0xf << 12 | 0x7f;
/// `GICR_PENDBASER`.PTZ, which is never read.
const PTZ: u64 = 1 << 62;
/// `GICR_IIDR`, and `GICD_IIDR` without its revision: KVM's product, 'K', and Arm.
pub(crate) const PRODUCT: u32 = 0x4b00_043b;
pub(crate) const REVISION_SHIFT: u32 = 12;
/// `GICD_PIDR2`: a GICv3.
const PIDR2: u32 = 0x3b;
/// `GICD_CTLR` of a GICv3: security is off, affinities are on.
const GICD_CTLR: u32 = 1 << 6 | 1 << 4;
const ENABLE_GROUP_1: u32 = 1 << 1;
/// `GICR_CTLR`: EnableLPIs; CES and IR, with which a guest learns that it can turn them
/// off again (revision 3).
const ENABLE_LPIS: u32 = 1;
const CAN_DISABLE_LPIS: u32 = 0b110;
const SGI_FRAME: u32 = 0x1_0000;

impl Cpu {
    fn new(rules: Rules) -> Self {
        Self {
            private: Line::private(rules),
            lpis: false,
            pendbaser: TABLES,
            system: SystemInterface::default(),
            mapped: MappedInterface::default(),
        }
    }
}

impl GicState {
    /// Whether `spi` is one of its inputs.
    pub(crate) fn has(&self, spi: Spi) -> bool {
        let (GicConfig::V2 { spis, .. } | GicConfig::V3 { spis, .. }) = self.config;
        spi.offset() < spis
    }

    /// One as it is created.
    pub(crate) fn new(config: GicConfig, revision: u32) -> Self {
        let (spis, its, rules) = match config {
            GicConfig::V2 { spis, .. } => (spis, None, Rules::V2 { groups: false }),
            GicConfig::V3 { spis, its, .. } => (spis, its, Rules::V3),
        };
        Self {
            config,
            ready: false,
            revision,
            chosen: false,
            enabled: false,
            spis: Line::spis(spis, rules),
            cpus: BTreeMap::new(),
            // A translation service comes with the place of its properties.
            propbaser: its.map_or(0, |_| TABLES),
            its: its.map(|_| Its::default()),
        }
    }

    fn rules(&self) -> Rules {
        match self.config.version() {
            GicVersion::V2 => Rules::V2 { groups: self.chosen },
            GicVersion::V3 => Rules::V3,
        }
    }

    fn cpu(&mut self, index: u32) -> &mut Cpu {
        let rules = self.rules();
        self.cpus.entry(index).or_insert_with(|| Cpu::new(rules))
    }

    /// The lines that a distributor's or redistributor's registers are about.
    fn lines(&mut self, reg: GicReg, index: u32, cpus: usize) -> Lines<'_> {
        let rules = self.rules();
        let _ = self.cpu(index);
        let Some(cpu) = self.cpus.get_mut(&index) else {
            return Lines { private: &mut [], shared: &mut [], cpu: index, cpus, rules };
        };
        let private: &mut [Line] = match reg {
            GicReg::Distributor { .. } => &mut [],
            _ => &mut cpu.private,
        };
        let shared: &mut [Line] = match reg {
            GicReg::Redistributor { .. } => &mut [],
            _ => &mut self.spis,
        };
        Lines { private, shared, cpu: index, cpus, rules }
    }

    /// Reads `reg`; the vCPU is the one that it names, or any.
    pub(crate) fn read(&mut self, reg: GicReg, index: u32, cpus: usize) -> Result<u64, Refusal> {
        let word = match reg {
            GicReg::Distributor { offset } | GicReg::DistributorV2 { offset, .. } => {
                match self.identity(offset, cpus) {
                    Some(value) => value,
                    None => self.lines(reg, index, cpus).read(offset),
                }
            }
            GicReg::Redistributor { offset, .. } => match offset.checked_sub(SGI_FRAME) {
                Some(offset) => self.lines(reg, index, cpus).read(offset),
                None => self.redistributor(offset, index),
            },
            GicReg::CpuSystem { encoding, .. } => return self.cpu(index).system.read(encoding),
            GicReg::LineLevel { first, .. } if first % 32 != 0 => {
                return Err(Refusal::LevelAlignment);
            }
            GicReg::LineLevel { first, .. } => self.lines(reg, index, cpus).levels(first.into()),
            GicReg::Its { offset } => {
                return self.its.as_ref().ok_or(Refusal::NoGicRegister)?.read(offset);
            }
            GicReg::CpuInterfaceV2 { offset, .. } => self.cpu(index).mapped.read(offset),
        };
        Ok(word.into())
    }

    /// Writes it.
    pub(crate) fn write(
        &mut self,
        reg: GicReg,
        (index, cpus): (u32, usize),
        value: u64,
    ) -> Result<(), Refusal> {
        let word = u32::try_from(value & 0xffff_ffff).unwrap_or_default();
        match reg {
            GicReg::Distributor { offset: 0x0 } => self.enabled = word & ENABLE_GROUP_1 != 0,
            GicReg::DistributorV2 { offset: 0x0, .. } => self.enabled = word & 1 != 0,
            GicReg::Distributor { offset: 0xc } if word != 0 => return Err(Refusal::GicTyper2),
            GicReg::Distributor { offset } | GicReg::DistributorV2 { offset, .. } => {
                self.lines(reg, index, cpus).write(offset, word);
            }
            GicReg::Redistributor { offset, .. } => match offset.checked_sub(SGI_FRAME) {
                Some(offset) => self.lines(reg, index, cpus).write(offset, word),
                None => self.set_redistributor(offset, index, word),
            },
            GicReg::CpuSystem { encoding, .. } => {
                return self.cpu(index).system.write(encoding, value);
            }
            GicReg::LineLevel { first, .. } if first % 32 != 0 => {
                return Err(Refusal::LevelAlignment);
            }
            GicReg::LineLevel { first, .. } => {
                self.lines(reg, index, cpus).set_levels(first.into(), word);
            }
            GicReg::Its { offset } => {
                return self.its.as_mut().ok_or(Refusal::NoGicRegister)?.write(offset, value);
            }
            GicReg::CpuInterfaceV2 { offset, .. } => self.cpu(index).mapped.write(offset, word),
        }
        Ok(())
    }

    /// What a distributor says of itself, and its switch.
    fn identity(&self, offset: u32, cpus: usize) -> Option<u32> {
        let v3 = self.rules() == Rules::V3;
        let lines = u32::try_from(self.spis.len() / 32).unwrap_or_default();
        match offset {
            0x0 if v3 => Some(GICD_CTLR | u32::from(self.enabled) << 1),
            0x0 => Some(self.enabled.into()),
            0x4 if v3 => {
                Some(if self.its.is_some() { 15 << 19 | 1 << 17 } else { 9 << 19 } | lines)
            }
            0x4 => Some(u32::try_from(cpus.saturating_sub(1)).unwrap_or_default() << 5 | lines),
            0x8 => Some(PRODUCT | self.revision << REVISION_SHIFT),
            0x10 if v3 => Some(u32::MAX),
            0xffe8 if v3 => Some(PIDR2),
            _ => None,
        }
    }

    fn redistributor(&mut self, offset: u32, index: u32) -> u32 {
        let revision_3 = self.revision >= 3;
        let (propbaser, cpu) = (self.propbaser, self.cpu(index));
        let half = |value: u64| u32::try_from(value >> (offset % 8 * 8) & 0xffff_ffff);
        match offset {
            0x0 if revision_3 => CAN_DISABLE_LPIS | u32::from(cpu.lpis),
            0x0 => cpu.lpis.into(),
            0x4 => PRODUCT,
            0x70 | 0x74 => half(propbaser).unwrap_or_default(),
            0x78 | 0x7c => half(cpu.pendbaser & !PTZ).unwrap_or_default(),
            _ => 0,
        }
    }

    fn set_redistributor(&mut self, offset: u32, index: u32, value: u32) {
        let (service, propbaser) = (self.its.is_some(), self.propbaser);
        let cpu = self.cpu(index);
        let with_half = |whole: u64| {
            let shift = offset % 8 * 8;
            whole & !(0xffff_ffff << shift) | u64::from(value) << shift
        };
        match offset {
            0x0 if service => cpu.lpis = value & ENABLE_LPIS != 0,
            0x70 | 0x74 if !cpu.lpis => {
                let value = with_half(propbaser) & !NO_PROPERTIES;
                self.propbaser = sanitised(value, REDISTRIBUTOR);
            }
            0x78 | 0x7c if !cpu.lpis => {
                let value = with_half(cpu.pendbaser) & !NO_PENDING;
                cpu.pendbaser = sanitised(value, REDISTRIBUTOR);
            }
            _ => {}
        }
    }
}

/// The index of the vCPU that `reg` names, among those that there are; the first where it
/// names none.
pub(crate) fn named(reg: GicReg, cpus: impl IntoIterator<Item = u32>) -> Option<u32> {
    let mut cpus = cpus.into_iter();
    match reg {
        GicReg::Distributor { .. } | GicReg::Its { .. } => cpus.next(),
        GicReg::Redistributor { cpu, .. }
        | GicReg::CpuSystem { cpu, .. }
        | GicReg::LineLevel { cpu, .. } => cpus.find(|index| Mpidr::of(VcpuId(*index)) == cpu),
        GicReg::DistributorV2 { cpu, .. } | GicReg::CpuInterfaceV2 { cpu, .. } => {
            cpus.find(|index| *index == cpu.0)
        }
    }
}
