//! Interrupts that wait while their guest moves to another machine: it takes each once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, bail, ensure};
use kedge_arch::cache::Caches;
use kedge_arch::fdt::{self, Timers};
use kedge_arch::gic_state::{Devices, GicState, ItsStateV1, Tables, flush_tables};
use kedge_arch::{Layout, PsciVersion, gic, vcpu};
use kedge_guest_memory::{Bytes, GuestAddress, GuestMemoryRegion, RamRegion};
use kedge_hv::{Access, Gic, SError, SystemEvent};
use kedge_hv_model::{Program, Step, Width};
use kedge_ids::{Mpidr, RegId, VcpuId, usize_from};

use super::moved;
use crate::case::cases;
use crate::ctx::{Ctx, DEVICE, Machine, PLAIN, RAM, Seen, equal, ram, run, run_for};

cases![Payloads interrupts_that_wait_are_taken_once_in_another_machine];

const MEMORY: u64 = 16 << 20;
/// Where an arm64 Image goes, from the start of RAM.
const IMAGE: u64 = 2 << 20;
/// Registers of the serial port: data, and whether there are any and more are taken.
const DATA: u64 = 0x4000_2000;
const SILENT: u64 = 0x60;
/// There is a byte, and it is this one, too.
const SPEAKS: u64 = 0x61;

/// The guest that raises interrupts and takes them once a byte arrives.
pub fn payload() -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os("KEDGE_PAYLOADS")?).join("interrupts.img");
    path.is_file().then_some(path)
}

/// Whether a guest can begin with its MMU on, as one that is restored does.
///
/// On a Cortex-A57 with erratum 834220, Linux 7.2 keeps it from doing so: it asks the CPU
/// to translate the address of every fault, which fails as long as the guest's own tables
/// are not mapped for it, and then lets the guest try again, for ever.
///
/// # Errors
/// The host cannot make a machine.
pub fn begins_with_mmu(ctx: &Ctx<'_>) -> anyhow::Result<bool> {
    const PATIENCE: Duration = Duration::from_secs(3);
    /// In the RAM of a guest, behind its code and vectors.
    const TABLE: u64 = 0xf000;
    let program = Program::new(Step::store(DEVICE, Width::Byte, 1));
    let mut machine = ctx.guest(&[program])?;
    let memory = machine.ram.as_ref().context("guests have memory")?.as_volatile_slice()?;
    // Blocks of 1 GiB: a device's, and RAM with everything allowed.
    for (address, attributes) in [(DEVICE, 0x405_u64), (RAM, 0x701)] {
        let block = address >> 30;
        memory.write_obj(block << 30 | attributes, usize_from(TABLE + 8 * block))?;
    }
    let vcpu = &mut machine[0];
    let on = vcpu.reg64(SCTLR_EL1)? | 1;
    // Memory is cached as it can be, devices are not; 39 bits, of 4 KiB, 40 bits out.
    for (id, value) in [
        (MAIR_EL1, 0x04ff),
        (TCR_EL1, 25 | 1 << 23 | 2 << 32),
        (TTBR0_EL1, RAM + TABLE),
        (SCTLR_EL1, on),
    ] {
        vcpu.set_reg64(id, value)?;
    }
    Ok(run_for(vcpu, 0, PATIENCE)? == Seen::Store(DEVICE, vec![1]))
}

const SCTLR_EL1: RegId = RegId::system(3, 0, 1, 0, 0);
const TTBR0_EL1: RegId = RegId::system(3, 0, 2, 0, 0);
const TCR_EL1: RegId = RegId::system(3, 0, 2, 0, 2);
const MAIR_EL1: RegId = RegId::system(3, 0, 10, 2, 0);

/// A machine of one vCPU with the controller that the host would choose.
struct Board {
    machine: Machine,
    gic: Box<dyn Gic>,
    cpus: [Mpidr; 1],
    layout: Layout,
}

impl Board {
    fn new(ctx: &Ctx<'_>, memory: &Arc<RamRegion>) -> anyhow::Result<Self> {
        let machine = ctx.machine(1)?;
        machine.vm.map_ram(0, Arc::clone(memory), Access::ReadWrite)?;
        let layout =
            Layout::new(MEMORY, 1, gic::choose(machine.vm.as_ref(), None)?, &ctx.limits())?;
        let gic = machine.vm.create_gic(&layout.gic())?;
        gic.init()?;
        Ok(Self { machine, gic, cpus: [Mpidr::of(VcpuId(0))], layout })
    }

    fn spis(&self) -> u32 {
        match self.layout.gic() {
            kedge_hv::GicConfig::V2 { spis, .. } | kedge_hv::GicConfig::V3 { spis, .. } => spis,
        }
    }

    /// Puts the guest and its device tree into memory.
    fn load(&mut self, memory: &RamRegion) -> anyhow::Result<()> {
        let ram = memory.as_volatile_slice()?;
        let start = memory.start_addr().0;
        let image = fs::read(payload().context("no payload")?)?;
        ram.write_slice(&image, usize_from(IMAGE))?;
        let tree = fdt::build(&fdt::Machine {
            pci: None,
            cpus: self.cpus.to_vec(),
            caches: Caches::default(),
            memory: self.layout.ram().to_vec(),
            reserved: vec![self.layout.own_area()],
            cmdline: String::new(),
            initrd: None,
            rng_seed: None,
            kaslr_seed: None,
            psci: PsciVersion::V0_2,
            gic: self.layout.gic(),
            timers: Timers::default(),
            pmu: None,
            stdout: None,
            devices: Vec::new(),
        })?;
        let at = self.layout.fdt_area().start;
        ram.write_slice(&tree, usize_from(at.0 - start))?;
        Ok(vcpu::set_boot_state(&self.machine[0], GuestAddress(start + IMAGE), at)?)
    }

    /// What the guest says until it says `last`, or turns itself off.
    fn says(&mut self, port: u64, last: &str) -> anyhow::Result<String> {
        let mut text = String::new();
        while !text.ends_with(last) {
            match run(&mut self.machine[0], port)? {
                Seen::Store(DATA, bytes) => text.extend(bytes.iter().map(|byte| char::from(*byte))),
                Seen::Load(..) | Seen::Store(..) => {}
                Seen::System(SystemEvent::Off) => break,
                other => bail!("{other:x?} after {text}"),
            }
        }
        Ok(text)
    }
}

fn interrupts_that_wait_are_taken_once_in_another_machine(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let memory = ram(RAM, MEMORY)?;
    let mut old = Board::new(ctx, &memory)?;
    old.load(&memory)?;
    let raised = old.says(SILENT, "\n").context("in the first machine")?;
    let count = raised.trim().strip_prefix("INTERRUPTS raised ").context(raised.clone())?;
    old.machine[0].complete_access()?;
    old.machine[0].set_serror(SError { esr: None })?;

    let flushed = flush_tables(old.gic.as_ref())?;
    ensure!(matches!(flushed, Tables::Kept), "{flushed:?}");
    let registers = moved::save(ctx, &old.machine, PLAIN)?;
    let controller = GicState::capture(old.gic.as_ref(), &old.cpus, old.spis())?;
    let service = ItsStateV1::capture(old.gic.as_ref())?;
    let mut new = Board::new(ctx, &memory)?;
    moved::restore(ctx, &registers, &new.machine)?;
    controller.restore(new.gic.as_ref(), &new.cpus, new.spis())?;
    if let Some(service) = service {
        let restored = service.restore(new.gic.as_ref(), Devices::Unknown)?;
        ensure!(matches!(restored, Tables::Kept), "{restored:?}");
    }

    let said = new.says(SPEAKS, "others 0\n").context("in the second machine")?;
    let [serrors, taken] = said.lines().collect::<Vec<_>>()[..] else { bail!("{said}") };
    ensure!(serrors.starts_with("INTERRUPTS serrors 1 "), "{serrors}");
    equal(&taken, &format!("INTERRUPTS taken once {count} of {count}, others 0").as_str())
}
