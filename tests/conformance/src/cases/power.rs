//! Power states, and what PSCI tells the machine.

use anyhow::ensure;
use kedge_hv::{MpState, SystemEvent};
use kedge_hv_model::{Program, Step, Width, psci};
use kedge_ids::{RegId, VcpuId};
use libc::EINVAL;

use crate::case::cases;
use crate::ctx::{Ctx, DEVICE, Machine, Seen, entry, equal, errno, expect, run};

cases![
    Kvm vcpus_can_be_stopped_and_started,
    Kvm suspending_a_vcpu_and_the_system_came_together,
    Kvm power_states_belong_to_their_vcpu,
    Kvm system_off_stops_the_machine,
    Kvm system_reset_stops_the_machine,
    Kvm a_machine_that_is_off_comes_back_by_initialisation,
    Psci1_1 system_reset2_came_with_psci_1_1,
    Psci1_1 system_reset2_checks_its_type,
    Psci1_3 system_off2_came_with_psci_1_3,
    Psci1_3 system_off2_checks_its_arguments,
    Suspend system_suspend_is_an_event_where_enabled,
    Kvm system_suspend_is_not_supported_unless_enabled,
    Suspend system_suspend_is_not_in_psci_0_2,
    Kvm the_psci_version_is_what_was_chosen,
    Kvm functions_of_later_psci_versions_are_not_supported,
    Kvm cpu_on_starts_a_stopped_vcpu,
    Kvm cpu_on_of_a_running_vcpu_is_already_on,
    Kvm cpu_on_of_nobody_is_an_invalid_parameter,
    Kvm cpu_off_stops_the_caller_only,
];

const NOT_SUPPORTED: u64 = u64::MAX;
const INVALID_PARAMETERS: u64 = NOT_SUPPORTED - 1;
const ALREADY_ON: u64 = NOT_SUPPORTED - 3;
const INTERNAL_FAILURE: u64 = NOT_SUPPORTED - 5;
const V0_2: u64 = 2;
const V1_0: u64 = 0x1_0000;
const V1_1: u64 = 0x1_0001;
const V1_2: u64 = 0x1_0002;

/// Calls the firmware and stores its answer.
fn ask(function: u32, arguments: [u64; 3]) -> impl Iterator<Item = Step> {
    let tell = Step::Store { reg: 0, address: DEVICE, width: Width::Double };
    Step::call(function, arguments).into_iter().chain([tell])
}

/// A guest of one vCPU that asks one thing.
fn asker(ctx: &Ctx<'_>, function: u32, arguments: [u64; 3]) -> anyhow::Result<Machine> {
    ctx.guest(&[Program::new(ask(function, arguments))])
}

fn answers(machine: &mut Machine, answer: u64) -> anyhow::Result<()> {
    expect(&mut machine[0], &Seen::Store(DEVICE, answer.to_le_bytes().to_vec()))
}

fn vcpus_can_be_stopped_and_started(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    equal(&machine[0].mp_state()?, &MpState::Runnable)?;
    for state in [MpState::Stopped, MpState::Stopped, MpState::Runnable] {
        machine[0].set_mp_state(state)?;
        equal(&machine[0].mp_state()?, &state)?;
    }
    Ok(())
}

fn suspending_a_vcpu_and_the_system_came_together(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let found = (
        errno(&machine[0].set_mp_state(MpState::Suspended)),
        errno(&machine.vm.enable_system_suspend()),
    );
    ensure!([(0, 0), (EINVAL, EINVAL)].contains(&found), "errnos {found:?}");
    let expected = if found.0 == 0 { MpState::Suspended } else { MpState::Runnable };
    equal(&machine[0].mp_state()?, &expected)
}

fn power_states_belong_to_their_vcpu(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(2)?;
    machine[0].set_mp_state(MpState::Stopped)?;
    equal(&machine[1].mp_state()?, &MpState::Runnable)
}

/// The event comes, all vCPUs are off, and the caller would see a failure.
fn stops_the_machine(
    ctx: &Ctx<'_>,
    function: u32,
    arguments: [u64; 3],
    event: SystemEvent,
) -> anyhow::Result<()> {
    let program = Program::new(ask(function, arguments));
    let mut machine = ctx.guest(&[program, Program::default()])?;
    expect(&mut machine[0], &Seen::System(event))?;
    equal(&machine[0].mp_state()?, &MpState::Stopped)?;
    equal(&machine[1].mp_state()?, &MpState::Stopped)?;
    equal(&machine[0].reg64(RegId::x(0))?, &INTERNAL_FAILURE)
}

fn system_off_stops_the_machine(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    stops_the_machine(ctx, psci::SYSTEM_OFF, [0; 3], SystemEvent::Off)
}

fn system_reset_stops_the_machine(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    stops_the_machine(ctx, psci::SYSTEM_RESET, [0; 3], SystemEvent::Reset)
}

fn a_machine_that_is_off_comes_back_by_initialisation(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = asker(ctx, psci::SYSTEM_RESET, [0; 3])?;
    for _ in 0..2 {
        expect(&mut machine[0], &Seen::System(SystemEvent::Reset))?;
        machine[0].init(crate::ctx::PLAIN)?;
        machine[0].set_reg64(RegId::PC, entry(0))?;
    }
    Ok(())
}

fn system_reset2_came_with_psci_1_1(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const VENDOR: u64 = 0x8000_0000;
    stops_the_machine(ctx, psci::SYSTEM_RESET2, [0, 7, 0], SystemEvent::Reset2)?;
    stops_the_machine(ctx, psci::SYSTEM_RESET2, [VENDOR, 0, 0], SystemEvent::Reset2)?;
    let mut machine = asker(ctx, psci::SYSTEM_RESET2, [0, 7, 0])?;
    expect(&mut machine[0], &Seen::System(SystemEvent::Reset2))?;
    equal(&machine[0].reg64(RegId::x(2))?, &7)?;
    let mut machine = asker(ctx, psci::SYSTEM_RESET2, [0; 3])?;
    machine[0].set_reg64(RegId::PSCI_VERSION, V1_0)?;
    answers(&mut machine, NOT_SUPPORTED)
}

fn system_reset2_checks_its_type(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = asker(ctx, psci::SYSTEM_RESET2, [1, 0, 0])?;
    machine[0].set_reg64(RegId::PSCI_VERSION, V1_1)?;
    answers(&mut machine, INVALID_PARAMETERS)
}

fn system_off2_came_with_psci_1_3(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    stops_the_machine(ctx, psci::SYSTEM_OFF2, [0; 3], SystemEvent::Off2)?;
    stops_the_machine(ctx, psci::SYSTEM_OFF2, [1, 0, 0], SystemEvent::Off2)?;
    let mut machine = asker(ctx, psci::SYSTEM_OFF2, [0; 3])?;
    machine[0].set_reg64(RegId::PSCI_VERSION, V1_2)?;
    answers(&mut machine, NOT_SUPPORTED)
}

fn system_off2_checks_its_arguments(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    for arguments in [[2, 0, 0], [1, 1, 0]] {
        answers(&mut asker(ctx, psci::SYSTEM_OFF2, arguments)?, INVALID_PARAMETERS)?;
    }
    Ok(())
}

fn system_suspend_is_an_event_where_enabled(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const CONTEXT: u64 = 0xc0;
    let mut machine = asker(ctx, psci::SYSTEM_SUSPEND, [entry(0), CONTEXT, 0])?;
    machine.vm.enable_system_suspend()?;
    expect(&mut machine[0], &Seen::System(SystemEvent::Suspend))?;
    equal(&machine[0].mp_state()?, &MpState::Runnable)?;
    equal(&machine[0].reg64(RegId::x(1))?, &entry(0))?;
    equal(&machine[0].reg64(RegId::x(2))?, &CONTEXT)
}

fn system_suspend_is_not_supported_unless_enabled(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    answers(&mut asker(ctx, psci::SYSTEM_SUSPEND, [entry(0), 0, 0])?, NOT_SUPPORTED)
}

fn system_suspend_is_not_in_psci_0_2(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = asker(ctx, psci::SYSTEM_SUSPEND, [entry(0), 0, 0])?;
    machine.vm.enable_system_suspend()?;
    machine[0].set_reg64(RegId::PSCI_VERSION, V0_2)?;
    answers(&mut machine, NOT_SUPPORTED)
}

fn the_psci_version_is_what_was_chosen(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let newest = ctx.machine(1)?[0].reg64(RegId::PSCI_VERSION)?;
    for version in [V0_2, V1_0, newest] {
        let mut machine = asker(ctx, psci::VERSION, [0; 3])?;
        machine[0].set_reg64(RegId::PSCI_VERSION, version)?;
        answers(&mut machine, version)?;
    }
    Ok(())
}

fn functions_of_later_psci_versions_are_not_supported(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = asker(ctx, psci::FEATURES, [psci::VERSION.into(), 0, 0])?;
    machine[0].set_reg64(RegId::PSCI_VERSION, V0_2)?;
    answers(&mut machine, NOT_SUPPORTED)?;
    let mut machine = asker(ctx, psci::FEATURES, [psci::VERSION.into(), 0, 0])?;
    machine[0].set_reg64(RegId::PSCI_VERSION, V1_0)?;
    answers(&mut machine, 0)
}

fn cpu_on_starts_a_stopped_vcpu(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const CONTEXT: u64 = 0xc0de;
    let first = Program::new(ask(psci::CPU_ON, [1, entry(1), CONTEXT]));
    let tell = Step::Store { reg: 0, address: DEVICE, width: Width::Double };
    let mut machine = ctx.guest(&[first, Program::new([tell])])?;
    machine[1].set_mp_state(MpState::Stopped)?;
    answers(&mut machine, 0)?;
    equal(&machine[1].mp_state()?, &MpState::Runnable)?;
    let seen = run(&mut machine[1], 0)?;
    equal(&seen, &Seen::Store(DEVICE, CONTEXT.to_le_bytes().to_vec()))?;
    equal(&machine[1].reg64(RegId::PC)?.wrapping_sub(entry(1)).le(&0x40), &true)
}

fn cpu_on_of_a_running_vcpu_is_already_on(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let first = Program::new(ask(psci::CPU_ON, [1, entry(1), 0]));
    let mut machine = ctx.guest(&[first, Program::default()])?;
    answers(&mut machine, ALREADY_ON)
}

fn cpu_on_of_nobody_is_an_invalid_parameter(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    answers(&mut asker(ctx, psci::CPU_ON, [1, entry(0), 0])?, INVALID_PARAMETERS)
}

fn cpu_off_stops_the_caller_only(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let off = Program::new(Step::call(psci::CPU_OFF, [0; 3]));
    let affinity = kedge_ids::Mpidr::of(VcpuId(1)).affinity();
    let look = Program::new(ask(psci::AFFINITY_INFO, [affinity, 0, 0]));
    let mut machine = ctx.guest(&[look, off])?;
    let kick = machine[1].kicker()?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(200));
            kick.kick();
        });
        expect(&mut machine[1], &Seen::Interrupted)
    })?;
    equal(&machine[1].mp_state()?, &MpState::Stopped)?;
    equal(&machine[0].mp_state()?, &MpState::Runnable)?;
    answers(&mut machine, 1)
}
