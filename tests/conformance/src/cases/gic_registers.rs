//! The interrupt controller's registers: which can be reached, and when.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use kedge_guest_memory::GuestAddress;
use kedge_hv::{Access, Gic, GicConfig, GicReg};
use kedge_hv_model::{Program, Step};
use kedge_ids::{Mpidr, VcpuId};
use libc::{EBUSY, EFAULT, EINVAL, ENXIO};

use crate::case::cases;
use crate::ctx::{
    Ctx, Machine, PATIENCE, RAM, Seen, any_gic, equal, errno, gic_v3, ram, refused, run_once,
};

cases![
    GicV3 registers_come_with_initialisation,
    GicV3 a_vcpu_that_is_not_there_has_no_registers,
    GicV3 levels_are_told_by_32_lines,
    GicV3 a_line_has_a_level_only_where_it_is_no_edge,
    GicV3 what_is_pending_is_told_apart_from_the_level,
    GicV3 a_control_register_that_is_refused_is_taken_in_part,
    GicV3 a_cpu_interface_has_as_many_active_priorities_as_its_bits_ask_for,
    Its registers_of_a_service_are_reached_whole,
    Its a_service_at_work_keeps_its_place_in_the_queue,
    Its tables_are_where_there_is_memory,
    Its a_service_forgets_its_tables_when_reset,
    GicV3 a_controller_without_a_service_has_no_tables,
    Kvm a_controller_is_out_of_reach_while_a_vcpu_runs,
    GicV2 a_gicv2_has_no_lpis_to_save,
];

/// Two vCPUs with a GICv3 that is ready, and a translation service where there is one.
pub(super) fn with_gic_v3(ctx: &Ctx<'_>) -> anyhow::Result<(Machine, Box<dyn Gic>)> {
    let machine = ctx.machine(2)?;
    machine.vm.map_ram(0, ram(RAM, 0x20_0000)?, Access::ReadWrite)?;
    let config = GicConfig::V3 {
        distributor: GuestAddress(0x800_0000),
        redistributors: GuestAddress(0x80a_0000),
        its: machine.vm.supports_its().then_some(GuestAddress(0x808_0000)),
        spis: 64,
    };
    let gic = machine.vm.create_gic(&config)?;
    gic.init()?;
    Ok((machine, gic))
}

fn first() -> Mpidr {
    Mpidr::of(VcpuId(0))
}

fn icc(encoding: u16) -> GicReg {
    GicReg::CpuSystem { cpu: first(), encoding }
}

fn gits(offset: u32) -> GicReg {
    GicReg::Its { offset }
}

fn registers_come_with_initialisation(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let gic = machine.vm.create_gic(&gic_v3())?;
    let registers = [
        GicReg::Distributor { offset: 0 },
        GicReg::Redistributor { cpu: first(), offset: 0x1_0100 },
        GicReg::LineLevel { cpu: first(), first: 32 },
        icc(ICC_CTLR),
    ];
    for reg in registers {
        refused(gic.reg(reg), EBUSY)?;
        refused(gic.set_reg(reg, 0), EBUSY)?;
    }
    gic.init()?;
    registers.into_iter().try_for_each(|reg| gic.reg(reg).map(drop))?;
    Ok(())
}

fn a_vcpu_that_is_not_there_has_no_registers(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (_machine, gic) = with_gic_v3(ctx)?;
    let cpu = Mpidr::of(VcpuId(2));
    refused(gic.reg(GicReg::Redistributor { cpu, offset: 0 }), EINVAL)?;
    refused(gic.reg(GicReg::CpuSystem { cpu, encoding: ICC_CTLR }), EINVAL)?;
    refused(gic.reg(GicReg::LineLevel { cpu, first: 0 }), EINVAL)
}

fn levels_are_told_by_32_lines(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (_machine, gic) = with_gic_v3(ctx)?;
    let levels = GicReg::LineLevel { cpu: first(), first: 16 };
    refused(gic.reg(levels), EINVAL)?;
    refused(gic.set_reg(levels, 0), EINVAL)
}

const LEVELS: u64 = 0x8000_0001;
/// `GICD_ICFGR2`: the first 16 SPIs.
const CONFIG: GicReg = GicReg::Distributor { offset: 0xc08 };
/// `GICD_ISPENDR1`.
const PENDING: GicReg = GicReg::Distributor { offset: 0x204 };

fn a_line_has_a_level_only_where_it_is_no_edge(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (_machine, gic) = with_gic_v3(ctx)?;
    let levels = GicReg::LineLevel { cpu: first(), first: 32 };
    gic.set_reg(levels, LEVELS)?;
    equal(&gic.reg(levels)?, &0)?;
    gic.set_reg(CONFIG, 0)?;
    equal(&gic.reg(levels)?, &(LEVELS & 0xffff))
}

fn what_is_pending_is_told_apart_from_the_level(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (_machine, gic) = with_gic_v3(ctx)?;
    let levels = GicReg::LineLevel { cpu: first(), first: 32 };
    gic.set_reg(CONFIG, 0)?;
    gic.set_reg(levels, LEVELS)?;
    gic.set_reg(PENDING, 0b110)?;
    equal(&gic.reg(PENDING)?, &0b110)?;
    gic.set_reg(PENDING, 0b010)?;
    equal(&gic.reg(PENDING)?, &0b010)
}

/// `ICC_CTLR_EL1`, and its PRIbits and SEIS.
const ICC_CTLR: u16 = 0xc664;
const PRI_BITS: u64 = 7 << 8;
const SEIS: u64 = 1 << 14;

fn a_control_register_that_is_refused_is_taken_in_part(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (_machine, gic) = with_gic_v3(ctx)?;
    let born = gic.reg(icc(ICC_CTLR))?;
    let more = born + (1 << 8);
    refused(gic.set_reg(icc(ICC_CTLR), more), EINVAL)?;
    equal(&gic.reg(icc(ICC_CTLR))?, &born)?;
    refused(gic.set_reg(icc(ICC_CTLR), (born ^ SEIS) & !PRI_BITS), EINVAL)?;
    equal(&gic.reg(icc(ICC_CTLR))?, &(born & !PRI_BITS))?;
    refused(gic.set_reg(icc(ICC_CTLR), born), EINVAL)
}

fn a_cpu_interface_has_as_many_active_priorities_as_its_bits_ask_for(
    ctx: &Ctx<'_>,
) -> anyhow::Result<()> {
    let (_machine, gic) = with_gic_v3(ctx)?;
    let bits = (gic.reg(icc(ICC_CTLR))? >> 8 & 7) + 1;
    let registers = match bits {
        0..=5 => 1,
        6 => 2,
        _ => 4,
    };
    for group in [0xc644, 0xc648] {
        for n in 0..4 {
            let result = gic.reg(icc(group + n));
            equal(&errno(&result), &if n < registers { 0 } else { EINVAL })?;
        }
    }
    Ok(())
}

fn registers_of_a_service_are_reached_whole(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (_machine, gic) = with_gic_v3(ctx)?;
    refused(gic.reg(gits(0x84)), EINVAL)?;
    refused(gic.set_reg(gits(0x104), 0), EINVAL)?;
    refused(gic.reg(gits(0x40)), ENXIO)
}

/// Valid, at the start of the memory.
const TABLE: u64 = 1 << 63 | RAM;
const GITS_CTLR: u32 = 0x0;
const GITS_CBASER: u32 = 0x80;
const GITS_CWRITER: u32 = 0x88;
const GITS_CREADR: u32 = 0x90;
const GITS_BASER: [u32; 2] = [0x100, 0x108];

fn a_service_at_work_keeps_its_place_in_the_queue(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (_machine, gic) = with_gic_v3(ctx)?;
    for offset in [GITS_CBASER, GITS_BASER[0], GITS_BASER[1]] {
        gic.set_reg(gits(offset), TABLE)?;
    }
    gic.set_reg(gits(GITS_CREADR), 0x40)?;
    gic.set_reg(gits(GITS_CWRITER), 0x40)?;
    gic.set_reg(gits(GITS_CTLR), 1)?;
    refused(gic.set_reg(gits(GITS_CREADR), 0x40), EBUSY)?;
    gic.set_reg(gits(GITS_BASER[0]), 0)?;
    ensure!(gic.reg(gits(GITS_BASER[0]))? >> 63 == 1, "the table went away");
    Ok(())
}

fn tables_are_where_there_is_memory(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (_machine, gic) = with_gic_v3(ctx)?;
    gic.save_its_tables()?;
    gic.restore_its_tables()?;
    for offset in GITS_BASER {
        gic.set_reg(gits(offset), 1 << 63 | 0x1000_0000)?;
    }
    refused(gic.save_its_tables(), EFAULT)?;
    refused(gic.restore_its_tables(), EFAULT)
}

fn a_service_forgets_its_tables_when_reset(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (_machine, gic) = with_gic_v3(ctx)?;
    for offset in [GITS_CBASER, GITS_BASER[0], GITS_BASER[1]] {
        gic.set_reg(gits(offset), TABLE)?;
    }
    gic.set_reg(gits(GITS_CTLR), 1)?;
    gic.reset_its()?;
    equal(&(gic.reg(gits(GITS_CTLR))? & 1), &0)?;
    equal(&gic.reg(gits(GITS_CBASER))?, &0)?;
    for offset in GITS_BASER {
        equal(&(gic.reg(gits(offset))? >> 63), &0)?;
    }
    Ok(())
}

fn a_controller_without_a_service_has_no_tables(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let gic = machine.vm.create_gic(&gic_v3())?;
    gic.init()?;
    gic.save_pending_tables()?;
    refused(gic.save_its_tables(), ENXIO)?;
    refused(gic.restore_its_tables(), ENXIO)?;
    refused(gic.reset_its(), ENXIO)
}

fn a_controller_is_out_of_reach_while_a_vcpu_runs(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.guest(&[Program::new([Step::Wait])])?;
    let gic = machine.vm.create_gic(&any_gic(machine.vm.as_ref()))?;
    gic.init()?;
    gic.distributor_revision()?;
    let (tell, kicker) = mpsc::channel();
    let vcpu = &mut machine.vcpus[0];
    thread::scope(|scope| {
        let ran = scope.spawn(move || {
            tell.send(vcpu.kicker()?)?;
            run_once(vcpu.as_mut(), 0)
        });
        let kicker = kicker.recv()?;
        let found = refused_soon(gic.as_ref());
        kicker.kick();
        let seen = ran.join().expect("the vCPU's thread does not panic")?;
        found?;
        equal(&seen, &Seen::Interrupted)
    })?;
    gic.distributor_revision()?;
    Ok(())
}

/// Once a vCPU runs, and until it is kicked, everything is refused.
fn refused_soon(gic: &dyn Gic) -> anyhow::Result<()> {
    let start = Instant::now();
    while gic.distributor_revision().is_ok() && start.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    refused(gic.distributor_revision(), EBUSY)?;
    refused(gic.set_distributor_revision(2), EBUSY)
}

fn a_gicv2_has_no_lpis_to_save(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let config = GicConfig::V2 {
        distributor: GuestAddress(0x800_0000),
        cpu_interface: GuestAddress(0x801_0000),
        spis: 64,
    };
    let gic = machine.vm.create_gic(&config)?;
    gic.init()?;
    refused(gic.save_pending_tables(), ENXIO)?;
    refused(gic.save_its_tables(), ENXIO)
}
