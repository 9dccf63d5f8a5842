//! What the architecture calls a register of the controller.

use kedge_hv::GicReg;
use kedge_ids::Mpidr;

use super::registers::icc;

/// From the first offset to the last, registers of this many bytes with this name.
type Row = (u32, u32, u32, &'static str);

const LINES: &[Row] = &[
    (0x80, 0xff, 4, "IGROUPR"),
    (0x100, 0x17f, 4, "ISENABLER"),
    (0x180, 0x1ff, 4, "ICENABLER"),
    (0x200, 0x27f, 4, "ISPENDR"),
    (0x280, 0x2ff, 4, "ICPENDR"),
    (0x300, 0x37f, 4, "ISACTIVER"),
    (0x380, 0x3ff, 4, "ICACTIVER"),
    (0x400, 0x7ff, 4, "IPRIORITYR"),
    (0x800, 0xbff, 4, "ITARGETSR"),
    (0xc00, 0xcff, 4, "ICFGR"),
    (0xf10, 0xf1f, 4, "CPENDSGIR"),
    (0xf20, 0xf2f, 4, "SPENDSGIR"),
    (0x6000, 0x7fff, 8, "IROUTER"),
];
const DISTRIBUTOR: &[Row] = &[
    (0x0, 0x3, 0, "CTLR"),
    (0x4, 0x7, 0, "TYPER"),
    (0x8, 0xb, 0, "IIDR"),
    (0xc, 0xf, 0, "TYPER2"),
    (0x10, 0x13, 0, "STATUSR"),
];
const REDISTRIBUTOR: &[Row] = &[
    (0x0, 0x3, 0, "CTLR"),
    (0x10, 0x13, 0, "STATUSR"),
    (0x14, 0x17, 0, "WAKER"),
    (0x70, 0x77, 0, "PROPBASER"),
    (0x78, 0x7f, 0, "PENDBASER"),
];
const INTERFACE_V2: &[Row] = &[
    (0x0, 0x3, 0, "CTLR"),
    (0x4, 0x7, 0, "PMR"),
    (0x8, 0xb, 0, "BPR"),
    (0x1c, 0x1f, 0, "ABPR"),
    (0xd0, 0xdf, 4, "APR"),
];
const SERVICE: &[Row] = &[
    (0x0, 0x3, 0, "CTLR"),
    (0x4, 0x7, 0, "IIDR"),
    (0x80, 0x87, 0, "CBASER"),
    (0x88, 0x8f, 0, "CWRITER"),
    (0x90, 0x97, 0, "CREADR"),
    (0x100, 0x13f, 8, "BASER"),
];

fn find(prefix: &str, rows: &[&[Row]], offset: u32) -> String {
    let mut rows = rows.iter().copied().flatten();
    match rows.find(|(first, last, ..)| (*first..=*last).contains(&offset)) {
        Some((_, _, 0, name)) => format!("{prefix}_{name}"),
        Some((first, _, bytes, name)) => format!("{prefix}_{name}{}", (offset - first) / bytes),
        None => format!("{prefix} register {offset:#x}"),
    }
}

/// The name, and whose it is where each vCPU has one.
pub(super) fn name(reg: GicReg) -> String {
    let of = |cpu: Mpidr| format!(" of the vCPU with affinity {:#x}", cpu.affinity());
    match reg {
        GicReg::Distributor { offset } => find("GICD", &[DISTRIBUTOR, LINES], offset),
        GicReg::Redistributor { cpu, offset } => match offset.checked_sub(0x1_0000) {
            Some(offset) => find("GICR", &[LINES], offset) + &of(cpu),
            None => find("GICR", &[REDISTRIBUTOR], offset) + &of(cpu),
        },
        GicReg::CpuSystem { cpu, encoding } => system(encoding) + &of(cpu),
        GicReg::LineLevel { cpu, first: 0 } => "levels of private lines".to_owned() + &of(cpu),
        GicReg::LineLevel { first, .. } => format!("levels of lines {first} to {}", first + 31),
        GicReg::Its { offset } => find("GITS", &[SERVICE], offset),
        GicReg::DistributorV2 { cpu, offset } => {
            format!("{} of vCPU {cpu}", find("GICD", &[DISTRIBUTOR, LINES], offset))
        }
        GicReg::CpuInterfaceV2 { cpu, offset } => {
            format!("{} of vCPU {cpu}", find("GICC", &[INTERFACE_V2], offset))
        }
    }
}

fn system(encoding: u16) -> String {
    let name = match encoding {
        icc::SRE => "SRE",
        icc::CTLR => "CTLR",
        icc::IGRPEN0 => "IGRPEN0",
        icc::IGRPEN1 => "IGRPEN1",
        icc::PMR => "PMR",
        icc::BPR0 => "BPR0",
        icc::BPR1 => "BPR1",
        _ if (icc::AP0R0..icc::AP0R0 + 4).contains(&encoding) => {
            return format!("ICC_AP0R{}_EL1", encoding - icc::AP0R0);
        }
        _ if (icc::AP1R0..icc::AP1R0 + 4).contains(&encoding) => {
            return format!("ICC_AP1R{}_EL1", encoding - icc::AP1R0);
        }
        _ => return format!("system register {encoding:#x}"),
    };
    format!("ICC_{name}_EL1")
}

#[cfg(test)]
mod tests {
    use kedge_ids::VcpuId;

    use super::*;

    #[test]
    fn registers_have_the_names_of_the_architecture() {
        let cpu = Mpidr::of(VcpuId(1));
        let names = [
            GicReg::Distributor { offset: 0x6108 },
            GicReg::Redistributor { cpu, offset: 0x1_0404 },
            GicReg::CpuSystem { cpu, encoding: 0xc649 },
            GicReg::LineLevel { cpu, first: 64 },
            GicReg::Its { offset: 0x108 },
            GicReg::CpuInterfaceV2 { cpu: VcpuId(2), offset: 0xd8 },
            GicReg::Distributor { offset: 0xffe8 },
        ];
        assert_eq!(
            names.map(name),
            [
                "GICD_IROUTER33",
                "GICR_IPRIORITYR1 of the vCPU with affinity 0x1",
                "ICC_AP1R1_EL1 of the vCPU with affinity 0x1",
                "levels of lines 64 to 95",
                "GITS_BASER1",
                "GICC_APR2 of vCPU 2",
                "GICD register 0xffe8",
            ]
        );
    }
}
