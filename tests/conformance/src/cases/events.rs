//! Events wired to interrupts and doorbells.

use kedge_guest_memory::GuestAddress;
use kedge_hv::Vm;
use kedge_hv_model::{Program, Step, Width};
use kedge_ids::{Ring, Spi};
use libc::{EBUSY, EEXIST, EINVAL, ENOENT, ENXIO};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::case::cases;
use crate::ctx::{Ctx, DEVICE, Machine, ROM, Seen, equal, expect, gic_v3, refused};

cases![
    GicV3 an_event_raises_one_interrupt,
    GicV3 two_events_raise_two_interrupts,
    GicV3 an_interrupt_the_controller_lacks_is_refused,
    GicV3 an_edge_needs_a_controller_that_is_ready_and_has_the_input,
    Kvm there_is_one_doorbell_for_an_address_and_value,
    Kvm doorbells_differ_by_address_or_by_value,
    Kvm a_doorbell_that_is_not_there_cannot_be_taken_off,
    Kvm a_doorbell_rings_instead_of_an_exit,
    Kvm a_doorbell_rings_for_its_value_and_width_only,
    Kvm a_doorbell_for_16_bits_rings_for_those_only,
    Kvm a_doorbell_that_was_taken_off_is_silent,
    Kvm a_doorbell_rings_in_memory_that_cannot_be_stored_to,
];

const BELL: GuestAddress = GuestAddress(DEVICE + 0x50);

fn event() -> std::io::Result<EventFd> {
    EventFd::new(EFD_NONBLOCK)
}

fn machine_with_gic(ctx: &Ctx<'_>) -> anyhow::Result<Machine> {
    let machine = ctx.machine(1)?;
    machine.vm.create_gic(&gic_v3())?.init()?;
    Ok(machine)
}

fn an_event_raises_one_interrupt(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = machine_with_gic(ctx)?;
    let trigger = event()?;
    machine.vm.connect_irq(Spi::try_from(40)?, &trigger)?;
    refused(machine.vm.connect_irq(Spi::try_from(41)?, &trigger), EBUSY)?;
    refused(machine.vm.connect_irq(Spi::try_from(41)?, &trigger.try_clone()?), EBUSY)
}

fn two_events_raise_two_interrupts(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = machine_with_gic(ctx)?;
    machine.vm.connect_irq(Spi::try_from(40)?, &event()?)?;
    Ok(machine.vm.connect_irq(Spi::try_from(41)?, &event()?)?)
}

fn an_interrupt_the_controller_lacks_is_refused(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = machine_with_gic(ctx)?;
    machine.vm.connect_irq(Spi::from_offset(63)?, &event()?)?;
    refused(machine.vm.connect_irq(Spi::from_offset(64)?, &event()?), EINVAL)
}

fn an_edge_needs_a_controller_that_is_ready_and_has_the_input(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let last = Spi::from_offset(63)?;
    refused(machine.vm.pulse_irq(last), ENXIO)?;
    let gic = machine.vm.create_gic(&gic_v3())?;
    refused(machine.vm.pulse_irq(last), EBUSY)?;
    gic.init()?;
    machine.vm.pulse_irq(last)?;
    refused(machine.vm.pulse_irq(Spi::from_offset(64)?), EINVAL)
}

fn there_is_one_doorbell_for_an_address_and_value(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    machine.vm.connect_doorbell(BELL, Ring::Word(0), &event()?)?;
    refused(machine.vm.connect_doorbell(BELL, Ring::Word(0), &event()?), EEXIST)
}

fn doorbells_differ_by_address_or_by_value(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let event = event()?;
    machine.vm.connect_doorbell(BELL, Ring::Word(0), &event)?;
    machine.vm.connect_doorbell(BELL, Ring::Word(1), &event)?;
    Ok(machine.vm.connect_doorbell(GuestAddress(BELL.0 + 0x1000), Ring::Word(0), &event)?)
}

fn a_doorbell_that_is_not_there_cannot_be_taken_off(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let event = event()?;
    refused(machine.vm.disconnect_doorbell(BELL, Ring::Word(0), &event), ENOENT)?;
    machine.vm.connect_doorbell(BELL, Ring::Word(0), &event)?;
    refused(machine.vm.disconnect_doorbell(BELL, Ring::Word(1), &event), ENOENT)?;
    machine.vm.disconnect_doorbell(BELL, Ring::Word(0), &event)?;
    refused(machine.vm.disconnect_doorbell(BELL, Ring::Word(0), &event), ENOENT)
}

/// A guest that stores to the doorbell, and then where nobody listens.
fn ringer(
    ctx: &Ctx<'_>,
    width: Width,
    value: u64,
    connect: impl FnOnce(&dyn Vm) -> anyhow::Result<()>,
) -> anyhow::Result<Machine> {
    let ring = Step::store(BELL.0, width, value);
    let after = Step::store(DEVICE, Width::Byte, 1);
    let vm = ctx.vm()?;
    connect(vm.as_ref())?;
    ctx.guest_on(vm, &[Program::new(ring.into_iter().chain(after))])
}

const AFTER: (u64, [u8; 1]) = (DEVICE, [1]);

fn after() -> Seen {
    Seen::Store(AFTER.0, AFTER.1.to_vec())
}

fn a_doorbell_rings_instead_of_an_exit(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let bell = event()?;
    let mut guest =
        ringer(ctx, Width::Word, 3, |vm| Ok(vm.connect_doorbell(BELL, Ring::Word(3), &bell)?))?;
    expect(&mut guest[0], &after())?;
    equal(&bell.read()?, &1)
}

fn a_doorbell_rings_for_its_value_and_width_only(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    for (width, value, seen) in [(Width::Word, 4, vec![4, 0, 0, 0]), (Width::Half, 3, vec![3, 0])] {
        let bell = event()?;
        let mut guest =
            ringer(ctx, width, value, |vm| Ok(vm.connect_doorbell(BELL, Ring::Word(3), &bell)?))?;
        expect(&mut guest[0], &Seen::Store(BELL.0, seen))?;
        expect(&mut guest[0], &after())?;
        equal(&bell.read().is_err(), &true)?;
    }
    Ok(())
}

fn a_doorbell_for_16_bits_rings_for_those_only(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let bell = event()?;
    let hung = |vm: &dyn Vm| Ok(vm.connect_doorbell(BELL, Ring::Half(3), &bell)?);
    let mut guest = ringer(ctx, Width::Word, 3, hung)?;
    expect(&mut guest[0], &Seen::Store(BELL.0, vec![3, 0, 0, 0]))?;
    equal(&bell.read().is_err(), &true)?;
    let mut guest = ringer(ctx, Width::Half, 3, hung)?;
    expect(&mut guest[0], &after())?;
    equal(&bell.read()?, &1)
}

fn a_doorbell_that_was_taken_off_is_silent(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let bell = event()?;
    let mut guest = ringer(ctx, Width::Word, 3, |vm| {
        vm.connect_doorbell(BELL, Ring::Word(3), &bell)?;
        Ok(vm.disconnect_doorbell(BELL, Ring::Word(3), &bell)?)
    })?;
    expect(&mut guest[0], &Seen::Store(BELL.0, vec![3, 0, 0, 0]))
}

fn a_doorbell_rings_in_memory_that_cannot_be_stored_to(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let bell = event()?;
    let others = Step::store(ROM, Width::Word, 4);
    let ring = Step::store(ROM, Width::Word, 3);
    let load = Step::Load { reg: 9, address: ROM, width: Width::Word };
    let print = Step::Store { reg: 9, address: DEVICE, width: Width::Word };
    let vm = ctx.vm()?;
    vm.connect_doorbell(GuestAddress(ROM), Ring::Word(3), &bell)?;
    let steps = others.into_iter().chain(ring).chain([load, print]);
    let mut guest = ctx.guest_on(vm, &[Program::new(steps)])?;
    expect(&mut guest[0], &Seen::Store(ROM, vec![4, 0, 0, 0]))?;
    expect(&mut guest[0], &Seen::Store(DEVICE, vec![0; 4]))?;
    equal(&bell.read()?, &1)
}
