//! The filter of firmware calls: what it takes, and what becomes of the calls.

use kedge_hv::{Conduit, SmcccAction, SmcccRange, Vm};
use kedge_hv_model::{Program, Step, Width, id, psci};
use kedge_ids::RegId;
use libc::{EBUSY, EEXIST, EINVAL};

use crate::case::cases;
use crate::ctx::{Ctx, DEVICE, Machine, Seen, entry, equal, expect, refused};

cases![
    Kvm a_call_that_nobody_knows_is_not_supported,
    NoFilter a_host_without_a_filter_says_so,
    Filter a_denied_call_is_not_supported,
    Filter a_forwarded_call_leaves_the_guest,
    Filter a_forwarded_call_can_come_by_smc,
    Filter a_forwarded_call_is_answered_in_its_registers,
    Filter a_handled_call_is_answered_as_without_a_filter,
    Filter a_handled_call_stays_behind_its_switch,
    Filter a_forwarded_call_needs_no_switch,
    Filter a_range_goes_from_its_first_function_to_its_last,
    Filter a_function_id_has_32_bits,
    Filter ranges_can_touch_but_not_overlap,
    Filter the_architectures_own_calls_cannot_be_filtered,
    Filter a_refused_range_leaves_no_trace,
    Filter a_range_has_a_function_and_an_end,
    Filter a_filter_comes_before_the_first_run,
    Filter a_late_range_is_refused_for_its_own_faults_first,
];

const NOT_SUPPORTED: u64 = u64::MAX;
/// A vendor's call of ours, which no kernel answers.
const OURS: u32 = 0xc600_ff00;
const TRNG_VERSION: u32 = 0x8400_0050;

const fn range(base: u32, count: u32, action: SmcccAction) -> SmcccRange {
    SmcccRange { base, count, action }
}

fn forward(base: u32, count: u32) -> SmcccRange {
    range(base, count, SmcccAction::Forward)
}

/// Asks, and tells what x0 says then.
fn asks(function: u64, call: Step) -> Vec<Step> {
    let tell = Step::Store { reg: 0, address: DEVICE, width: Width::Double };
    vec![Step::Set { reg: 0, value: function }, call, tell]
}

fn told(answer: u64) -> Seen {
    Seen::Store(DEVICE, answer.to_le_bytes().to_vec())
}

/// A guest that makes these calls, in a machine with these ranges.
fn caller(ctx: &Ctx<'_>, ranges: &[SmcccRange], functions: &[u32]) -> anyhow::Result<Machine> {
    let vm = ctx.vm()?;
    ranges.iter().try_for_each(|range| vm.filter_smccc(range))?;
    let steps = functions.iter().flat_map(|function| asks((*function).into(), Step::Call));
    ctx.guest_on(vm, &[Program::new(steps)])
}

fn forwarded(function: u32) -> Seen {
    Seen::Hypercall(function, Conduit::Hvc)
}

fn a_call_that_nobody_knows_is_not_supported(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut guest = caller(ctx, &[], &[OURS, 0x8200_0000, 0xbf00_ff01, 0x1234])?;
    (0..4).try_for_each(|_| expect(&mut guest[0], &told(NOT_SUPPORTED)))
}

fn a_host_without_a_filter_says_so(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    equal(&vm.supports_smccc_filter(), &false)?;
    refused(vm.filter_smccc(&forward(OURS, 1)), EINVAL)
}

fn a_denied_call_is_not_supported(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let deny = range(psci::VERSION, 1, SmcccAction::Deny);
    let mut guest = caller(ctx, &[deny], &[psci::VERSION])?;
    expect(&mut guest[0], &told(NOT_SUPPORTED))
}

fn a_forwarded_call_leaves_the_guest(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut guest = caller(ctx, &[forward(OURS, 1)], &[OURS])?;
    expect(&mut guest[0], &forwarded(OURS))?;
    equal(&guest[0].reg64(RegId::x(0))?, &OURS.into())
}

fn a_forwarded_call_can_come_by_smc(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    vm.filter_smccc(&forward(OURS, 1))?;
    let call = asks(OURS.into(), Step::SecureCall);
    let mut guest = ctx.guest_on(vm, &[Program::new(call)])?;
    expect(&mut guest[0], &Seen::Hypercall(OURS, Conduit::Smc))?;
    guest[0].set_reg64(RegId::x(0), 7)?;
    expect(&mut guest[0], &told(7))
}

fn a_forwarded_call_is_answered_in_its_registers(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    vm.filter_smccc(&forward(OURS, 1))?;
    let mut guest = ctx.guest_on(vm, &[Program::new([Step::Call, Step::Jump(-1)])])?;
    guest[0].set_reg64(RegId::x(0), OURS.into())?;
    expect(&mut guest[0], &forwarded(OURS))?;
    equal(&guest[0].reg64(RegId::PC)?, &(entry(0) + 4))?;
    guest[0].complete_access()?;
    // What nobody answers is asked again with what was there.
    equal(&guest[0].reg64(RegId::x(0))?, &OURS.into())?;
    expect(&mut guest[0], &forwarded(OURS))
}

fn a_handled_call_is_answered_as_without_a_filter(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let ranges = [range(0x8400_0000, 32, SmcccAction::Handle)];
    let mut guest = caller(ctx, &ranges, &[psci::VERSION, 0x8400_0007])?;
    let version = guest[0].reg64(RegId::PSCI_VERSION)?;
    expect(&mut guest[0], &told(version))?;
    expect(&mut guest[0], &told(NOT_SUPPORTED))
}

fn a_handled_call_stays_behind_its_switch(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let ranges = [range(TRNG_VERSION, 1, SmcccAction::Handle)];
    let mut guest = caller(ctx, &ranges, &[TRNG_VERSION])?;
    guest[0].set_reg64(id::STD_BMAP, 0)?;
    expect(&mut guest[0], &told(NOT_SUPPORTED))
}

fn a_forwarded_call_needs_no_switch(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut guest = caller(ctx, &[forward(TRNG_VERSION, 1)], &[TRNG_VERSION])?;
    guest[0].set_reg64(id::STD_BMAP, 0)?;
    expect(&mut guest[0], &forwarded(TRNG_VERSION))
}

fn a_range_goes_from_its_first_function_to_its_last(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let functions = [OURS - 1, OURS, OURS + 1, OURS + 2];
    let mut guest = caller(ctx, &[forward(OURS, 2)], &functions)?;
    expect(&mut guest[0], &told(NOT_SUPPORTED))?;
    for function in [OURS, OURS + 1] {
        expect(&mut guest[0], &forwarded(function))?;
        expect(&mut guest[0], &told(function.into()))?;
    }
    expect(&mut guest[0], &told(NOT_SUPPORTED))
}

fn a_function_id_has_32_bits(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    vm.filter_smccc(&forward(OURS, 1))?;
    let call = asks(7 << 32 | u64::from(OURS), Step::Call);
    let mut guest = ctx.guest_on(vm, &[Program::new(call)])?;
    expect(&mut guest[0], &forwarded(OURS))
}

fn filter(vm: &dyn Vm, base: u32, count: u32) -> Result<(), kedge_hv::HvError> {
    vm.filter_smccc(&forward(base, count))
}

fn ranges_can_touch_but_not_overlap(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    filter(vm.as_ref(), OURS, 4)?;
    for (base, count) in [(OURS, 4), (OURS - 1, 2), (OURS + 3, 1), (OURS - 8, 32)] {
        refused(filter(vm.as_ref(), base, count), EEXIST)?;
    }
    filter(vm.as_ref(), OURS + 4, 1)?;
    Ok(filter(vm.as_ref(), OURS - 1, 1)?)
}

fn the_architectures_own_calls_cannot_be_filtered(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    for base in [0x8000_0000, 0x8000_ffff, 0xc000_0000, 0xc000_ffff, 0x7fff_ffff] {
        refused(filter(vm.as_ref(), base, 2), EEXIST)?;
    }
    for base in [0x7fff_ffff, 0x8001_0000, 0xbfff_ffff, 0xc001_0000] {
        filter(vm.as_ref(), base, 1)?;
    }
    Ok(())
}

fn a_refused_range_leaves_no_trace(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    refused(filter(vm.as_ref(), 0x7fff_0000, 0x1_0001), EEXIST)?;
    Ok(filter(vm.as_ref(), 0x7fff_0000, 0x1_0000)?)
}

fn a_range_has_a_function_and_an_end(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    refused(filter(vm.as_ref(), OURS, 0), EINVAL)?;
    refused(filter(vm.as_ref(), OURS, u32::MAX), EINVAL)?;
    refused(filter(vm.as_ref(), u32::MAX, 2), EINVAL)?;
    Ok(filter(vm.as_ref(), u32::MAX, 1)?)
}

fn a_filter_comes_before_the_first_run(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    filter(machine.vm.as_ref(), OURS, 1)?;
    machine[0].complete_access()?;
    refused(filter(machine.vm.as_ref(), OURS + 1, 1), EBUSY)?;
    refused(filter(machine.vm.as_ref(), OURS, 1), EBUSY)
}

fn a_late_range_is_refused_for_its_own_faults_first(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    machine[0].complete_access()?;
    refused(filter(machine.vm.as_ref(), OURS, 0), EINVAL)
}
