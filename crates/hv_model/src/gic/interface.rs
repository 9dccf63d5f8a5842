//! The registers of a CPU interface, as their user reaches them.

use crate::refusal::Refusal;

/// `ICC_CTLR_EL1`.A3V: affinities have a third level.
const A3V: u64 = 1 << 15;
const SEIS: u64 = 1 << 14;

/// The CPU interface of a GICv3, on a host as QEMU makes it: five bits of priority, ids
/// of 24 bits, affinities of four levels.
#[derive(Debug)]
pub(crate) struct SystemInterface {
    /// PRIbits and IDbits of `ICC_CTLR_EL1`, which only shrink.
    sizes: [u64; 2],
    common_binary_point: bool,
    eoi_mode: bool,
    igrpen: [bool; 2],
    pmr: u64,
    bpr: [u64; 2],
    active: [[u64; 4]; 2],
}

impl Default for SystemInterface {
    fn default() -> Self {
        Self {
            sizes: [4, 1],
            common_binary_point: false,
            eoi_mode: false,
            igrpen: [false; 2],
            pmr: 0,
            bpr: [0; 2],
            active: [[0; 4]; 2],
        }
    }
}

/// A register of the interface, by its encoding.
#[derive(Clone, Copy)]
enum System {
    Pmr,
    Bpr(usize),
    Active(usize, usize),
    Ctlr,
    Sre,
    Igrpen(usize),
}

impl SystemInterface {
    fn find(&self, encoding: u16) -> Result<System, Refusal> {
        let system = match encoding {
            0xc230 => System::Pmr,
            0xc643 => System::Bpr(0),
            0xc663 => System::Bpr(1),
            0xc644..0xc648 => System::Active(0, usize::from(encoding - 0xc644)),
            0xc648..0xc64c => System::Active(1, usize::from(encoding - 0xc648)),
            0xc664 => System::Ctlr,
            0xc665 => System::Sre,
            0xc666 => System::Igrpen(0),
            0xc667 => System::Igrpen(1),
            _ => return Err(Refusal::NoCpuRegister),
        };
        let most = match self.sizes[0] {
            0..=4 => 1,
            5 => 2,
            _ => 4,
        };
        match system {
            System::Active(_, n) if n >= most => Err(Refusal::NoActivePriorities),
            system => Ok(system),
        }
    }

    pub(crate) fn read(&self, encoding: u16) -> Result<u64, Refusal> {
        Ok(match self.find(encoding)? {
            System::Pmr => self.pmr,
            System::Bpr(1) if self.common_binary_point => (self.bpr[0] + 1).min(7),
            System::Bpr(group) => self.bpr[group],
            System::Active(group, n) => self.active[group][n],
            System::Ctlr => {
                let [priority, id] = self.sizes;
                let switches = u64::from(self.eoi_mode) << 1 | u64::from(self.common_binary_point);
                A3V | id << 11 | priority << 8 | switches
            }
            System::Sre => 0b111,
            System::Igrpen(group) => self.igrpen[group].into(),
        })
    }

    pub(crate) fn write(&mut self, encoding: u16, value: u64) -> Result<(), Refusal> {
        match self.find(encoding)? {
            System::Pmr => self.pmr = value & 0xff,
            System::Bpr(1) if self.common_binary_point => {}
            System::Bpr(group) => self.bpr[group] = value & 7,
            System::Active(group, n) => self.active[group][n] = value & 0xffff_ffff,
            System::Ctlr => return self.set_ctlr(value),
            System::Sre if value & 1 == 0 => return Err(Refusal::GicRegisterValue),
            System::Sre => {}
            System::Igrpen(group) => self.igrpen[group] = value & 1 != 0,
        }
        Ok(())
    }

    /// What is taken before something is refused stays taken.
    fn set_ctlr(&mut self, value: u64) -> Result<(), Refusal> {
        for (size, shift) in self.sizes.iter_mut().zip([8, 11]) {
            let wanted = value >> shift & 7;
            if wanted > *size {
                return Err(Refusal::GicRegisterValue);
            }
            *size = wanted;
        }
        if value & (SEIS | A3V) != A3V {
            return Err(Refusal::GicRegisterValue);
        }
        self.common_binary_point = value & 1 != 0;
        self.eoi_mode = value & 2 != 0;
        Ok(())
    }
}

/// The CPU interface of a GICv2.
#[derive(Debug, Default)]
pub(crate) struct MappedInterface {
    ctlr: u32,
    pmr: u32,
    bpr: u32,
    abpr: u32,
    apr: u32,
}

/// `GICC_IIDR`: KVM's product, 'K', a GICv2, and Arm.
const GICC_IIDR: u32 = 0x4b2_043b;

impl MappedInterface {
    /// The register at an offset, and which of its bits there are.
    fn find(&mut self, offset: u32) -> Option<(&mut u32, u32)> {
        match offset {
            0x0 => Some((&mut self.ctlr, 0x21f)),
            0x4 => Some((&mut self.pmr, 0x1f)),
            0x8 => Some((&mut self.bpr, 0x7)),
            0x1c => Some((&mut self.abpr, 0x7)),
            0xd0 => Some((&mut self.apr, u32::MAX)),
            _ => None,
        }
    }

    pub(crate) fn read(&mut self, offset: u32) -> u32 {
        let none = if offset == 0xfc { GICC_IIDR } else { 0 };
        self.find(offset).map_or(none, |(value, _)| *value)
    }

    pub(crate) fn write(&mut self, offset: u32, value: u32) {
        if let Some((place, bits)) = self.find(offset) {
            *place = value & bits;
        }
    }
}
