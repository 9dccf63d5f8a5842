//! Facts about the firmware registers.

use kedge_hv_model::id;
use kedge_ids::RegId;

use super::{Group, calls, fact, of_host, of_release};
use crate::ctx::Ctx;

/// The groups of this file.
pub(super) const GROUPS: &[Group] = &[
    of_release("firmware registers", firmware_registers),
    of_release("frozen firmware", frozen_firmware),
    of_release("ids that are no registers", no_registers),
    of_host("workaround levels", workaround_levels),
];

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
    let mut machine = ctx.guest(&[calls::asker(&asked)])?;
    facts.extend(calls::answers(&mut machine, &asked)?);
    Ok(facts)
}
