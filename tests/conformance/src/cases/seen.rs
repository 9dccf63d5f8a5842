//! What guests read in registers, and what their machines' users can do about it.

use anyhow::{Context, ensure};
use kedge_hv::{PmuEvents, VcpuFeatures};
use kedge_ids::{Ppi, RegId};
use libc::{EBUSY, EINVAL, ENODEV};

use crate::case::cases;
use crate::ctx::{Ctx, Machine, equal, refused};
use crate::facts::{monitored, read};

cases![
    Kvm a_guest_reads_the_main_id_register_that_is_told,
    Kvm a_guest_reads_the_cache_type_that_was_chosen,
    Kvm a_guest_reads_the_size_of_the_cache_that_it_selects,
    Kvm only_system_registers_are_read_as_a_guest,
    Kvm a_vcpu_without_monitors_has_no_events_to_hide,
    Pmu a_guest_is_not_told_of_a_hidden_event,
    Pmu an_event_is_hidden_from_every_vcpu,
    Pmu events_can_be_hidden_one_after_the_other,
    Pmu an_event_past_the_last_cannot_be_hidden,
    Pmu events_of_ready_monitors_cannot_be_hidden,
];

const MIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 0);
const CTR_EL0: RegId = RegId::system(3, 3, 0, 0, 1);
const CCSIDR_EL1: RegId = RegId::system(3, 1, 0, 0, 0);
const CSSELR_EL1: RegId = RegId::system(3, 2, 0, 0, 0);
const PMCEID0_EL0: RegId = RegId::system(3, 3, 9, 12, 6);
/// Instructions of the first level: every CPU has such a cache.
const L1_INSTRUCTIONS: u64 = 1;
const DEMUX: u64 = 0x6020_0000_0011_0000;
/// CPU_CYCLES, which all monitors count.
const CYCLES: PmuEvents = PmuEvents { first: 0x11, count: 1 };
/// SW_INCR.
const INCREMENTS: PmuEvents = PmuEvents { first: 0, count: 1 };

fn a_guest_reads_the_main_id_register_that_is_told(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    let told = machine[0].reg64(MIDR_EL1)?;
    equal(&machine[0].read_as_guest(&[MIDR_EL1, MIDR_EL1])?, &vec![Some(told); 2])
}

fn a_guest_reads_the_cache_type_that_was_chosen(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const IDC: u64 = 1 << 28;
    let mut machine = ctx.machine(1)?;
    let Ok(born) = machine[0].reg64(CTR_EL0) else { return Ok(()) };
    let chosen = (born ^ IDC) & (IDC | born);
    // Older kernels have no choice.
    if chosen != born && machine[0].set_reg64(CTR_EL0, chosen).is_ok() {
        equal(&machine[0].read_as_guest(&[CTR_EL0])?, &vec![Some(chosen)])?;
    }
    Ok(())
}

fn a_guest_reads_the_size_of_the_cache_that_it_selects(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    machine[0].set_reg64(CSSELR_EL1, L1_INSTRUCTIONS)?;
    let told = machine[0].reg(RegId(DEMUX | L1_INSTRUCTIONS))?;
    let told = u32::from_le_bytes(told.try_into().ok().context("four bytes")?);
    equal(&machine[0].read_as_guest(&[CCSIDR_EL1])?, &vec![Some(told.into())])
}

fn only_system_registers_are_read_as_a_guest(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    refused(ctx.machine(1)?[0].read_as_guest(&[MIDR_EL1, RegId::PC]), EINVAL)
}

fn a_vcpu_without_monitors_has_no_events_to_hide(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    refused(ctx.machine(1)?[0].hide_pmu_events(CYCLES), ENODEV)
}

/// A machine with performance monitors.
fn with_monitors(ctx: &Ctx<'_>) -> anyhow::Result<Machine> {
    ensure!(ctx.limits().features.contains(VcpuFeatures::PMU_V3), "no monitors");
    monitored(ctx)?.context("no monitors")
}

/// Whether a guest is told of either of two events.
fn told(machine: &mut Machine) -> anyhow::Result<[bool; 2]> {
    let events = read(machine, &[PMCEID0_EL0])?[0].context("no events")?;
    Ok([CYCLES, INCREMENTS].map(|event| events >> event.first & 1 != 0))
}

fn a_guest_is_not_told_of_a_hidden_event(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = with_monitors(ctx)?;
    equal(&told(&mut machine)?, &[true, true])?;
    let mut machine = with_monitors(ctx)?;
    machine[0].hide_pmu_events(CYCLES)?;
    equal(&told(&mut machine)?, &[false, true])
}

fn an_event_is_hidden_from_every_vcpu(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = with_monitors(ctx)?;
    machine[1].hide_pmu_events(CYCLES)?;
    equal(&told(&mut machine)?, &[false, true])
}

fn events_can_be_hidden_one_after_the_other(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = with_monitors(ctx)?;
    machine[0].hide_pmu_events(CYCLES)?;
    machine[0].hide_pmu_events(INCREMENTS)?;
    equal(&told(&mut machine)?, &[false, false])
}

fn an_event_past_the_last_cannot_be_hidden(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = with_monitors(ctx)?;
    refused(machine[0].hide_pmu_events(PmuEvents { first: 0xffff, count: 2 }), EINVAL)?;
    refused(machine[0].hide_pmu_events(PmuEvents { first: 0, count: 0 }), EINVAL)
}

fn events_of_ready_monitors_cannot_be_hidden(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = with_monitors(ctx)?;
    machine[0].init_pmu(Ppi::PMU)?;
    refused(machine[0].hide_pmu_events(CYCLES), EBUSY)
}
