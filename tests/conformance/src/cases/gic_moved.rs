//! The interrupt controller's state, captured from one machine and restored to another on
//! the same host.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use kedge_arch::gic_state::{
    Devices, GicState, GicV3StateV1, ItsStateV1, Misfit, RestoreError, Tables, flush_tables,
};
use kedge_guest_memory::{Bytes, GuestAddress, GuestMemoryRegion, RamRegion};
use kedge_hv::{Access, Gic, GicConfig, GicReg};
use kedge_ids::{Mpidr, VcpuId, usize_from};

use crate::case::cases;
use crate::ctx::{Ctx, Machine, RAM, equal, ram};

cases![
    GicV3 a_gicv3_moves_as_it_was_made,
    GicV3 a_gicv3_moves_with_all_its_interrupts,
    GicV3 sgis_that_were_held_back_stay_so,
    GicV3 the_distributors_revision_moves,
    GicV3 what_a_gicv3_cannot_be_is_found_before_anything_is_written,
    Its lpis_need_a_service,
    Its a_service_moves,
    Its tables_without_memory_are_the_guests_loss,
    Commands what_a_service_was_told_moves,
    GicV2 a_gicv2_moves_as_it_was_made,
    GicV2 a_gicv2_moves_with_all_its_interrupts,
];

const SPIS: u32 = 64;
/// Memory for the tables of interrupts.
pub(super) const MEMORY: u64 = 0x20_0000;

/// A machine of two vCPUs whose controller is ready.
pub(super) struct Ready {
    pub(super) machine: Machine,
    pub(super) gic: Box<dyn Gic>,
    cpus: Vec<Mpidr>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    V2,
    V3,
    /// With a translation service.
    Its,
}

pub(super) fn ready(ctx: &Ctx<'_>, kind: Kind, memory: &Arc<RamRegion>) -> anyhow::Result<Ready> {
    let machine = ctx.machine(2)?;
    machine.vm.map_ram(0, Arc::clone(memory), Access::ReadWrite)?;
    let config = match kind {
        Kind::V2 => GicConfig::V2 {
            distributor: GuestAddress(0x800_0000),
            cpu_interface: GuestAddress(0x801_0000),
            spis: SPIS,
        },
        Kind::V3 | Kind::Its => GicConfig::V3 {
            distributor: GuestAddress(0x800_0000),
            redistributors: GuestAddress(0x80a_0000),
            its: (kind == Kind::Its).then_some(GuestAddress(0x808_0000)),
            spis: SPIS,
        },
    };
    let gic = machine.vm.create_gic(&config)?;
    gic.init()?;
    let cpus = (0..2).map(|id| Mpidr::of(VcpuId(id))).collect();
    Ok(Ready { machine, gic, cpus })
}

impl Ready {
    fn capture(&self) -> anyhow::Result<GicState> {
        Ok(GicState::capture(self.gic.as_ref(), &self.cpus, SPIS)?)
    }

    fn restore(&self, state: &GicState) -> Result<(), RestoreError> {
        state.restore(self.gic.as_ref(), &self.cpus, SPIS)
    }

    pub(super) fn set(&self, registers: &[(GicReg, u64)]) -> anyhow::Result<()> {
        for (reg, value) in registers {
            let set = self.gic.set_reg(*reg, *value);
            set.with_context(|| format!("{reg:x?} to {value:#x}"))?;
        }
        Ok(())
    }
}

/// What `old` has is what a new machine has once it was restored there, by way of a saved
/// part.
fn moves(ctx: &Ctx<'_>, kind: Kind, old: &Ready) -> anyhow::Result<Ready> {
    let state = old.capture()?;
    let read = GicState::from_part(&state.to_part())?;
    equal(&read, &state)?;
    let new = ready(ctx, kind, &ram(RAM, MEMORY)?)?;
    new.restore(&read)?;
    same(&new.capture()?, &state)?;
    Ok(new)
}

/// Two states are the same; where not, what differs is in the text.
fn same(found: &GicState, due: &GicState) -> anyhow::Result<()> {
    let [found, due] = [found, due].map(|state| format!("{state:#x?}"));
    let differing = found.lines().zip(due.lines()).filter(|(found, due)| found != due);
    let lines: Vec<_> = differing.map(|(found, due)| format!("{found} where {due}")).collect();
    ensure!(found == due, "found{} is due", lines.join(" is due, and"));
    Ok(())
}

fn gicd(offset: u32) -> GicReg {
    GicReg::Distributor { offset }
}

fn gicr(id: u32, offset: u32) -> GicReg {
    GicReg::Redistributor { cpu: Mpidr::of(VcpuId(id)), offset }
}

fn icc(id: u32, encoding: u16) -> GicReg {
    GicReg::CpuSystem { cpu: Mpidr::of(VcpuId(id)), encoding }
}

fn levels(id: u32, first: u16) -> GicReg {
    GicReg::LineLevel { cpu: Mpidr::of(VcpuId(id)), first }
}

/// Interrupts of every kind in every state, both vCPUs otherwise.
fn shaken_v3() -> Vec<(GicReg, u64)> {
    let mut registers = vec![
        (gicd(0x0), 0x52),
        (gicd(0x84), 0xffff_0fff),
        (gicd(0xc08), 0x0aaa_0aa0),
        (gicd(0x104), 0x8000_1001),
        (gicd(0x204), 0x8000_0003),
        (gicd(0x304), 0x0000_1002),
        (gicd(0x420), 0xa0b0_c0d8),
        (gicd(0x45c), 0x0808_0808),
        (gicd(0x6108), 1),
        (gicd(0x62f8), 1),
        (levels(0, 32), 0x1000_0ff1),
        (levels(0, 64), 0xffff_ffff),
    ];
    for (id, bits) in [(0, 0x0800_0001_u64), (1, 0x0840_8000)] {
        registers.extend([
            (gicr(id, 0x1_0080), !bits & 0xffff_ffff),
            (gicr(id, 0x1_0100), bits),
            (gicr(id, 0x1_0200), bits | 2),
            (gicr(id, 0x1_0300), bits << 1 & 0xffff_ffff),
            (gicr(id, 0x1_0400), 0x8080_8080),
            (gicr(id, 0x1_041c), 0xa0a0_a000 | u64::from(id) << 3),
            (levels(id, 0), bits & 0xffff_0000 | 1 << 30),
            (icc(id, 0xc666), 1),
            (icc(id, 0xc667), 1),
            (icc(id, 0xc230), 0xf0 - u64::from(id)),
            (icc(id, 0xc643), 3),
            (icc(id, 0xc663), 4),
            (icc(id, 0xc644), bits),
            (icc(id, 0xc648), bits << 1 & 0xffff_ffff),
        ]);
    }
    registers
}

fn a_gicv3_moves_as_it_was_made(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let old = ready(ctx, Kind::V3, &ram(RAM, MEMORY)?)?;
    moves(ctx, Kind::V3, &old).map(drop)
}

fn a_gicv3_moves_with_all_its_interrupts(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let old = ready(ctx, Kind::V3, &ram(RAM, MEMORY)?)?;
    old.set(&shaken_v3())?;
    // EOImode and a binary point for both groups.
    for id in 0..2 {
        let ctlr = old.gic.reg(icc(id, 0xc664))?;
        old.set(&[(icc(id, 0xc664), ctlr | 0b11)])?;
    }
    let new = moves(ctx, Kind::V3, &old)?;
    for (reg, _) in shaken_v3() {
        equal(&new.gic.reg(reg)?, &old.gic.reg(reg)?).with_context(|| format!("{reg:x?}"))?;
    }
    let GicState::V3(state) = new.capture()? else { bail!("another controller") };
    // Nothing was lost on the way in: of the lines, those that are levels.
    equal(&state.spi_levels, &vec![0xc1, 0])?;
    equal(&state.cpus[1].private_levels, &0x4840_0000)
}

fn sgis_that_were_held_back_stay_so(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let old = ready(ctx, Kind::V3, &ram(RAM, MEMORY)?)?;
    old.set(&[(gicr(1, 0x1_0180), 0x00ff)])?;
    let new = moves(ctx, Kind::V3, &old)?;
    equal(&new.gic.reg(gicr(1, 0x1_0100))?, &0xff00)
}

fn the_distributors_revision_moves(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let old = ready(ctx, Kind::V3, &ram(RAM, MEMORY)?)?;
    old.gic.set_distributor_revision(2)?;
    let new = moves(ctx, Kind::V3, &old)?;
    equal(&new.gic.distributor_revision()?, &2)
}

/// A change of a saved controller that no host here can follow, and the field that says so.
type Change = (&'static str, fn(&mut GicV3StateV1));

const CHANGES: &[Change] = &[
    ("ICC_CTLR_EL1.PRIbits", |state| state.cpus[1].icc_ctlr += 1 << 8),
    ("ICC_CTLR_EL1.IDbits", |state| state.cpus[1].icc_ctlr |= 7 << 11),
    ("ICC_CTLR_EL1.SEIS", |state| state.cpus[0].icc_ctlr ^= 1 << 14),
    ("ICC_CTLR_EL1.A3V", |state| state.cpus[0].icc_ctlr ^= 1 << 15),
    ("GICD_TYPER2", |state| state.gicd_typer2 ^= 1 << 8),
    ("GICD_TYPER.LPIS", |state| state.cpus[1].gicr_ctlr |= 1),
    ("GICD_IIDR", |state| state.gicd_iidr ^= 1),
    ("GICD_IIDR.Revision", |state| state.gicd_iidr |= 0xf << 12),
];

fn what_a_gicv3_cannot_be_is_found_before_anything_is_written(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let old = ready(ctx, Kind::V3, &ram(RAM, MEMORY)?)?;
    old.set(&shaken_v3())?;
    let GicState::V3(state) = old.capture()? else { bail!("another controller") };
    let new = ready(ctx, Kind::V3, &ram(RAM, MEMORY)?)?;
    let born = new.capture()?;
    for (field, change) in CHANGES {
        let mut state = state.clone();
        change(&mut state);
        // As many active priorities as the bits now ask for.
        let registers = if state.cpus[1].icc_ctlr >> 8 & 7 == 5 { 2 } else { 1 };
        state.cpus[1].icc_ap0r.resize(registers, 0);
        state.cpus[1].icc_ap1r.resize(registers, 0);
        match new.restore(&GicState::V3(state)) {
            Err(RestoreError::Misfit(misfits)) => equal(&fields(&misfits), &vec![*field])?,
            other => bail!("{field}: {other:?}"),
        }
        same(&new.capture()?, &born).context(*field)?;
    }
    new.restore(&GicState::V3(state)).map_err(Into::into)
}

fn fields(misfits: &[Misfit]) -> Vec<&'static str> {
    misfits.iter().map(|misfit| misfit.field).collect()
}

fn lpis_need_a_service(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let old = ready(ctx, Kind::Its, &ram(RAM, MEMORY)?)?;
    old.set(&[(gicr(0, 0x0), 1)])?;
    let new = ready(ctx, Kind::V3, &ram(RAM, MEMORY)?)?;
    match new.restore(&old.capture()?) {
        Err(RestoreError::Misfit(misfits)) => equal(&fields(&misfits), &vec!["GICD_TYPER.LPIS"]),
        other => bail!("{other:?}"),
    }
}

const VALID: u64 = 1 << 63;
// Where things are: tables begin at a multiple of 64 KiB.
const QUEUE: u64 = RAM + 0x1_0000;
const DEVICES: u64 = RAM + 0x2_0000;
const COLLECTIONS: u64 = RAM + 0x3_0000;
const TRANSLATIONS: u64 = RAM + 0x4_0000;
const PROPERTIES: u64 = RAM + 0x5_0000;
pub(super) const PENDING: [u64; 2] = [RAM + 0x6_0000, RAM + 0x7_0000];
const END: u64 = RAM + 0x8_0000;

fn gits(offset: u32) -> GicReg {
    GicReg::Its { offset }
}

/// A service that is switched on, with LPIs let through on both vCPUs.
pub(super) fn service() -> Vec<(GicReg, u64)> {
    // 16 bits of a number.
    let properties = PROPERTIES | 0xf;
    let mut registers = Vec::new();
    for (id, pending) in (0..).zip(PENDING) {
        registers.extend([
            (gicr(id, 0x70), properties & 0xffff_ffff),
            (gicr(id, 0x78), pending),
            (gicr(id, 0x0), 1),
        ]);
    }
    registers.extend([
        (gits(0x100), VALID | DEVICES),
        (gits(0x108), VALID | COLLECTIONS),
        (gits(0x80), VALID | QUEUE),
        (gits(0x0), 1),
    ]);
    registers
}

/// Moves the service and the rest of the controller into a new machine with this memory.
fn with_service(
    ctx: &Ctx<'_>,
    old: &Ready,
    (memory, devices): (&Arc<RamRegion>, Devices),
) -> anyhow::Result<(Ready, [Tables; 2])> {
    let flushed = flush_tables(old.gic.as_ref())?;
    let state = old.capture()?;
    let its = ItsStateV1::capture(old.gic.as_ref())?.context("there is a service")?;
    let new = ready(ctx, Kind::Its, memory)?;
    new.restore(&state)?;
    let restored = its.restore(new.gic.as_ref(), devices)?;
    same(&new.capture()?, &state)?;
    equal(&ItsStateV1::capture(new.gic.as_ref())?, &Some(its))?;
    Ok((new, [flushed, restored]))
}

fn a_service_moves(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let memory = ram(RAM, MEMORY)?;
    let old = ready(ctx, Kind::Its, &memory)?;
    for registers in [Vec::new(), service(), vec![(gits(0x88), 0x40)]] {
        old.set(&registers)?;
        for devices in [Devices::Unknown, Devices::None] {
            let (_, tables) = with_service(ctx, &old, (&memory, devices))?;
            ensure!(matches!(tables, [Tables::Kept, Tables::Kept]), "{tables:?}");
        }
    }
    Ok(())
}

fn tables_without_memory_are_the_guests_loss(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let memory = ram(RAM, MEMORY)?;
    let old = ready(ctx, Kind::Its, &memory)?;
    let nowhere = VALID | 0x1000_0000;
    old.set(&[(gits(0x100), nowhere), (gits(0x108), nowhere), (gits(0x80), nowhere)])?;
    old.set(&[(gits(0x0), 1)])?;
    let (_, tables) = with_service(ctx, &old, (&memory, Devices::Unknown))?;
    ensure!(matches!(tables, [Tables::Lost(_), Tables::Lost(_)]), "{tables:?}");
    Ok(())
}

/// A command of the queue: 32 bytes.
type Command = [u64; 4];

pub(super) const DEVICE: u64 = 3;
pub(super) const FIRST_LPI: u64 = 8192;
const MAPD: u64 = 0x08;
const MAPC: u64 = 0x09;
const MAPTI: u64 = 0x0a;
const INT: u64 = 0x03;

/// A device with two events, each to another vCPU, of which the second has happened.
pub(super) fn commands() -> Vec<Command> {
    let device = DEVICE << 32;
    let mut commands = vec![[MAPD | device, 4, VALID | TRANSLATIONS, 0]];
    for n in 0..2 {
        commands.push([MAPC, 0, VALID | n << 16 | n, 0]);
        commands.push([MAPTI | device, n | (FIRST_LPI + n) << 32, n, 0]);
    }
    commands.push([INT | device, 1, 0, 0]);
    commands
}

/// Where in the memory an address is.
pub(super) fn offset(address: u64) -> usize {
    usize_from(address - RAM)
}

/// Lets the service do the commands, as its guest would.
pub(super) fn command(
    ready: &Ready,
    memory: &RamRegion,
    commands: &[Command],
) -> anyhow::Result<()> {
    let mut at = 0;
    let ram = memory.as_volatile_slice()?;
    for word in commands.iter().flatten() {
        ram.write_obj(*word, offset(QUEUE + at))?;
        at += 8;
    }
    // Let through, at a middling priority.
    ram.write_slice(&[0xa1; 2], offset(PROPERTIES))?;
    ready.set(&[(gits(0x88), at)])
}

/// Whether this host's service does what its queue says.
///
/// # Errors
/// The host cannot make a machine with a translation service.
pub fn obeys_commands(ctx: &Ctx<'_>) -> anyhow::Result<bool> {
    let memory = ram(RAM, MEMORY)?;
    let ready = ready(ctx, Kind::Its, &memory)?;
    ready.set(&service())?;
    command(&ready, &memory, &[[MAPC, 0, VALID, 0]])?;
    ready.gic.save_its_tables()?;
    let entry: u64 = memory.as_volatile_slice()?.read_obj(offset(COLLECTIONS))?;
    Ok(entry != 0)
}

/// All tables, as they are in guest memory.
fn tables(memory: &RamRegion) -> anyhow::Result<Vec<u8>> {
    let mut tables = vec![0; usize_from(END - DEVICES)];
    memory.as_volatile_slice()?.read_slice(&mut tables, offset(DEVICES))?;
    Ok(tables)
}

fn what_a_service_was_told_moves(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let memory = ram(RAM, MEMORY)?;
    let old = ready(ctx, Kind::Its, &memory)?;
    old.set(&service())?;
    command(&old, &memory, &commands())?;
    let flushed = flush_tables(old.gic.as_ref())?;
    ensure!(matches!(flushed, Tables::Kept), "{flushed:?}");
    let saved = tables(&memory)?;
    let pending = usize_from(PENDING[1] - DEVICES + (FIRST_LPI + 1) / 8);
    equal(&saved[pending], &(1 << ((FIRST_LPI + 1) % 8)))?;
    ensure!(saved[usize_from(8 * DEVICE)..][..8] != [0; 8], "the device is not in its table");

    let (new, restored) = with_service(ctx, &old, (&memory, Devices::Unknown))?;
    ensure!(matches!(restored, [Tables::Kept, Tables::Kept]), "{restored:?}");
    // It knows all of it again, and nothing more.
    let flushed = flush_tables(new.gic.as_ref())?;
    ensure!(matches!(flushed, Tables::Kept), "{flushed:?}");
    ensure!(tables(&memory)? == saved, "the tables differ");
    Ok(())
}

fn gicd_v2(id: u32, offset: u32) -> GicReg {
    GicReg::DistributorV2 { cpu: VcpuId(id), offset }
}

fn gicc(id: u32, offset: u32) -> GicReg {
    GicReg::CpuInterfaceV2 { cpu: VcpuId(id), offset }
}

/// Interrupts of every kind in every state, both vCPUs otherwise.
fn shaken_v2(iidr: u64) -> Vec<(GicReg, u64)> {
    let mut registers = vec![
        // Lets groups be written.
        (gicd_v2(0, 0x8), iidr),
        (gicd_v2(0, 0x0), 1),
        (gicd_v2(0, 0x84), 0xf0),
        (gicd_v2(0, 0xc08), 0x0aaa_0aa0),
        (gicd_v2(0, 0x104), 0x8000_1001),
        (gicd_v2(0, 0x204), 0x8000_0003),
        (gicd_v2(0, 0x304), 0x0000_1002),
        (gicd_v2(0, 0x420), 0xa0b0_c0d8),
        (gicd_v2(0, 0x820), 0x0302_0100),
    ];
    for (id, bits) in [(0, 0x0800_0000_u64), (1, 0x0840_0000)] {
        registers.extend([
            (gicd_v2(id, 0x80), bits),
            (gicd_v2(id, 0x100), bits),
            (gicd_v2(id, 0x200), bits >> 1),
            (gicd_v2(id, 0x300), bits << 1),
            (gicd_v2(id, 0x400), 0x8080_8080),
            // SGI 1 was sent by both vCPUs, SGI 14 by the other one.
            (gicd_v2(id, 0xf20), 0x0000_0300),
            (gicd_v2(id, 0xf2c), 0x0001_0000 << (1 - id)),
            (gicc(id, 0x0), 1),
            (gicc(id, 0x4), 0x1e),
            (gicc(id, 0x8), 3),
            (gicc(id, 0x1c), 4),
            (gicc(id, 0xd0), bits),
        ]);
    }
    registers
}

fn a_gicv2_moves_as_it_was_made(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let old = ready(ctx, Kind::V2, &ram(RAM, MEMORY)?)?;
    ensure!(matches!(flush_tables(old.gic.as_ref())?, Tables::Kept), "no tables were lost");
    equal(&ItsStateV1::capture(old.gic.as_ref())?, &None)?;
    moves(ctx, Kind::V2, &old).map(drop)
}

fn a_gicv2_moves_with_all_its_interrupts(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let old = ready(ctx, Kind::V2, &ram(RAM, MEMORY)?)?;
    let registers = shaken_v2(old.gic.reg(gicd_v2(0, 0x8))?);
    old.set(&registers)?;
    let new = moves(ctx, Kind::V2, &old)?;
    for (reg, _) in registers {
        equal(&new.gic.reg(reg)?, &old.gic.reg(reg)?).with_context(|| format!("{reg:x?}"))?;
    }
    // Those who sent an SGI are all there is: nobody sends to itself.
    equal(&new.gic.reg(gicd_v2(1, 0xf2c))?, &0x0001_0000)
}
