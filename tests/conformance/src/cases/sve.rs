//! The Scalable Vector Extension: lengths, finalization, what it hides.

use anyhow::ensure;
use kedge_hv::VcpuFeatures;
use kedge_ids::RegId;
use libc::{EINVAL, ENOENT, EPERM};

use crate::case::cases;
use crate::ctx::{Ctx, Machine, PLAIN, equal, refused};

cases![
    Kvm a_vcpu_without_sve_has_no_lengths_to_finalize,
    Sve nothing_is_listed_or_run_before_finalization,
    Sve sve_state_is_out_of_reach_before_finalization,
    Sve other_registers_are_within_reach_before_finalization,
    Sve lengths_are_finalized_once,
    Sve lengths_are_born_as_the_hosts,
    Sve lengths_can_be_cut_short,
    Sve a_length_in_the_middle_cannot_be_left_out,
    Sve a_length_the_host_lacks_is_refused,
    Sve no_lengths_at_all_are_refused,
    Sve lengths_cannot_change_after_finalization,
    Sve vector_registers_give_way_to_wider_ones,
    Sve initialising_again_keeps_the_lengths,
];

const Z0: RegId = RegId(0x6080_0000_0015_0000);
const P0: RegId = RegId(0x6050_0000_0015_0400);
const FFR: RegId = RegId(0x6050_0000_0015_0600);
const V0: RegId = RegId(0x6040_0000_0010_0054);
const SVE: VcpuFeatures = VcpuFeatures(PLAIN.0 | VcpuFeatures::SVE.0);

/// The length of 128 bits only.
fn shortest() -> Vec<u8> {
    let mut lengths = vec![0; 64];
    lengths[0] = 1;
    lengths
}

fn finalized(ctx: &Ctx<'_>) -> anyhow::Result<Machine> {
    let mut machine = ctx.machine_with(1, SVE)?;
    machine[0].finalize_sve()?;
    Ok(machine)
}

fn a_vcpu_without_sve_has_no_lengths_to_finalize(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    refused(machine[0].finalize_sve(), EINVAL)?;
    refused(machine[0].reg(RegId::SVE_VLS), ENOENT)?;
    refused(machine[0].set_reg(RegId::SVE_VLS, &shortest()), ENOENT)?;
    refused(machine[0].reg(Z0), ENOENT)
}

fn nothing_is_listed_or_run_before_finalization(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine_with(1, SVE)?;
    refused(machine[0].reg_list(), EPERM)?;
    refused(machine[0].complete_access(), EPERM)?;
    refused(machine[0].run(), EPERM)
}

fn sve_state_is_out_of_reach_before_finalization(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine_with(1, SVE)?;
    for id in [Z0, P0, FFR] {
        refused(machine[0].reg(id), EPERM)?;
        refused(machine[0].set_reg(id, &vec![0; id.size().bytes()]), EPERM)?;
    }
    Ok(())
}

fn other_registers_are_within_reach_before_finalization(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine_with(1, SVE)?;
    machine[0].set_reg64(RegId::PC, 0x40)?;
    equal(&machine[0].reg64(RegId::PC)?, &0x40)
}

fn lengths_are_finalized_once(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    refused(finalized(ctx)?[0].finalize_sve(), EPERM)
}

fn lengths_are_born_as_the_hosts(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine_with(1, SVE)?;
    let lengths = machine[0].reg(RegId::SVE_VLS)?;
    ensure!(lengths[0] & 1 == 1, "128 bits are not among {lengths:x?}");
    machine[0].set_reg(RegId::SVE_VLS, &lengths)?;
    equal(&machine[0].reg(RegId::SVE_VLS)?, &lengths)
}

fn lengths_can_be_cut_short(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine_with(1, SVE)?;
    machine[0].set_reg(RegId::SVE_VLS, &shortest())?;
    machine[0].finalize_sve()?;
    equal(&machine[0].reg(RegId::SVE_VLS)?, &shortest())
}

fn a_length_in_the_middle_cannot_be_left_out(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine_with(1, SVE)?;
    let mut lengths = machine[0].reg(RegId::SVE_VLS)?;
    ensure!(lengths[0] != 1, "this host has one length only");
    lengths[0] &= !1;
    refused(machine[0].set_reg(RegId::SVE_VLS, &lengths), EINVAL)
}

fn a_length_the_host_lacks_is_refused(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine_with(1, SVE)?;
    let mut lengths = machine[0].reg(RegId::SVE_VLS)?;
    lengths[2] |= 1;
    refused(machine[0].set_reg(RegId::SVE_VLS, &lengths), EINVAL)
}

fn no_lengths_at_all_are_refused(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine_with(1, SVE)?;
    refused(machine[0].set_reg(RegId::SVE_VLS, &[0; 64]), EINVAL)
}

fn lengths_cannot_change_after_finalization(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = finalized(ctx)?;
    let lengths = machine[0].reg(RegId::SVE_VLS)?;
    refused(machine[0].set_reg(RegId::SVE_VLS, &lengths), EPERM)?;
    refused(machine[0].set_reg(RegId::SVE_VLS, &shortest()), EPERM)
}

fn vector_registers_give_way_to_wider_ones(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = finalized(ctx)?;
    let list = machine[0].reg_list()?;
    for id in [Z0, P0, FFR, RegId::SVE_VLS] {
        ensure!(list.contains(&id), "{id} is not listed");
    }
    ensure!(!list.contains(&V0), "{V0} is listed");
    refused(machine[0].reg(V0), EINVAL)?;
    refused(machine[0].set_reg(V0, &[0; 16]), EINVAL)?;
    let mut value = vec![0; 256];
    value[..16].fill(0x5a);
    machine[0].set_reg(Z0, &value)?;
    equal(&machine[0].reg(Z0)?, &value)
}

fn initialising_again_keeps_the_lengths(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine_with(1, SVE)?;
    machine[0].set_reg(RegId::SVE_VLS, &shortest())?;
    machine[0].finalize_sve()?;
    machine[0].init(SVE)?;
    equal(&machine[0].reg(RegId::SVE_VLS)?, &shortest())?;
    refused(machine[0].finalize_sve(), EPERM)
}
