//! What a back end answers where kernels differ, as lines of text, so that two
//! back ends can be compared: a kernel with the model of its release.
//!
//! The cases hold on every kernel; the facts are what makes one kernel this one.
//! A fact is found by asking and by trying, and never by anything's name.

use std::collections::BTreeSet;

use anyhow::bail;
use kedge_hv::{HvError, MpState, Vcpu, VcpuFeatures};
use kedge_hv_model::{Program, Step, Width, id};
use kedge_ids::RegId;

use crate::Backend;
use crate::ctx::{Ctx, DEVICE, Machine, PLAIN, Seen, errno, run};

/// Facts about one thing.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// What they are about.
    pub name: &'static str,
    /// Where they mean the same.
    pub holds: Holds,
    /// Finds them out.
    pub find: fn(&Ctx<'_>) -> anyhow::Result<Vec<String>>,
}

/// Between which hosts facts can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// All under one kernel release.
    Release,
    /// Those that have the same CPU, too.
    SameCpu,
    /// Those of the same CPU with SVE.
    SameCpuWithSve,
}

/// All groups.
pub const GROUPS: &[Group] = &[
    Group { name: "features", holds: Holds::Release, find: features },
    Group { name: "initialising again", holds: Holds::Release, find: initialising_again },
    Group { name: "power states", holds: Holds::Release, find: power_states },
    Group { name: "firmware registers", holds: Holds::Release, find: firmware_registers },
    Group { name: "frozen firmware", holds: Holds::Release, find: frozen_firmware },
    Group { name: "ids that are no registers", holds: Holds::Release, find: no_registers },
    Group { name: "firmware calls", holds: Holds::Release, find: firmware_calls },
    Group { name: "firmware calls switched off", holds: Holds::Release, find: calls_switched_off },
    Group { name: "firmware calls of psci 0.1", holds: Holds::Release, find: calls_of_psci_0_1 },
    Group { name: "cpu_on", holds: Holds::Release, find: cpu_on },
    Group { name: "limits", holds: Holds::SameCpu, find: limits },
    Group { name: "registers of a plain vcpu", holds: Holds::SameCpu, find: plain_registers },
    Group { name: "registers with the pmu", holds: Holds::SameCpu, find: pmu_registers },
    Group { name: "registers with ptrauth", holds: Holds::SameCpu, find: ptrauth_registers },
    Group { name: "registers with sve", holds: Holds::SameCpuWithSve, find: sve_registers },
    Group { name: "scopes", holds: Holds::SameCpu, find: scopes },
    Group { name: "fields of id registers", holds: Holds::SameCpu, find: id_fields },
    Group { name: "frozen id registers", holds: Holds::SameCpu, find: frozen_ids },
    Group { name: "workaround levels", holds: Holds::SameCpu, find: workaround_levels },
];

/// Compares the facts of two back ends, where that makes sense.
///
/// # Errors
/// They differ; the lines that do are in the text.
pub fn compare(
    group: &Group,
    backend: &dyn Backend,
    reference: &dyn Backend,
) -> anyhow::Result<()> {
    let (ctx, reference) = (Ctx::new(backend), Ctx::new(reference));
    if !comparable(group.holds, &ctx, &reference)? {
        return Ok(());
    }
    let found: BTreeSet<_> = (group.find)(&ctx)?.into_iter().collect();
    let due: BTreeSet<_> = (group.find)(&reference)?.into_iter().collect();
    let unexpected = found.difference(&due).map(|fact| format!("  found {fact}"));
    let missing = due.difference(&found).map(|fact| format!("  due   {fact}"));
    let lines: Vec<_> = unexpected.chain(missing).collect();
    if !lines.is_empty() {
        bail!("{}: {} facts differ\n{}", group.name, lines.len(), lines.join("\n"));
    }
    Ok(())
}

/// Whether two hosts' facts can be compared.
///
/// # Errors
/// Not even a plain machine can be made.
pub fn comparable(holds: Holds, one: &Ctx<'_>, other: &Ctx<'_>) -> anyhow::Result<bool> {
    let cpu = |ctx: &Ctx<'_>| anyhow::Ok(ctx.machine(1)?[0].reg64(MIDR_EL1)?);
    let has_sve = |ctx: &Ctx<'_>| ctx.limits().features.contains(VcpuFeatures::SVE);
    Ok(match holds {
        Holds::Release => true,
        Holds::SameCpu => cpu(one)? == cpu(other)?,
        Holds::SameCpuWithSve => cpu(one)? == cpu(other)? && has_sve(one) && has_sve(other),
    })
}

const MIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 0);

fn fact(name: impl std::fmt::Display, result: Result<(), HvError>) -> String {
    format!("{name}: errno {}", errno(&result))
}

/// Which feature bits the kernel knows; whether the host has them is another
/// question.
fn features(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let mut facts = Vec::new();
    for bit in 0..u32::BITS {
        let mut machine = ctx.raw_machine(1)?;
        let result = machine[0].init(PLAIN | VcpuFeatures(1 << bit));
        let known = errno(&result) != libc::ENOENT;
        facts.push(format!("bit {bit}: {}", if known { "known" } else { "unknown" }));
    }
    let mut machine = ctx.raw_machine(2)?;
    machine[0].init(PLAIN)?;
    facts.push(fact("psci-0.2 on one vcpu of two", machine[1].init(VcpuFeatures::NONE)));
    Ok(facts)
}

fn initialising_again(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let born_off = PLAIN | VcpuFeatures::POWER_OFF;
    let mut machine = ctx.machine(1)?;
    let mut facts = vec![fact("born on, then off", machine[0].init(born_off))];
    let mut machine = ctx.machine_with(1, born_off)?;
    facts.push(fact("born off, then on", machine[0].init(PLAIN)));
    facts.push(format!("then it is {:?}", machine[0].mp_state()?));
    Ok(facts)
}

fn power_states(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let machine = ctx.machine(1)?;
    let states = [MpState::Runnable, MpState::Stopped, MpState::Suspended];
    let mut facts: Vec<_> = states
        .into_iter()
        .map(|state| fact(format_args!("{state:?}"), machine[0].set_mp_state(state)))
        .collect();
    facts.push(fact("system suspend", machine.vm.enable_system_suspend()));
    Ok(facts)
}

/// The banks of firmware registers.
fn is_firmware(id: RegId) -> bool {
    [0x14, 0x16].contains(&id.coprocessor())
}

const LEVELS: [RegId; 3] = [id::WORKAROUND_1, id::WORKAROUND_2, id::WORKAROUND_3];

/// Values worth trying on a firmware register.
fn trials() -> impl Iterator<Item = u64> {
    (0..=0x21).chain(0x1_0000..0x1_0008).chain([0x2_0000, 1 << 32, 1 << 63, u64::MAX])
}

fn firmware_registers(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let machine = ctx.machine(2)?;
    let mut facts = Vec::new();
    for id in machine[0].reg_list()?.into_iter().filter(|id| is_firmware(*id)) {
        if LEVELS.contains(&id) {
            facts.push(format!("{id} is listed"));
            continue;
        }
        let born = machine[0].reg64(id)?;
        facts.push(format!("{id} is born as {born:#x}"));
        for value in trials() {
            let result = machine[0].set_reg64(id, value);
            let (here, there) = (machine[0].reg64(id)?, machine[1].reg64(id)?);
            facts.push(fact(format_args!("{id} = {value:#x}: {here:#x}, {there:#x}"), result));
        }
    }
    Ok(facts)
}

fn frozen_firmware(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let mut machine = ctx.machine(1)?;
    machine[0].complete_access()?;
    let mut facts = Vec::new();
    let list = machine[0].reg_list()?;
    let plain = |id: &RegId| is_firmware(*id) && !LEVELS.contains(id);
    for id in list.into_iter().filter(plain) {
        for value in trials() {
            let result = machine[0].set_reg64(id, value);
            facts.push(fact(format_args!("{id} = {value:#x} after a run"), result));
        }
    }
    Ok(facts)
}

/// Ids next to registers, and far from them.
fn no_registers(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    const U64: u64 = 0x6030_0000_0000_0000;
    let fw = (0..12).flat_map(|index| [U64 | 0x14 << 16 | index, U64 | 0x16 << 16 | index]);
    let banks = (0x17..0x40).map(|bank| U64 | bank << 16);
    let sizes = (0..8).flat_map(|size| {
        let of_size = 0x6000_0000_0000_0000 | size << 52;
        [0x14_0000, 0x16_0000, 0x13_c005].map(|register| of_size | register)
    });
    let machine = ctx.machine(1)?;
    let list = machine[0].reg_list()?;
    let mut facts = Vec::new();
    for id in fw.chain(banks).chain(sizes).map(RegId).filter(|id| !list.contains(id)) {
        let zero = vec![0; id.size().bytes()];
        facts.push(fact(format_args!("read {id}"), machine[0].reg(id).map(drop)));
        facts.push(fact(format_args!("write {id}"), machine[0].set_reg(id, &zero)));
    }
    Ok(facts)
}

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

/// Asks them all, and stores x0 to x3 each time.
fn asker(functions: &[(u32, u64)]) -> Program {
    let tell = [0, 1, 2, 3].map(|reg| Step::Store {
        reg,
        address: DEVICE + 8 * u64::from(reg),
        width: Width::Double,
    });
    Program::new(functions.iter().flat_map(|(function, argument)| {
        Step::call(*function, [*argument, 0, 0]).into_iter().chain(tell.clone())
    }))
}

fn answers(machine: &mut Machine, functions: &[(u32, u64)]) -> anyhow::Result<Vec<String>> {
    let mut facts = Vec::new();
    for (function, argument) in functions {
        let mut values = Vec::new();
        for _ in 0..4 {
            match run(&mut machine[0], 0)? {
                Seen::Store(_, bytes) => values.push(little_endian(&bytes)),
                other => bail!("{function:#x}({argument:#x}) led to {other:?}"),
            }
        }
        facts.push(format!("{function:#x}({argument:#x}) answers {values:x?}"));
    }
    Ok(facts)
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
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
    let entry = crate::ctx::entry(1);
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

fn limits(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let limits = ctx.limits();
    Ok(vec![
        format!("address bits: {}", limits.ipa_bits),
        format!("vcpus: {}", limits.vcpus),
        format!("slots: {}", limits.slots),
    ])
}

/// Registers whose value runs on.
pub const CLOCKS: [RegId; 2] = [id::TIMER_CNT, id::PTIMER_CNT];

fn registers_of(vcpu: &dyn Vcpu) -> anyhow::Result<Vec<String>> {
    let mut facts = Vec::new();
    for id in vcpu.reg_list()? {
        match vcpu.reg(id)? {
            _ if CLOCKS.contains(&id) => facts.push(format!("{id} runs")),
            value => facts.push(format!("{id} is born as {value:x?}")),
        }
    }
    Ok(facts)
}

fn with_feature(ctx: &Ctx<'_>, feature: VcpuFeatures) -> anyhow::Result<Vec<String>> {
    registers_of(&ctx.machine_with(1, PLAIN | feature)?[0])
}

fn plain_registers(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    with_feature(ctx, VcpuFeatures::NONE)
}

fn pmu_registers(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    with_feature(ctx, VcpuFeatures::PMU_V3)
}

fn ptrauth_registers(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    with_feature(ctx, VcpuFeatures::PTRAUTH)
}

fn sve_registers(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let mut machine = ctx.machine_with(1, PLAIN | VcpuFeatures::SVE)?;
    machine[0].finalize_sve()?;
    registers_of(&machine[0])
}

/// Whose each register is: written through one vCPU, read through another.
fn scopes(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let machine = ctx.machine(2)?;
    let mut facts = Vec::new();
    let list = machine[0].reg_list()?;
    for id in list.into_iter().filter(|id| id.size().bytes() == 8 && !CLOCKS.contains(id)) {
        let (born, beside) = (machine[0].reg64(id)?, machine[1].reg64(id)?);
        let sticks = |value: &u64| {
            let set = machine[0].set_reg64(id, *value).is_ok();
            set && machine[0].reg64(id).is_ok_and(|now| now == *value && now != born)
        };
        let mut candidates = (0..u64::BITS).map(|bit| born ^ 1 << bit);
        let scope = match candidates.find(sticks) {
            None => "fixed",
            Some(_) if machine[1].reg64(id)? != beside => "the machine's",
            Some(_) => "the vcpu's",
        };
        facts.push(format!("{id} is {scope}"));
        // A register that does not go back would have been noticed as written.
        let _ = machine[0].set_reg64(id, born);
    }
    Ok(facts)
}

/// The registers whose fields have legal values: op0 3, CRn 0.
fn is_identification(id: RegId) -> bool {
    let of = |op1, crm, op2| RegId::system(3, op1, 0, crm, op2);
    (of(0, 1, 0)..=of(0, 7, 7)).contains(&id) || [of(1, 0, 1), of(3, 0, 1)].contains(&id)
}

fn id_fields(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    writable_fields(ctx)
}

/// What the fields of ID registers accept besides the value they have, as lines
/// of a recording (see `kedge_hv_model::Recording`).
///
/// # Errors
/// A register reads as something that it neither had nor was given.
pub fn writable_fields(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let machine = ctx.machine(1)?;
    let list = machine[0].reg_list()?;
    let mut facts = Vec::new();
    for id in list.into_iter().filter(|id| is_identification(*id)) {
        for shift in (0..u64::BITS).step_by(4) {
            facts.extend(accepted(&machine[0], id, shift)?);
        }
    }
    Ok(facts)
}

/// What the four bits at `shift` accept, unless it is their own value only.
fn accepted(vcpu: &dyn Vcpu, id: RegId, shift: u32) -> anyhow::Result<Option<String>> {
    let born = vcpu.reg64(id)?;
    let (mut kept, mut lost) = (0_u16, 0_u16);
    for value in 0..16 {
        let wanted = born & !(0xf << shift) | value << shift;
        if vcpu.set_reg64(id, wanted).is_ok() {
            match vcpu.reg64(id)? {
                now if now == wanted => kept |= 1 << value,
                now if now == born => lost |= 1 << value,
                now => bail!("{id} = {wanted:#x} reads {now:#x}"),
            }
        }
        vcpu.set_reg64(id, born)?;
    }
    let fixed = kept == 1 << (born >> shift & 0xf) && lost == 0;
    Ok((!fixed).then(|| format!("field {:x} {shift} {kept:x} {lost:x}", id.0)))
}

/// What ID registers accept after a run: all that they accepted before, one step
/// down in each field.
fn frozen_ids(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let mut machine = ctx.machine(1)?;
    let list = machine[0].reg_list()?;
    machine[0].complete_access()?;
    let mut facts = Vec::new();
    for id in list.into_iter().filter(|id| is_identification(*id)) {
        let born = machine[0].reg64(id)?;
        facts.push(fact(format_args!("{id} as it is"), machine[0].set_reg64(id, born)));
        for shift in (0..u64::BITS).step_by(4).filter(|shift| born >> shift & 0xf != 0) {
            let result = machine[0].set_reg64(id, born - (1 << shift));
            facts.push(fact(format_args!("{id} one less at {shift}"), result));
            machine[0].set_reg64(id, born)?;
        }
    }
    Ok(facts)
}

fn workaround_levels(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let machine = ctx.machine(1)?;
    let mut facts = Vec::new();
    for id in LEVELS {
        facts.push(format!("{id} is born as {:#x}", machine[0].reg64(id)?));
        for value in trials() {
            facts.push(fact(format_args!("{id} = {value:#x}"), machine[0].set_reg64(id, value)));
        }
    }
    let asked =
        [(0x8000_0001, 0x8000_8000), (0x8000_0001, 0x8000_7fff), (0x8000_0001, 0x8000_3fff)];
    let mut machine = ctx.guest(&[asker(&asked)])?;
    facts.extend(answers(&mut machine, &asked)?);
    Ok(facts)
}
