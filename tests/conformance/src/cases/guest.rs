//! Guest code: loads and stores that leave the guest, aborts, kicks.

use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use kedge_hv_model::{Program, Step, Width};
use kedge_ids::RegId;

use crate::case::cases;
use crate::ctx::{
    Ctx, DEVICE, Machine, RAM, ROM, Seen, entry, equal, expect, run, run_once, vector,
};

cases![
    Kvm a_store_leaves_the_guest_with_its_bytes,
    Kvm a_load_gets_what_its_user_answers,
    Kvm a_load_is_complete_before_the_guest_goes_on,
    Kvm completing_an_access_runs_no_guest_code,
    Kvm guest_memory_is_loaded_and_stored_without_an_exit,
    Kvm read_only_memory_can_be_loaded,
    Kvm a_store_to_read_only_memory_leaves_the_guest,
    Kvm a_pair_of_registers_cannot_be_decoded,
    Kvm an_undecoded_access_can_be_answered_with_an_abort,
    Kvm a_store_to_read_only_memory_can_be_answered_with_an_abort,
    Kvm a_load_can_be_answered_with_an_abort,
    Kvm a_kick_before_a_run_is_not_lost,
    Kvm an_access_is_complete_when_the_run_after_it_is_interrupted,
    Kvm a_kick_reaches_a_waiting_guest,
    Kvm a_kick_reaches_a_busy_guest,
    Kvm a_kick_is_over_once_it_was_noticed,
    Kvm a_stopped_vcpu_waits_for_a_kick,
];

const VALUE: u64 = 0x8877_6655_4433_2211;
const ESR_EL1: RegId = RegId::system(3, 0, 5, 2, 0);
const ELR_EL1: RegId = RegId::core(8 * 35);
/// Where the vector says that it was entered.
const CAUGHT: u64 = DEVICE + 0x100;

fn a_store_leaves_the_guest_with_its_bytes(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let stores = Width::ALL.map(|width| Step::store(DEVICE + 8, width, VALUE));
    let mut machine = ctx.guest(&[Program::new(stores.into_iter().flatten())])?;
    for width in Width::ALL {
        let bytes = VALUE.to_le_bytes()[..width.bytes()].to_vec();
        expect(&mut machine[0], &Seen::Store(DEVICE + 8, bytes))?;
    }
    Ok(())
}

/// Loads, and stores what was loaded.
fn echo(width: Width) -> [Step; 3] {
    [
        Step::Set { reg: 5, value: u64::MAX },
        Step::Load { reg: 5, address: DEVICE, width },
        Step::Store { reg: 5, address: DEVICE + 8, width: Width::Double },
    ]
}

fn a_load_gets_what_its_user_answers(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    for width in Width::ALL {
        let mut machine = ctx.guest(&[Program::new(echo(width))])?;
        equal(&run(&mut machine[0], VALUE)?, &Seen::Load(DEVICE, width.bytes()))?;
        let mut extended = [0; 8];
        extended[..width.bytes()].copy_from_slice(&VALUE.to_le_bytes()[..width.bytes()]);
        expect(&mut machine[0], &Seen::Store(DEVICE + 8, extended.to_vec()))?;
    }
    Ok(())
}

fn a_load_is_complete_before_the_guest_goes_on(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.guest(&[Program::new(echo(Width::Double))])?;
    run(&mut machine[0], VALUE)?;
    equal(&machine[0].reg64(RegId::x(5))?, &u64::MAX)?;
    let pc = machine[0].reg64(RegId::PC)?;
    machine[0].complete_access()?;
    equal(&machine[0].reg64(RegId::x(5))?, &VALUE)?;
    equal(&machine[0].reg64(RegId::PC)?, &(pc + 4))
}

fn completing_an_access_runs_no_guest_code(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.guest(&[Program::new(Step::store(DEVICE, Width::Byte, 1))])?;
    machine[0].complete_access()?;
    equal(&machine[0].reg64(RegId::PC)?, &entry(0))?;
    expect(&mut machine[0], &Seen::Store(DEVICE, vec![1]))
}

fn guest_memory_is_loaded_and_stored_without_an_exit(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const DATA: u64 = RAM + 0x4000;
    let steps = [
        Step::Set { reg: 4, value: VALUE },
        Step::Store { reg: 4, address: DATA, width: Width::Word },
        Step::Load { reg: 5, address: DATA, width: Width::Double },
        Step::Store { reg: 5, address: DEVICE, width: Width::Double },
    ];
    let mut machine = ctx.guest(&[Program::new(steps)])?;
    let low = VALUE & 0xffff_ffff;
    expect(&mut machine[0], &Seen::Store(DEVICE, low.to_le_bytes().to_vec()))
}

fn read_only_memory_can_be_loaded(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let load = Step::Load { reg: 5, address: ROM, width: Width::Word };
    let tell = Step::Store { reg: 5, address: DEVICE, width: Width::Word };
    let mut machine = ctx.guest(&[Program::new([load, tell])])?;
    expect(&mut machine[0], &Seen::Store(DEVICE, vec![0; 4]))
}

fn a_store_to_read_only_memory_leaves_the_guest(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.guest(&[Program::new(Step::store(ROM + 16, Width::Half, VALUE))])?;
    expect(&mut machine[0], &Seen::Store(ROM + 16, vec![0x11, 0x22]))
}

fn a_pair_of_registers_cannot_be_decoded(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.guest(&[Program::new([Step::LoadPair { address: DEVICE }])])?;
    expect(&mut machine[0], &Seen::Undecoded(DEVICE))?;
    let pc = machine[0].reg64(RegId::PC)?;
    expect(&mut machine[0], &Seen::Undecoded(DEVICE)).context("again")?;
    equal(&machine[0].reg64(RegId::PC)?, &pc)
}

/// A guest that says so when it takes an abort, and would say something else
/// when it does not.
fn catcher(ctx: &Ctx<'_>, main: impl IntoIterator<Item = Step>) -> anyhow::Result<Machine> {
    let missed = Step::store(DEVICE, Width::Byte, 0xff);
    let caught = Step::store(CAUGHT, Width::Byte, 1);
    let main = main.into_iter().chain(missed);
    ctx.guest(&[Program::new(main).with_vector(caught)])
}

/// The vCPU stands at an access; an abort takes its place.
fn takes_an_abort(machine: &mut Machine) -> anyhow::Result<()> {
    const DATA_ABORT: u64 = 0x25;
    const EXTERNAL: u64 = 0x10;
    let vcpu = &mut machine[0];
    let pc = vcpu.reg64(RegId::PC)?;
    vcpu.inject_external_abort()?;
    expect(vcpu, &Seen::Store(CAUGHT, vec![1]))?;
    equal(&vcpu.reg64(ELR_EL1)?, &pc)?;
    let syndrome = vcpu.reg64(ESR_EL1)?;
    // Linux 6.1 extends the sign of its 32 bits.
    equal(&(syndrome >> 26 & 0x3f), &DATA_ABORT)?;
    equal(&(syndrome & 0x3f), &EXTERNAL)?;
    let from_vector = vcpu.reg64(RegId::PC)?.wrapping_sub(vector(0));
    ensure!(from_vector < 0x80, "the store is {from_vector:#x} bytes behind the vector");
    Ok(())
}

fn an_undecoded_access_can_be_answered_with_an_abort(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = catcher(ctx, [Step::LoadPair { address: DEVICE }])?;
    expect(&mut machine[0], &Seen::Undecoded(DEVICE))?;
    takes_an_abort(&mut machine)
}

fn a_store_to_read_only_memory_can_be_answered_with_an_abort(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = catcher(ctx, Step::store(ROM, Width::Word, 7))?;
    expect(&mut machine[0], &Seen::Store(ROM, vec![7, 0, 0, 0]))?;
    takes_an_abort(&mut machine)
}

fn a_load_can_be_answered_with_an_abort(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = catcher(ctx, echo(Width::Word))?;
    expect(&mut machine[0], &Seen::Load(DEVICE, 4))?;
    takes_an_abort(&mut machine)?;
    equal(&machine[0].reg64(RegId::x(5))?, &u64::MAX)
}

fn a_kick_before_a_run_is_not_lost(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.guest(&[Program::new([Step::Jump(0)])])?;
    let kick = machine[0].kicker()?;
    kick.kick();
    expect(&mut machine[0], &Seen::Interrupted)
}

/// Kicks a vCPU that runs `program` from another thread, a while later.
fn is_kicked(ctx: &Ctx<'_>, program: &[Step]) -> anyhow::Result<()> {
    let mut machine = ctx.guest(&[Program::new(program.iter().cloned())])?;
    let kick = machine[0].kicker()?;
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            kick.kick();
        });
        equal(&run_once(&mut machine[0], 0)?, &Seen::Interrupted)
    })
}

/// Of a vCPU that was kicked, the registers are all there is, whatever it was at before.
fn an_access_is_complete_when_the_run_after_it_is_interrupted(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.guest(&[Program::new(echo(Width::Double))])?;
    let kick = machine[0].kicker()?;
    run(&mut machine[0], VALUE)?;
    let pc = machine[0].reg64(RegId::PC)?;
    kick.kick();
    expect(&mut machine[0], &Seen::Interrupted)?;
    equal(&machine[0].reg64(RegId::x(5))?, &VALUE)?;
    equal(&machine[0].reg64(RegId::PC)?, &(pc + 4))?;
    expect(&mut machine[0], &Seen::Store(DEVICE + 8, VALUE.to_le_bytes().to_vec()))
}

fn a_kick_reaches_a_waiting_guest(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    is_kicked(ctx, &[Step::Wait, Step::Jump(-1)])
}

fn a_kick_reaches_a_busy_guest(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    is_kicked(ctx, &[Step::Jump(0)])
}

fn a_kick_is_over_once_it_was_noticed(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.guest(&[Program::new(Step::store(DEVICE, Width::Byte, 1))])?;
    let kick = machine[0].kicker()?;
    kick.kick();
    kick.kick();
    equal(&run_once(&mut machine[0], 0)?, &Seen::Interrupted)?;
    equal(&run_once(&mut machine[0], 0)?, &Seen::Store(DEVICE, vec![1]))
}

fn a_stopped_vcpu_waits_for_a_kick(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.guest(&[Program::new(Step::store(DEVICE, Width::Byte, 1))])?;
    machine[0].set_mp_state(kedge_hv::MpState::Stopped)?;
    let kick = machine[0].kicker()?;
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            kick.kick();
        });
        equal(&run_once(&mut machine[0], 0)?, &Seen::Interrupted)
    })
}
