//! The timers' registers: counters that run on, and whose they are.

use anyhow::ensure;
use kedge_hv_model::id;
use kedge_ids::VcpuId;

use crate::case::cases;
use crate::ctx::{Ctx, PLAIN, equal};

cases![
    Kvm the_counter_runs_on_from_what_was_written,
    Kvm the_counter_is_the_whole_machines,
    Kvm the_last_write_of_the_counter_wins,
    Kvm creating_a_vcpu_starts_the_counter_again,
    Kvm the_compare_value_stands_still,
    Kvm the_compare_value_belongs_to_its_vcpu,
    Kvm a_timers_control_register_keeps_its_two_switches,
];

/// So far ahead that no host has been up for it.
const FAR: u64 = 1 << 52;
/// Far less than the time between two [`FAR`] moments.
const SOON: u64 = 1 << 48;

fn is_soon_after(found: u64, moment: u64) -> anyhow::Result<()> {
    ensure!((moment..moment + SOON).contains(&found), "found {found:#x}, set {moment:#x}");
    Ok(())
}

fn the_counter_runs_on_from_what_was_written(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    machine[0].set_reg64(id::TIMER_CNT, FAR)?;
    let first = machine[0].reg64(id::TIMER_CNT)?;
    is_soon_after(first, FAR)?;
    ensure!(machine[0].reg64(id::TIMER_CNT)? > first, "the counter stands");
    Ok(())
}

fn the_counter_is_the_whole_machines(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(2)?;
    machine[0].set_reg64(id::TIMER_CNT, FAR)?;
    is_soon_after(machine[1].reg64(id::TIMER_CNT)?, FAR)
}

fn the_last_write_of_the_counter_wins(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(2)?;
    machine[0].set_reg64(id::TIMER_CNT, FAR)?;
    machine[1].set_reg64(id::TIMER_CNT, 2 * FAR)?;
    is_soon_after(machine[0].reg64(id::TIMER_CNT)?, 2 * FAR)
}

fn creating_a_vcpu_starts_the_counter_again(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    machine[0].set_reg64(id::TIMER_CNT, FAR)?;
    let mut late = machine.vm.create_vcpu(VcpuId(1))?;
    late.init(PLAIN)?;
    is_soon_after(machine[0].reg64(id::TIMER_CNT)?, 0)
}

fn the_compare_value_stands_still(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    machine[0].set_reg64(id::TIMER_CVAL, FAR)?;
    equal(&machine[0].reg64(id::TIMER_CVAL)?, &FAR)?;
    equal(&machine[0].reg64(id::TIMER_CVAL)?, &FAR)
}

fn the_compare_value_belongs_to_its_vcpu(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(2)?;
    machine[0].set_reg64(id::TIMER_CVAL, FAR)?;
    equal(&machine[1].reg64(id::TIMER_CVAL)?, &0)
}

fn a_timers_control_register_keeps_its_two_switches(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const ENABLE_MASKED: u64 = 0b11;
    const ISTATUS: u64 = 0b100;
    let machine = ctx.machine(1)?;
    machine[0].set_reg64(id::TIMER_CVAL, FAR)?;
    machine[0].set_reg64(id::TIMER_CTL, ENABLE_MASKED | ISTATUS)?;
    equal(&machine[0].reg64(id::TIMER_CTL)?, &ENABLE_MASKED)
}
