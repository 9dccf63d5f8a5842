//! Facts about vCPUs and machines as such.

use kedge_hv::{GicVersion, MpState, VcpuFeatures};
use kedge_hv_model::id;
use kedge_ids::RegId;

use super::{Group, fact, of_host, of_release};
use crate::ctx::{Ctx, PLAIN, any_gic, errno, gic_v3};

/// The groups of this file.
pub(super) const GROUPS: &[Group] = &[
    of_release("features", features),
    of_release("initialising again", initialising_again),
    of_release("power states", power_states),
    of_release("timers", timers),
    of_host("unready controllers", unready_controllers),
    of_host("unready pmus", unready_pmus),
    of_host("register widths", register_widths),
    of_host("limits", limits),
];

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

/// What a timer's control register says of a timer that is due.
fn timers(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    const MASKED: u64 = 0b10;
    let machine = ctx.machine(1)?;
    let mut facts = Vec::new();
    for enabled in [0, 1] {
        machine[0].set_reg64(id::TIMER_CVAL, 0)?;
        machine[0].set_reg64(id::TIMER_CTL, MASKED | enabled)?;
        let shown = machine[0].reg64(id::TIMER_CTL)?;
        facts.push(format!("due, and switched to {enabled}: {shown:#x}"));
    }
    Ok(facts)
}

/// What a run of a machine leaves behind whose controller was not ready.
fn unready_controllers(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let mut machine = ctx.machine(1)?;
    if !machine.vm.supports_gic(GicVersion::V3) {
        return Ok(Vec::new());
    }
    let gic = machine.vm.create_gic(&gic_v3())?;
    Ok(vec![
        fact("run", machine[0].complete_access()),
        fact("initialise the controller", gic.init()),
        fact("run again", machine[0].complete_access()),
        fact("list registers", machine[0].reg_list().map(drop)),
        fact("read a register", machine[0].reg(RegId::PC).map(drop)),
    ])
}

fn unready_pmus(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let mut machine = ctx.machine_with(1, PLAIN | VcpuFeatures::PMU_V3)?;
    machine.vm.create_gic(&any_gic(machine.vm.as_ref()))?.init()?;
    Ok(vec![fact("run", machine[0].complete_access())])
}

fn register_widths(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let narrow = PLAIN | VcpuFeatures::EL1_32BIT;
    let mut facts = Vec::new();
    for (first, second) in [(0, 1), (1, 0)] {
        for (one, other) in [(narrow, PLAIN), (PLAIN, narrow)] {
            let mut machine = ctx.raw_machine(2)?;
            let results = (machine[first].init(one), machine[second].init(other));
            facts.push(fact(format_args!("vcpu {first} {one:?}"), results.0));
            facts.push(fact(format_args!("then vcpu {second} {other:?}"), results.1));
        }
    }
    Ok(facts)
}

fn limits(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let limits = ctx.limits();
    Ok(vec![
        format!("address bits: {}", limits.ipa_bits),
        format!("vcpus: {}", limits.vcpus),
        format!("slots: {}", limits.slots),
    ])
}
