//! Facts about the interrupt controller's registers: what they hold at first, and what
//! becomes of what is written to them.

use kedge_guest_memory::GuestAddress;
use kedge_hv::{Access, DirtyLog, Gic, GicConfig, GicReg, GicVersion};
use kedge_ids::{Mpidr, VcpuId};

use super::{Group, fact, of_gicv2, of_host};
use crate::ctx::{Ctx, Machine, RAM, errno, gic_v3, ram};

/// The groups of this file.
pub(super) const GROUPS: &[Group] = &[
    of_host("registers of a distributor", distributor),
    of_host("registers of a redistributor", redistributor),
    of_host("registers of a CPU interface", cpu_interface),
    of_host("shared binary points", binary_points),
    of_host("levels of lines", levels),
    of_host("registers of a translation service", translation_service),
    of_host("tables of interrupts", tables),
    of_host("registers before initialisation", before_initialisation),
    of_gicv2("registers of a GICv2", gicv2),
];

const BITS: &[u64] = &[0xffff_ffff, 0, 0xa5a5_a5a5, 0x5a5a_5a5a];
const WIDE: &[u64] = &[u64::MAX, 0, 0xa5a5_a5a5_a5a5_a5a5];

/// Two vCPUs with a controller and its service that are ready, and some memory.
fn machine(ctx: &Ctx<'_>) -> anyhow::Result<Option<(Machine, Box<dyn Gic>)>> {
    let Some((machine, gic)) = unready(ctx)? else { return Ok(None) };
    gic.init()?;
    Ok(Some((machine, gic)))
}

fn unready(ctx: &Ctx<'_>) -> anyhow::Result<Option<(Machine, Box<dyn Gic>)>> {
    let machine = ctx.machine(2)?;
    if !machine.vm.supports_gic(GicVersion::V3) {
        return Ok(None);
    }
    machine.vm.map_ram(0, ram(RAM, 0x20_0000)?, Access::ReadWrite)?;
    let config = GicConfig::V3 {
        distributor: GuestAddress(0x800_0000),
        redistributors: GuestAddress(0x80a_0000),
        its: machine.vm.supports_its().then_some(GuestAddress(0x808_0000)),
        spis: 64,
    };
    let gic = machine.vm.create_gic(&config)?;
    Ok(Some((machine, gic)))
}

/// What a register holds, and then what it holds behind each of some writes.
fn tried(gic: &dyn Gic, reg: GicReg, values: &[u64]) -> Vec<String> {
    let shown = || match gic.reg(reg) {
        Ok(value) => format!("{value:#x}"),
        Err(error) => format!("errno {}", error.errno()),
    };
    let mut facts = vec![format!("{reg:x?} is {}", shown())];
    for value in values {
        let result = gic.set_reg(reg, *value);
        facts.push(format!("{reg:x?} after {value:#x}, errno {}: {}", errno(&result), shown()));
    }
    facts
}

fn all_tried(
    gic: &dyn Gic,
    offsets: &[u32],
    values: &[u64],
    reg: impl Fn(u32) -> GicReg,
) -> Vec<String> {
    offsets.iter().flat_map(|offset| tried(gic, reg(*offset), values)).collect()
}

fn distributor(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let Some((_machine, gic)) = machine(ctx)? else { return Ok(Vec::new()) };
    const OFFSETS: &[u32] = &[
        0x0, 0x4, 0x8, 0xc, 0x10, 0x80, 0x84, 0x88, 0x8c, 0x100, 0x104, 0x10c, 0x184, 0x204, 0x284,
        0x304, 0x384, 0x400, 0x420, 0x460, 0x820, 0xc00, 0xc08, 0xc18, 0xd04, 0x6000, 0x6100,
        0x6104, 0x6300, 0xffe8, 0x2, 0x1_0000,
    ];
    Ok(all_tried(gic.as_ref(), OFFSETS, BITS, |offset| GicReg::Distributor { offset }))
}

const SECOND: VcpuId = VcpuId(1);

fn redistributor(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let Some((_machine, gic)) = machine(ctx)? else { return Ok(Vec::new()) };
    const OFFSETS: &[u32] = &[
        0x4, 0x10, 0x14, 0x70, 0x74, 0x78, 0x7c, 0x0, 0x70, 0x78, 0x1_0080, 0x1_0100, 0x1_0180,
        0x1_0200, 0x1_0280, 0x1_0300, 0x1_0380, 0x1_0400, 0x1_041c, 0x1_0c00, 0x1_0c04, 0x1_0d00,
        0x2_0000,
    ];
    let of = |cpu| move |offset| GicReg::Redistributor { cpu, offset };
    let mut facts = all_tried(gic.as_ref(), OFFSETS, BITS, of(Mpidr::of(SECOND)));
    facts.extend(all_tried(gic.as_ref(), &[0x0], &[1, 0, 1], of(Mpidr::of(SECOND))));
    let other = [0x0, 0x70, 0x78, 0x1_0100, 0x1_0200];
    facts.extend(all_tried(gic.as_ref(), &other, &[], of(Mpidr::of(VcpuId(0)))));
    facts.extend(all_tried(gic.as_ref(), &[0], &[], of(Mpidr::of(VcpuId(7)))));
    let plain = ctx.machine(1)?;
    let gic = plain.vm.create_gic(&gic_v3())?;
    gic.init()?;
    let alone = all_tried(gic.as_ref(), &[0x70, 0x78, 0x0], &[1], of(Mpidr::of(VcpuId(0))));
    facts.extend(alone.iter().map(|fact| format!("without a service: {fact}")));
    Ok(facts)
}

/// The encodings of the registers of a CPU interface, in the order of their saving.
const CPU_SYSTEM: [(&str, u16); 15] = [
    ("SRE", 0xc665),
    ("CTLR", 0xc664),
    ("IGRPEN0", 0xc666),
    ("IGRPEN1", 0xc667),
    ("PMR", 0xc230),
    ("BPR0", 0xc643),
    ("BPR1", 0xc663),
    ("AP0R0", 0xc644),
    ("AP0R1", 0xc645),
    ("AP0R2", 0xc646),
    ("AP0R3", 0xc647),
    ("AP1R0", 0xc648),
    ("AP1R1", 0xc649),
    ("AP1R2", 0xc64a),
    ("AP1R3", 0xc64b),
];

fn cpu_interface(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let Some((_machine, gic)) = machine(ctx)? else { return Ok(Vec::new()) };
    let mut facts = Vec::new();
    for (name, encoding) in CPU_SYSTEM {
        let reg = GicReg::CpuSystem { cpu: Mpidr::of(SECOND), encoding };
        let values: Vec<_> = match name {
            "CTLR" => control_values(gic.reg(reg)?),
            _ => vec![u64::MAX, 0, 3, 0xa5, 0x5a],
        };
        let tried = tried(gic.as_ref(), reg, &values);
        facts.extend(tried.iter().map(|fact| format!("{name}: {fact}")));
    }
    let none = GicReg::CpuSystem { cpu: Mpidr::of(SECOND), encoding: 0xc000 };
    facts.extend(tried(gic.as_ref(), none, &[0]));
    Ok(facts)
}

/// What is tried on a CPU interface's control register that is born with `born`: first
/// what leaves its sizes alone, since a size that shrank never grows again.
fn control_values(born: u64) -> Vec<u64> {
    let (priority, id, seis, a3v) = (1 << 8, 1 << 11, 1 << 14, 1 << 15);
    let alone = [born | 1, born | 2, born, born ^ seis, born ^ a3v, born + priority, born + id];
    let less = born - id - priority;
    alone.into_iter().chain([born - id, born, less | 1, less, less ^ a3v, 0, less]).collect()
}

/// What a binary point is while both groups share one.
fn binary_points(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let Some((_machine, gic)) = machine(ctx)? else { return Ok(Vec::new()) };
    let reg = |encoding| GicReg::CpuSystem { cpu: Mpidr::of(SECOND), encoding };
    let [ctlr, bpr0, bpr1] = [0xc664, 0xc643, 0xc663].map(reg);
    gic.set_reg(bpr0, 2)?;
    gic.set_reg(bpr1, 5)?;
    gic.set_reg(ctlr, gic.reg(ctlr)? | 1)?;
    let mut facts = tried(gic.as_ref(), bpr1, &[6]);
    facts.extend(tried(gic.as_ref(), bpr0, &[7]));
    facts.extend(tried(gic.as_ref(), bpr1, &[]));
    gic.set_reg(ctlr, gic.reg(ctlr)? & !1)?;
    facts.extend(tried(gic.as_ref(), bpr1, &[]));
    Ok(facts)
}

fn levels(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let Some((_machine, gic)) = machine(ctx)? else { return Ok(Vec::new()) };
    // The second 32 SPIs stay edges.
    for offset in [0xc08, 0xc0c] {
        gic.set_reg(GicReg::Distributor { offset }, 0)?;
    }
    let mut facts = Vec::new();
    for first in [0, 16, 32, 64, 96, 992] {
        let reg = GicReg::LineLevel { cpu: Mpidr::of(SECOND), first };
        facts.extend(tried(gic.as_ref(), reg, BITS));
    }
    for reg in [
        GicReg::LineLevel { cpu: Mpidr::of(VcpuId(0)), first: 0 },
        GicReg::LineLevel { cpu: Mpidr::of(VcpuId(0)), first: 32 },
        GicReg::Distributor { offset: 0x204 },
    ] {
        facts.extend(tried(gic.as_ref(), reg, &[]));
    }
    facts.extend(tried(gic.as_ref(), GicReg::Distributor { offset: 0xc10 }, &[0]));
    let late = GicReg::LineLevel { cpu: Mpidr::of(VcpuId(0)), first: 64 };
    facts.extend(tried(gic.as_ref(), late, &[]));
    Ok(facts)
}

/// `GITS_BASER<n>` and `GITS_CBASER`: valid, at the start of the memory.
const TABLE: u64 = 1 << 63 | RAM;

fn translation_service(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let Some((_machine, gic)) = machine(ctx)? else { return Ok(Vec::new()) };
    const OFFSETS: &[u32] = &[
        0x4, 0x8, 0x80, 0x90, 0x88, 0x100, 0x108, 0x110, 0x118, 0x138, 0x40, 0x84, 0xffe8, 0x2,
        0x1_0000, 0x1_0040,
    ];
    let gic = gic.as_ref();
    let reg = |offset| GicReg::Its { offset };
    let mut facts = all_tried(gic, OFFSETS, WIDE, reg);
    facts.extend(all_tried(gic, &[0x90, 0x88], &[0x20, 0xfe0, 0x1000, 0x21], reg));
    facts.extend(all_tried(gic, &[0x0], &[1, 0], reg));
    facts.extend(all_tried(gic, &[0x100, 0x108, 0x80], &[TABLE], reg));
    facts.extend(all_tried(gic, &[0x90, 0x88], &[0x20], reg));
    facts.extend(all_tried(gic, &[0x0], &[1], reg));
    facts.extend(all_tried(gic, &[0x80, 0x90, 0x88, 0x100, 0x108, 0x4], &[0x40], reg));
    facts.push(fact("reset", gic.reset_its()));
    facts.extend(all_tried(gic, &[0x0, 0x4, 0x80, 0x88, 0x90, 0x100, 0x108], &[], reg));
    Ok(facts)
}

/// Saving, restoring and forgetting.
fn done(gic: &dyn Gic, when: &str) -> Vec<String> {
    vec![
        fact(format_args!("{when}, save pending"), gic.save_pending_tables()),
        fact(format_args!("{when}, save"), gic.save_its_tables()),
        fact(format_args!("{when}, restore"), gic.restore_its_tables()),
        fact(format_args!("{when}, reset"), gic.reset_its()),
    ]
}

fn tables(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let Some((machine, gic)) = machine(ctx)? else { return Ok(Vec::new()) };
    let mut facts = done(gic.as_ref(), "at first");
    machine.vm.set_dirty_log(0, DirtyLog::On)?;
    for offset in [0x100, 0x108] {
        gic.set_reg(GicReg::Its { offset }, TABLE)?;
    }
    facts.push(fact("with tables, save", gic.save_its_tables()));
    facts.push(format!("that wrote {:x?}", machine.vm.take_dirty_log(0)?));
    facts.extend(done(gic.as_ref(), "with tables"));
    facts.push(format!("that wrote {:x?}", machine.vm.take_dirty_log(0)?));
    for offset in [0x100, 0x108] {
        gic.set_reg(GicReg::Its { offset }, 1 << 63 | 0x1000_0000)?;
    }
    facts.extend(done(gic.as_ref(), "with tables nowhere"));
    let plain = ctx.machine(1)?;
    let gic = plain.vm.create_gic(&gic_v3())?;
    gic.init()?;
    facts.extend(done(gic.as_ref(), "without a service"));
    Ok(facts)
}

fn before_initialisation(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let Some((_machine, gic)) = unready(ctx)? else { return Ok(Vec::new()) };
    let cpu = Mpidr::of(VcpuId(0));
    let mut facts = Vec::new();
    for reg in [
        GicReg::Distributor { offset: 0 },
        GicReg::Distributor { offset: 4 },
        GicReg::Distributor { offset: 0xc },
        GicReg::Distributor { offset: 0x104 },
        GicReg::Redistributor { cpu, offset: 0 },
        GicReg::Redistributor { cpu, offset: 0x1_0100 },
        GicReg::CpuSystem { cpu, encoding: 0xc230 },
        GicReg::LineLevel { cpu, first: 32 },
        GicReg::Its { offset: 0 },
        GicReg::Its { offset: 0x80 },
    ] {
        facts.extend(tried(gic.as_ref(), reg, &[0]));
    }
    facts.extend(done(gic.as_ref(), "before initialisation"));
    Ok(facts)
}

fn gicv2(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let machine = ctx.machine(2)?;
    if !machine.vm.supports_gic(GicVersion::V2) {
        return Ok(Vec::new());
    }
    let config = GicConfig::V2 {
        distributor: GuestAddress(0x800_0000),
        cpu_interface: GuestAddress(0x801_0000),
        spis: 64,
    };
    let gic = machine.vm.create_gic(&config)?;
    const OFFSETS: &[u32] = &[
        0x0, 0x4, 0x8, 0x80, 0x84, 0x8c, 0x100, 0x104, 0x180, 0x184, 0x200, 0x204, 0x280, 0x284,
        0x300, 0x304, 0x380, 0x384, 0x400, 0x420, 0x800, 0x820, 0x860, 0xc00, 0xc04, 0xc08, 0xf10,
        0xf20, 0xf2c, 0x200, 0xf10, 0x100, 0xfe8,
    ];
    const INTERFACE: &[u32] = &[0x0, 0x4, 0x8, 0x1c, 0xd0, 0xd4, 0xd8, 0xdc, 0xfc];
    let of = |cpu| move |offset| GicReg::DistributorV2 { cpu, offset };
    let interface = |offset| GicReg::CpuInterfaceV2 { cpu: SECOND, offset };
    let mut facts = all_tried(gic.as_ref(), OFFSETS, BITS, of(SECOND));
    facts.extend(all_tried(gic.as_ref(), &[0x8], &[0x4b00_243b], of(SECOND)));
    facts.extend(all_tried(gic.as_ref(), &[0x80, 0x84], BITS, of(SECOND)));
    facts.extend(all_tried(gic.as_ref(), OFFSETS, &[], of(VcpuId(0))));
    facts.extend(all_tried(gic.as_ref(), &[0], &[], of(VcpuId(7))));
    facts.extend(all_tried(gic.as_ref(), INTERFACE, BITS, interface));
    facts.extend(done(gic.as_ref(), "a GICv2"));
    Ok(facts)
}
