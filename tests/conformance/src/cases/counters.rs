//! The timers' registers: counters that run on, and whose they are.

use anyhow::ensure;
use kedge_hv_model::id;
use kedge_ids::{RegId, VcpuId};
use libc::EINVAL;

use crate::case::cases;
use crate::ctx::{Ctx, Machine, PLAIN, equal, refused};

cases![
    Kvm the_counter_runs_on_from_what_was_written,
    Kvm the_counter_is_the_whole_machines,
    Kvm the_last_write_of_the_counter_wins,
    Kvm creating_a_vcpu_starts_the_counter_again,
    Kvm the_compare_value_stands_still,
    Kvm the_compare_value_belongs_to_its_vcpu,
    Kvm a_timers_control_register_keeps_its_two_switches,
    PhysicalCounter the_physical_counter_is_the_hosts_until_it_is_written,
    PhysicalCounter the_physical_counter_is_the_whole_machines,
    PhysicalCounter either_counter_can_be_moved_alone,
    PhysicalCounter creating_a_vcpu_gives_the_hosts_physical_counter_back,
    NoCounterOffset a_host_without_offsets_refuses_one,
    CounterOffset an_offset_moves_both_counters,
    CounterOffset an_offset_outlasts_what_is_written,
    CounterOffset an_offset_holds_for_vcpus_to_come,
    CounterOffset an_offset_can_change_at_any_time,
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

/// The host's counter: the physical one of a machine whose counters nobody moved.
fn hosts_counter(ctx: &Ctx<'_>) -> anyhow::Result<u64> {
    Ok(ctx.machine(1)?[0].reg64(id::PTIMER_CNT)?)
}

/// The physical counter of this machine is the host's.
fn is_the_hosts(ctx: &Ctx<'_>, machine: &Machine) -> anyhow::Result<()> {
    let before = hosts_counter(ctx)?;
    let found = machine[0].reg64(id::PTIMER_CNT)?;
    let after = hosts_counter(ctx)?;
    ensure!((before..=after).contains(&found), "{found:#x} is not in {before:#x} to {after:#x}");
    Ok(())
}

fn the_physical_counter_is_the_hosts_until_it_is_written(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    is_the_hosts(ctx, &machine)?;
    machine[0].set_reg64(id::PTIMER_CNT, FAR)?;
    let first = machine[0].reg64(id::PTIMER_CNT)?;
    is_soon_after(first, FAR)?;
    ensure!(machine[0].reg64(id::PTIMER_CNT)? > first, "the counter stands");
    Ok(())
}

fn the_physical_counter_is_the_whole_machines(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(2)?;
    machine[0].set_reg64(id::PTIMER_CNT, FAR)?;
    is_soon_after(machine[1].reg64(id::PTIMER_CNT)?, FAR)
}

fn either_counter_can_be_moved_alone(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    machine[0].set_reg64(id::PTIMER_CNT, FAR)?;
    is_soon_after(machine[0].reg64(id::TIMER_CNT)?, 0)?;
    machine[0].set_reg64(id::TIMER_CNT, 2 * FAR)?;
    is_soon_after(machine[0].reg64(id::PTIMER_CNT)?, FAR)
}

fn creating_a_vcpu_gives_the_hosts_physical_counter_back(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    machine[0].set_reg64(id::PTIMER_CNT, FAR)?;
    let _late = machine.vm.create_vcpu(VcpuId(1))?;
    is_the_hosts(ctx, &machine)
}

fn a_host_without_offsets_refuses_one(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    refused(ctx.machine(1)?.vm.set_counter_offset(FAR), EINVAL)
}

const COUNTERS: [RegId; 2] = [id::TIMER_CNT, id::PTIMER_CNT];

/// Both counters of every vCPU are behind the host's by `offset`.
fn are_behind(ctx: &Ctx<'_>, machine: &Machine, offset: u64) -> anyhow::Result<()> {
    let host = hosts_counter(ctx)?;
    for vcpu in &machine.vcpus {
        for counter in COUNTERS {
            is_soon_after(vcpu.reg64(counter)?.wrapping_add(offset), host)?;
        }
    }
    Ok(())
}

fn an_offset_moves_both_counters(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(2)?;
    machine.vm.set_counter_offset(FAR)?;
    are_behind(ctx, &machine, FAR)
}

fn an_offset_outlasts_what_is_written(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    machine[0].set_reg64(id::TIMER_CNT, 3 * FAR)?;
    machine.vm.set_counter_offset(FAR)?;
    COUNTERS.iter().try_for_each(|counter| machine[0].set_reg64(*counter, 2 * FAR))?;
    are_behind(ctx, &machine, FAR)
}

fn an_offset_holds_for_vcpus_to_come(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    machine.vm.set_counter_offset(FAR)?;
    let mut late = machine.vm.create_vcpu(VcpuId(1))?;
    late.init(PLAIN)?;
    machine.vcpus.push(late);
    are_behind(ctx, &machine, FAR)
}

fn an_offset_can_change_at_any_time(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    machine.vm.set_counter_offset(FAR)?;
    machine[0].complete_access()?;
    machine.vm.set_counter_offset(2 * FAR)?;
    are_behind(ctx, &machine, 2 * FAR)
}
