//! Facts about guest ABI that no register shows.

use kedge_hv::{HvError, SError, SmcccAction, SmcccRange, Timer};
use kedge_hv_model::{Program, Step, Width};
use kedge_ids::{Ppi, RegId, VcpuId};

use super::{Group, fact, of_host, of_release};
use crate::ctx::{Ctx, DEVICE, Machine, PLAIN, Seen, any_gic, entry, expect};

/// The groups of this file.
pub(super) const GROUPS: &[Group] = &[
    of_release("abilities", abilities),
    of_release("calls by smc", calls_by_smc),
    of_release("ranges of a filter", filter_ranges),
    of_host("revisions of the distributor", revisions),
    of_release("interrupts of timers", timer_interrupts),
    of_release("vcpus before initialisation", before_initialisation),
    of_host("serrors", serrors),
    of_host("the host's counter", counter),
];

fn abilities(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let host = ctx.host_abilities();
    let vm = ctx.vm()?;
    Ok(vec![
        format!("counter offsets: {}", host.counter_offset),
        format!("stolen time: {}", host.pv_time),
        format!("writable main id registers: {}", host.writable_imp_ids),
        format!("filter: {}", vm.supports_smccc_filter()),
        format!("masks of id registers: {}", vm.writable_id_masks()?.is_some()),
    ])
}

fn counter(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    Ok(vec![format!("it runs at {} hz", ctx.host_abilities().counter_hz)])
}

/// What a guest that calls by SMC finds in x0 to x3.
fn calls_by_smc(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let mut facts = Vec::new();
    for function in [0x8400_0000_u64, 0x8000_0000, 0x8600_ff01, 0xc600_ff00] {
        let set = (0..).zip([function, 1, 2, 3]).map(|(reg, value)| Step::Set { reg, value });
        let steps = set.chain([Step::SecureCall]).chain(Step::store(DEVICE, Width::Byte, 1));
        let mut machine = ctx.guest(&[Program::new(steps)])?;
        expect(&mut machine[0], &Seen::Store(DEVICE, vec![1]))?;
        for n in 0..4 {
            let value = machine[0].reg64(RegId::x(n))?;
            facts.push(format!("after {function:#x} by smc, x{n} is {value:#x}"));
        }
    }
    Ok(facts)
}

/// Ranges at the edges of what 32 bits can count.
fn filter_ranges(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let mut facts = Vec::new();
    for (base, count) in [(0, 0), (0, 1), (0, u32::MAX), (1, 0), (1, u32::MAX), (u32::MAX, 1)] {
        let range = SmcccRange { base, count, action: SmcccAction::Deny };
        let result = ctx.vm()?.filter_smccc(&range);
        facts.push(fact(format_args!("{count} functions from {base:#x}"), result));
    }
    Ok(facts)
}

fn revisions(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let machine = ctx.machine(1)?;
    let gic = machine.vm.create_gic(&any_gic(machine.vm.as_ref()))?;
    let mut facts = vec![
        fact("read early", gic.distributor_revision().map(drop)),
        fact("choose 2 early", gic.set_distributor_revision(2)),
    ];
    gic.init()?;
    facts.push(format!("then it is {}", gic.distributor_revision()?));
    for revision in 0..16 {
        let result = gic.set_distributor_revision(revision);
        facts.push(fact(format_args!("choose {revision}"), result));
    }
    Ok(facts)
}

fn machine_with_gic(ctx: &Ctx<'_>) -> anyhow::Result<Machine> {
    let machine = ctx.machine(2)?;
    machine.vm.create_gic(&any_gic(machine.vm.as_ref()))?.init()?;
    Ok(machine)
}

fn timer_interrupts(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let ppi = Ppi::try_from(20)?;
    let mut facts = Vec::new();
    let mut machine = machine_with_gic(ctx)?;
    machine[0].complete_access()?;
    let result = machine[1].set_timer_ppi(Timer::Virtual, ppi);
    facts.push(fact("one vcpu has run, set through another", result));
    facts.push(fact("then run the other", machine[1].complete_access()));

    for mended in [Timer::Virtual, Timer::Physical] {
        let mut machine = machine_with_gic(ctx)?;
        machine[0].set_timer_ppi(Timer::Virtual, Ppi::PHYSICAL_TIMER)?;
        facts.push(fact("set alike", machine[0].complete_access()));
        facts.push(fact("set again", machine[0].set_timer_ppi(mended, ppi)));
        facts.push(fact(format_args!("{mended:?} mended"), machine[0].complete_access()));
    }

    let mut machine = machine_with_gic(ctx)?;
    machine[0].set_timer_ppi(Timer::Virtual, ppi)?;
    machine[0].init(PLAIN)?;
    machine[0].set_timer_ppi(Timer::Physical, ppi)?;
    facts.push(fact("set, initialised again, set alike", machine[0].complete_access()));

    let mut machine = ctx.machine(1)?;
    let gic = machine.vm.create_gic(&any_gic(machine.vm.as_ref()))?;
    machine[0].set_timer_ppi(Timer::Virtual, ppi)?;
    let mut late = machine.vm.create_vcpu(VcpuId(1))?;
    late.init(PLAIN)?;
    gic.init()?;
    facts.push(fact("set before another vcpu was created", machine[0].complete_access()));
    facts.push(fact("and the other", late.complete_access()));
    Ok(facts)
}

fn before_initialisation(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let machine = ctx.raw_machine(1)?;
    Ok(vec![
        fact("read the serror", machine[0].serror().map(drop)),
        fact("set an serror", machine[0].set_serror(SError { esr: None })),
        fact("read stolen time's place", machine[0].pv_time().map(drop)),
        fact("read the power state", machine[0].mp_state().map(drop)),
    ])
}

/// Bits of PSTATE: EL1 with a stack of its own, all interrupts masked but SErrors.
const UNMASKED: u64 = 0b10_1100_0101;

/// What becomes of an SError that its guest does not mask.
fn serrors(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let machine = ctx.guest(&[Program::default()])?;
    machine[0].set_reg64(RegId::PSTATE, UNMASKED)?;
    machine[0].set_serror(SError { esr: Some(0x12) })?;
    let show = |name: &str, id: RegId| -> Result<String, HvError> {
        Ok(format!("then {name} is {:#x}", machine[0].reg64(id)?))
    };
    Ok(vec![
        format!("unmasked, it waits as {:?}", machine[0].serror()?),
        format!("the vcpu has moved: {}", machine[0].reg64(RegId::PC)? != entry(0)),
        show("the pc", RegId::PC)?,
        show("pstate", RegId::PSTATE)?,
        show("esr", RegId::system(3, 0, 5, 2, 0))?,
        show("elr", RegId::core(8 * 35))?,
    ])
}
