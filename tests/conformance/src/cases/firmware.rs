//! The firmware registers: PSCI version, workaround levels, service bitmaps.

use anyhow::{Context, ensure};
use kedge_hv::{Vcpu, VcpuFeatures};
use kedge_hv_model::id;
use kedge_ids::RegId;
use libc::{EBUSY, EINVAL};

use crate::case::cases;
use crate::ctx::{Ctx, Machine, PLAIN, equal, refused};

cases![
    Kvm a_machine_is_born_with_the_newest_psci_version,
    Kvm every_psci_version_from_0_2_can_be_chosen,
    Kvm versions_that_psci_does_not_have_are_refused,
    Kvm without_its_feature_psci_is_0_1,
    Kvm the_psci_version_is_the_whole_machines,
    Kvm the_last_write_of_the_psci_version_wins,
    Kvm the_psci_version_is_never_frozen,
    Kvm the_psci_version_survives_initialisation,
    Kvm workaround_levels_are_the_hosts,
    Kvm a_workaround_level_up_to_the_hosts_is_accepted_and_dropped,
    Kvm a_workaround_level_above_the_hosts_is_refused,
    Kvm reserved_bits_of_workaround_levels_are_refused,
    Kvm workaround_2_is_enabled_only_where_available,
    Kvm workaround_2_tells_two_levels_apart,
    Bitmaps bitmaps_are_born_full_or_empty,
    Bitmaps each_bit_of_a_bitmap_can_be_cleared_and_set,
    Bitmaps an_unknown_bit_of_a_bitmap_is_refused,
    Bitmaps bitmaps_are_the_whole_machines,
    Bitmaps writing_one_bitmap_leaves_the_others,
    Bitmaps bitmaps_survive_initialisation,
    Bitmaps bitmaps_freeze_at_the_first_run,
    Bitmaps a_frozen_bitmap_accepts_the_value_it_has,
    Bitmaps a_frozen_bitmap_still_refuses_unknown_bits_first,
    Bitmaps writing_before_the_first_run_does_not_freeze,
];

const V0_2: u64 = 0x2;
const V1_0: u64 = 0x1_0000;
const ENABLED: u64 = 1 << 4;
const LEVELS: [RegId; 3] = [id::WORKAROUND_1, id::WORKAROUND_2, id::WORKAROUND_3];

/// The bitmaps of this host, with all the bits that it knows, found by trial.
fn bitmaps(ctx: &Ctx<'_>) -> anyhow::Result<Vec<(RegId, u64)>> {
    let machine = ctx.machine(1)?;
    let ids = machine[0].reg_list()?.into_iter().filter(|id| id.coprocessor() == 0x16);
    let bits = (0..64).map(|bit| 1 << bit);
    let known = |id| bits.clone().filter(|bit| machine[0].set_reg64(id, *bit).is_ok()).sum();
    Ok(ids.map(|id| (id, known(id))).collect())
}

/// Lets a machine run, as far as it goes without guest code.
fn freeze(machine: &mut Machine) -> anyhow::Result<()> {
    Ok(machine[0].complete_access()?)
}

fn a_machine_is_born_with_the_newest_psci_version(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let newest = machine[0].reg64(RegId::PSCI_VERSION)?;
    ensure!(newest >= V1_0, "PSCI {newest:#x}");
    machine[0].set_reg64(RegId::PSCI_VERSION, newest)?;
    refused(machine[0].set_reg64(RegId::PSCI_VERSION, newest + 1), EINVAL)
}

fn every_psci_version_from_0_2_can_be_chosen(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let newest = machine[0].reg64(RegId::PSCI_VERSION)?;
    for version in (V1_0..=newest).chain([V0_2]) {
        machine[0].set_reg64(RegId::PSCI_VERSION, version)?;
        equal(&machine[0].reg64(RegId::PSCI_VERSION)?, &version)?;
    }
    Ok(())
}

fn versions_that_psci_does_not_have_are_refused(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    for version in [0, 1, 3, 0xffff, 0x2_0000, 1 << 32 | V1_0, u64::MAX] {
        refused(machine[0].set_reg64(RegId::PSCI_VERSION, version), EINVAL)
            .with_context(|| format!("{version:#x}"))?;
    }
    Ok(())
}

fn without_its_feature_psci_is_0_1(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine_with(1, VcpuFeatures::NONE)?;
    equal(&machine[0].reg64(RegId::PSCI_VERSION)?, &1)?;
    machine[0].set_reg64(RegId::PSCI_VERSION, 1)?;
    refused(machine[0].set_reg64(RegId::PSCI_VERSION, V0_2), EINVAL)?;
    refused(machine[0].set_reg64(RegId::PSCI_VERSION, V1_0), EINVAL)
}

fn the_psci_version_is_the_whole_machines(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(2)?;
    machine[0].set_reg64(RegId::PSCI_VERSION, V1_0)?;
    equal(&machine[1].reg64(RegId::PSCI_VERSION)?, &V1_0)
}

fn the_last_write_of_the_psci_version_wins(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(2)?;
    machine[0].set_reg64(RegId::PSCI_VERSION, V1_0)?;
    machine[1].set_reg64(RegId::PSCI_VERSION, V0_2)?;
    equal(&machine[0].reg64(RegId::PSCI_VERSION)?, &V0_2)
}

fn the_psci_version_is_never_frozen(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    machine[0].set_reg64(RegId::PSCI_VERSION, V1_0)?;
    freeze(&mut machine)?;
    machine[0].set_reg64(RegId::PSCI_VERSION, V0_2)?;
    equal(&machine[0].reg64(RegId::PSCI_VERSION)?, &V0_2)
}

fn the_psci_version_survives_initialisation(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    machine[0].set_reg64(RegId::PSCI_VERSION, V0_2)?;
    machine[0].init(PLAIN)?;
    equal(&machine[0].reg64(RegId::PSCI_VERSION)?, &V0_2)
}

fn workaround_levels_are_the_hosts(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(2)?;
    for (id, highest) in LEVELS.into_iter().zip([2, 3, 2]) {
        let level = machine[0].reg64(id)?;
        ensure!(level & !ENABLED <= highest, "{id} is {level:#x}");
        equal(&machine[1].reg64(id)?, &level)?;
        machine[0].set_reg64(id, level)?;
    }
    Ok(())
}

fn a_workaround_level_up_to_the_hosts_is_accepted_and_dropped(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    for id in [id::WORKAROUND_1, id::WORKAROUND_3] {
        let host = machine[0].reg64(id)?;
        for level in 0..=host {
            machine[0].set_reg64(id, level)?;
            equal(&machine[0].reg64(id)?, &host)?;
        }
    }
    Ok(())
}

fn a_workaround_level_above_the_hosts_is_refused(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    for id in [id::WORKAROUND_1, id::WORKAROUND_3] {
        let host = machine[0].reg64(id)?;
        refused(machine[0].set_reg64(id, host + 1), EINVAL)?;
    }
    Ok(())
}

fn reserved_bits_of_workaround_levels_are_refused(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    for id in LEVELS {
        refused(machine[0].set_reg64(id, 1 << 5), EINVAL)?;
        refused(machine[0].set_reg64(id, 1 << 63), EINVAL)?;
    }
    refused(machine[0].set_reg64(id::WORKAROUND_1, ENABLED), EINVAL)?;
    refused(machine[0].set_reg64(id::WORKAROUND_3, ENABLED), EINVAL)
}

fn workaround_2_is_enabled_only_where_available(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    for level in [0, 1, 3] {
        refused(machine[0].set_reg64(id::WORKAROUND_2, level | ENABLED), EINVAL)?;
    }
    Ok(())
}

fn workaround_2_tells_two_levels_apart(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const NOT_REQUIRED: u64 = 3;
    let machine = ctx.machine(1)?;
    let set = |level| machine[0].set_reg64(id::WORKAROUND_2, level);
    set(0)?;
    set(1)?;
    let unneeded = machine[0].reg64(id::WORKAROUND_2)? == NOT_REQUIRED;
    for level in [2, 2 | ENABLED, NOT_REQUIRED] {
        let result = set(level);
        if unneeded { result? } else { refused(result, EINVAL)? }
    }
    refused(set(4), EINVAL)
}

fn bitmaps_are_born_full_or_empty(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    for (id, known) in bitmaps(ctx)? {
        ensure!(known != 0, "{id} has no bit");
        let full = if id == id::VENDOR_HYP_BMAP_2 { 0 } else { known };
        equal(&machine[0].reg64(id)?, &full).with_context(|| id.to_string())?;
    }
    Ok(())
}

fn each_bit_of_a_bitmap_can_be_cleared_and_set(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    for (id, known) in bitmaps(ctx)? {
        for subset in (0..=known).filter(|subset| subset & !known == 0) {
            machine[0].set_reg64(id, subset)?;
            equal(&machine[0].reg64(id)?, &subset)?;
        }
    }
    Ok(())
}

fn an_unknown_bit_of_a_bitmap_is_refused(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    for (id, known) in bitmaps(ctx)? {
        let before = machine[0].reg64(id)?;
        refused(machine[0].set_reg64(id, known + 1), EINVAL)?;
        refused(machine[0].set_reg64(id, known | 1 << 63), EINVAL)?;
        equal(&machine[0].reg64(id)?, &before)?;
    }
    Ok(())
}

fn bitmaps_are_the_whole_machines(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(2)?;
    for (id, known) in bitmaps(ctx)? {
        machine[0].set_reg64(id, 0)?;
        equal(&machine[1].reg64(id)?, &0)?;
        machine[1].set_reg64(id, known)?;
        equal(&machine[0].reg64(id)?, &known)?;
    }
    Ok(())
}

fn writing_one_bitmap_leaves_the_others(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let before = machine[0].reg64(id::VENDOR_HYP_BMAP)?;
    machine[0].set_reg64(id::STD_BMAP, 0)?;
    equal(&machine[0].reg64(id::VENDOR_HYP_BMAP)?, &before)
}

fn bitmaps_survive_initialisation(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    machine[0].set_reg64(id::VENDOR_HYP_BMAP, 1)?;
    machine[0].init(PLAIN)?;
    equal(&machine[0].reg64(id::VENDOR_HYP_BMAP)?, &1)
}

/// A value that a bitmap does not have.
fn other(vcpu: &dyn Vcpu, id: RegId, known: u64) -> anyhow::Result<u64> {
    Ok(vcpu.reg64(id)? ^ known)
}

fn bitmaps_freeze_at_the_first_run(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(2)?;
    freeze(&mut machine)?;
    for (id, known) in bitmaps(ctx)? {
        let other = other(&machine[0], id, known)?;
        refused(machine[0].set_reg64(id, other), EBUSY)?;
        refused(machine[1].set_reg64(id, other), EBUSY)?;
    }
    Ok(())
}

fn a_frozen_bitmap_accepts_the_value_it_has(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(2)?;
    freeze(&mut machine)?;
    for (id, _) in bitmaps(ctx)? {
        let value = machine[0].reg64(id)?;
        machine[0].set_reg64(id, value)?;
        machine[1].set_reg64(id, value)?;
    }
    Ok(())
}

fn a_frozen_bitmap_still_refuses_unknown_bits_first(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    freeze(&mut machine)?;
    for (id, known) in bitmaps(ctx)? {
        refused(machine[0].set_reg64(id, known + 1), EINVAL)?;
    }
    Ok(())
}

fn writing_before_the_first_run_does_not_freeze(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(2)?;
    machine[0].set_reg64(id::STD_BMAP, 0)?;
    machine[1].set_reg64(id::STD_BMAP, 1)?;
    machine[0].set_reg64(id::STD_BMAP, 0)?;
    equal(&machine[1].reg64(id::STD_BMAP)?, &0)
}
