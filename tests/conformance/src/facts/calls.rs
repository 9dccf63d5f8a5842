//! Facts about what firmware calls answer.

use anyhow::Context;
use kedge_guest_memory::{Bytes, GuestMemoryRegion};
use kedge_hv::{MpState, VcpuFeatures};
use kedge_hv_model::{Program, Step, Width};
use kedge_ids::{RegId, usize_from};

use super::{Group, of_release};
use crate::ctx::{Ctx, DEVICE, Machine, RAM, Seen, entry, expect, run};

/// The groups of this file.
pub(super) const GROUPS: &[Group] = &[
    of_release("firmware calls", firmware_calls),
    of_release("firmware calls switched off", calls_switched_off),
    of_release("firmware calls of psci 0.1", calls_of_psci_0_1),
    of_release("cpu_on", cpu_on),
];

/// Functions whose answers depend on the release, and on no clock or host.
fn functions() -> Vec<(u32, u64)> {
    const PSCI_FEATURES: u32 = 0x8400_000a;
    const ARCH_FEATURES: u32 = 0x8000_0001;
    let psci = (0..32).flat_map(|n| [0x8400_0000 | n, 0xc400_0000 | n]);
    let mut functions: Vec<_> = psci.map(|asked| (PSCI_FEATURES, asked)).collect();
    functions.extend([(PSCI_FEATURES, 0x8000_0000), (ARCH_FEATURES, 0xc500_0020)]);
    functions.extend([0x8400_0000, 0x8400_0006, 0x8400_0007, 0x8400_001f].map(|f| (f, 0)));
    functions.extend([0x8000_0000, 0x8000_0002, 0xc000_0001].map(|f| (f, 0)));
    functions.extend([0x8400_0050, 0x8400_0052, 0x8400_0053, 0xc400_0053].map(|f| (f, 0)));
    functions
        .extend([0x8400_0050, 0x8400_0053, 0xc400_0053, 0x8400_0054].map(|f| (0x8400_0051, f)));
    functions.extend([0xc500_0020, 0xc500_0021].map(|f| (f, 0xc500_0020)));
    functions.extend([0x8600_0000, 0x8600_ff01, 0xc600_0040, 0xc600_0041].map(|f| (f, 0)));
    functions
}

/// Where a guest puts the answers it gets: behind its code and its vectors.
const ANSWERS: u64 = 0xc000;

/// Asks them all, and keeps x0 to x3 each time.
pub(super) fn asker(functions: &[(u32, u64)]) -> Program {
    let places = (RAM + ANSWERS..).step_by(32);
    let asked = functions.iter().zip(places).flat_map(|((function, argument), place)| {
        let keep = [0, 1, 2, 3].map(|reg| Step::Store {
            reg,
            address: place + 8 * u64::from(reg),
            width: Width::Double,
        });
        Step::call(*function, [*argument, 0, 0]).into_iter().chain(keep)
    });
    Program::new(asked.chain(Step::store(DEVICE, Width::Byte, 1)))
}

pub(super) fn answers(
    machine: &mut Machine,
    functions: &[(u32, u64)],
) -> anyhow::Result<Vec<String>> {
    expect(&mut machine[0], &Seen::Store(DEVICE, vec![1]))?;
    let ram = machine.ram.as_ref().context("a guest has memory")?.as_volatile_slice()?;
    let mut facts = Vec::new();
    for ((function, argument), place) in functions.iter().zip((ANSWERS..).step_by(32)) {
        let values: [u64; 4] = ram.read_obj(usize_from(place))?;
        facts.push(format!("{function:#x}({argument:#x}) answers {values:x?}"));
    }
    Ok(facts)
}

fn firmware_calls(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let functions = functions();
    let mut facts = Vec::new();
    let newest = ctx.machine(1)?[0].reg64(RegId::PSCI_VERSION)?;
    for version in [0x2, 0x1_0000, newest] {
        let mut machine = ctx.guest(&[asker(&functions)])?;
        machine[0].set_reg64(RegId::PSCI_VERSION, version)?;
        let under = |fact: String| format!("under {version:#x}, {fact}");
        facts.extend(answers(&mut machine, &functions)?.into_iter().map(under));
    }
    Ok(facts)
}

fn calls_switched_off(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let functions = functions();
    let mut facts = Vec::new();
    let list = ctx.machine(1)?[0].reg_list()?;
    for id in list.into_iter().filter(|id| id.coprocessor() == 0x16) {
        for value in [0, 1, 2, 3] {
            let mut machine = ctx.guest(&[asker(&functions)])?;
            if machine[0].set_reg64(id, value).is_ok() {
                let with = |fact: String| format!("with {id} = {value}, {fact}");
                facts.extend(answers(&mut machine, &functions)?.into_iter().map(with));
            }
        }
    }
    Ok(facts)
}

fn calls_of_psci_0_1(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    // SUSPEND, MIGRATE, and CPU_ON of this vCPU, which runs.
    let functions = [(0x95c1_ba5e, 0), (0x95c1_ba61, 0), (0x95c1_ba60, 0), (0x8400_0000, 0)];
    let mut machine = ctx.guest_of(VcpuFeatures::NONE, &[asker(&functions)])?;
    answers(&mut machine, &functions)
}

/// What a target of CPU_ON shows before it has run.
fn cpu_on(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    const CPU_ON: u32 = 0xc400_0003;
    let entry = entry(1);
    let tell = Step::Store { reg: 0, address: DEVICE, width: Width::Double };
    let on = Step::call(CPU_ON, [1, entry, 0xc0de]).into_iter().chain([tell]);
    let mut machine = ctx.guest(&[Program::new(on), Program::default()])?;
    machine[1].set_mp_state(MpState::Stopped)?;
    machine[1].set_reg64(RegId::PC, 0x40)?;
    run(&mut machine[0], 0)?;
    Ok(vec![
        format!("the target's pc is {:#x}", machine[1].reg64(RegId::PC)?),
        format!("the target's x0 is {:#x}", machine[1].reg64(RegId::x(0))?),
    ])
}
