//! Stolen time: where its record is, and what the guest is told of it.

use anyhow::Context;
use kedge_guest_memory::{Bytes, GuestAddress, GuestMemoryRegion};
use kedge_hv_model::{Program, Step, Width};
use kedge_ids::usize_from;
use libc::{EEXIST, EINVAL};

use crate::case::cases;
use crate::ctx::{Ctx, DEVICE, Machine, PLAIN, RAM, ROM, Seen, equal, expect, refused};

cases![
    PvTime a_record_of_stolen_time_is_read_back,
    PvTime a_record_of_stolen_time_is_aligned,
    PvTime a_record_of_stolen_time_is_in_writable_memory,
    PvTime a_record_of_stolen_time_never_moves,
    PvTime a_record_of_stolen_time_survives_initialisation,
    PvTime each_vcpu_has_a_record_of_its_own,
    PvTime the_guest_is_told_where_its_record_is,
    PvTime a_guest_without_a_record_is_told_so,
    PvTime asking_for_the_record_empties_it,
    PvTime a_record_that_nobody_asked_for_keeps_its_head,
];

const FEATURES: u32 = 0xc500_0020;
const RECORD_AT: u32 = 0xc500_0021;
const NOT_SUPPORTED: u64 = u64::MAX;
/// In a guest's memory, behind its code and its vectors.
const RECORD: GuestAddress = GuestAddress(RAM + 0xc000);

fn a_record_of_stolen_time_is_read_back(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.guest(&[Program::default()])?;
    equal(&machine[0].pv_time()?, &None)?;
    machine[0].set_pv_time(RECORD)?;
    equal(&machine[0].pv_time()?, &Some(RECORD))
}

fn a_record_of_stolen_time_is_aligned(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.guest(&[Program::default()])?;
    for offset in [1, 8, 32] {
        refused(machine[0].set_pv_time(GuestAddress(RECORD.0 + offset)), EINVAL)?;
    }
    Ok(machine[0].set_pv_time(GuestAddress(RECORD.0 + 64))?)
}

fn a_record_of_stolen_time_is_in_writable_memory(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.guest(&[Program::default()])?;
    refused(machine[0].set_pv_time(GuestAddress(DEVICE)), EINVAL)?;
    refused(machine[0].set_pv_time(GuestAddress(ROM)), EINVAL)?;
    equal(&machine[0].pv_time()?, &None)
}

fn a_record_of_stolen_time_never_moves(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.guest(&[Program::default()])?;
    machine[0].set_pv_time(RECORD)?;
    refused(machine[0].set_pv_time(RECORD), EEXIST)?;
    refused(machine[0].set_pv_time(GuestAddress(RECORD.0 + 64)), EEXIST)?;
    refused(machine[0].set_pv_time(GuestAddress(DEVICE)), EEXIST)?;
    refused(machine[0].set_pv_time(GuestAddress(RECORD.0 + 8)), EINVAL)
}

fn a_record_of_stolen_time_survives_initialisation(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.guest(&[Program::default()])?;
    machine[0].set_pv_time(RECORD)?;
    machine[0].init(PLAIN)?;
    equal(&machine[0].pv_time()?, &Some(RECORD))
}

fn each_vcpu_has_a_record_of_its_own(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.guest(&[Program::default(), Program::default()])?;
    machine[0].set_pv_time(RECORD)?;
    equal(&machine[1].pv_time()?, &None)?;
    Ok(machine[1].set_pv_time(RECORD)?)
}

/// A guest that asks for each function's presence, then for its record.
fn asker(ctx: &Ctx<'_>) -> anyhow::Result<Machine> {
    let tell = || [Step::Store { reg: 0, address: DEVICE, width: Width::Double }];
    let asked = [(FEATURES, FEATURES), (FEATURES, RECORD_AT), (FEATURES, 0), (RECORD_AT, 0)];
    let steps = asked.into_iter().flat_map(|(function, argument)| {
        Step::call(function, [argument.into(), 0, 0]).into_iter().chain(tell())
    });
    ctx.guest(&[Program::new(steps)])
}

fn answers(machine: &mut Machine, answers: [u64; 4]) -> anyhow::Result<()> {
    answers.into_iter().try_for_each(|answer| {
        expect(&mut machine[0], &Seen::Store(DEVICE, answer.to_le_bytes().to_vec()))
    })
}

fn the_guest_is_told_where_its_record_is(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = asker(ctx)?;
    machine[0].set_pv_time(RECORD)?;
    answers(&mut machine, [0, 0, NOT_SUPPORTED, RECORD.0])
}

fn a_guest_without_a_record_is_told_so(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    answers(&mut asker(ctx)?, [NOT_SUPPORTED; 4])
}

/// The record: revision and attributes in the first word, stolen time in the
/// second, then nothing (Arm DEN0057, 3.2.3).
fn record(machine: &Machine) -> anyhow::Result<[u64; 8]> {
    let ram = machine.ram.as_ref().context("a guest has memory")?.as_volatile_slice()?;
    Ok(ram.read_obj(usize_from(RECORD.0 - RAM))?)
}

const JUNK: [u64; 8] = [0x5a5a_5a5a_5a5a_5a5a; 8];

fn with_junk(machine: Machine) -> anyhow::Result<Machine> {
    machine[0].set_pv_time(RECORD)?;
    let ram = machine.ram.as_ref().context("a guest has memory")?.as_volatile_slice()?;
    ram.write_obj(JUNK, usize_from(RECORD.0 - RAM))?;
    Ok(machine)
}

fn asking_for_the_record_empties_it(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = with_junk(asker(ctx)?)?;
    answers(&mut machine, [0, 0, NOT_SUPPORTED, RECORD.0])?;
    let [head, _stolen, rest @ ..] = record(&machine)?;
    equal(&(head, rest), &(0, [0; 6]))
}

fn a_record_that_nobody_asked_for_keeps_its_head(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let store = Step::store(DEVICE, Width::Byte, 1);
    let mut machine = with_junk(ctx.guest(&[Program::new(store)])?)?;
    expect(&mut machine[0], &Seen::Store(DEVICE, vec![1]))?;
    let [head, _stolen, rest @ ..] = record(&machine)?;
    equal(&(head, rest), &(JUNK[0], [JUNK[0]; 6]))
}
