//! Messages to the translation service.

use anyhow::ensure;
use kedge_guest_memory::{Bytes as _, GuestMemoryRegion as _};
use kedge_hv::{Msi, MsiFate};
use kedge_ids::usize_from;
use libc::{EBUSY, EINVAL, ENODEV};

use super::gic_moved::{
    DEVICE, FIRST_LPI, Kind, MEMORY, PENDING, command, commands, offset, ready, service,
};
use crate::case::cases;
use crate::ctx::{Ctx, RAM, any_gic, equal, ram, refused};

cases![
    Kvm a_message_needs_a_controller,
    Kvm a_message_needs_a_service,
    Its a_message_goes_to_the_service,
    Its a_service_that_is_off_takes_no_message,
    Its a_message_that_means_nothing_is_dropped,
    Commands a_message_is_an_interrupt_that_waits,
    Commands a_service_that_was_reset_knows_no_messages,
];

/// The service's first frame in machines of these cases.
const SERVICE: u64 = 0x808_0000;
/// `GITS_TRANSLATER`.
const TRANSLATER: u64 = SERVICE + 0x1_0040;

/// Event `data` of a device.
fn message(device: u64, data: u32) -> Msi {
    let device = u32::try_from(device).unwrap_or(u32::MAX);
    Msi { device, address: TRANSLATER, data }
}

fn a_message_needs_a_controller(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    refused(ctx.machine(1)?.vm.signal_msi(message(DEVICE, 0)), EINVAL)
}

fn a_message_needs_a_service(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    machine.vm.create_gic(&any_gic(machine.vm.as_ref()))?.init()?;
    refused(machine.vm.signal_msi(message(DEVICE, 0)), ENODEV)
}

fn a_message_goes_to_the_service(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let ready = ready(ctx, Kind::Its, &ram(RAM, MEMORY)?)?;
    ready.set(&service())?;
    for address in [0, RAM, SERVICE - 1, SERVICE + 0x2_0000, 1 << 40] {
        let message = Msi { address, ..message(DEVICE, 0) };
        refused(ready.machine.vm.signal_msi(message), EINVAL)?;
    }
    Ok(())
}

fn a_service_that_is_off_takes_no_message(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let ready = ready(ctx, Kind::Its, &ram(RAM, MEMORY)?)?;
    refused(ready.machine.vm.signal_msi(message(DEVICE, 0)), EBUSY)
}

fn a_message_that_means_nothing_is_dropped(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let ready = ready(ctx, Kind::Its, &ram(RAM, MEMORY)?)?;
    ready.set(&service())?;
    for message in [message(DEVICE, 0), message(u64::MAX, u32::MAX)] {
        equal(&ready.machine.vm.signal_msi(message)?, &MsiFate::Dropped)?;
    }
    Ok(())
}

fn a_message_is_an_interrupt_that_waits(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let memory = ram(RAM, MEMORY)?;
    let ready = ready(ctx, Kind::Its, &memory)?;
    ready.set(&service())?;
    // All but the one that makes the second event happen.
    let mut commands = commands();
    commands.pop();
    command(&ready, &memory, &commands)?;
    let signal = |device, event| ready.machine.vm.signal_msi(message(device, event));
    equal(&signal(DEVICE, 0)?, &MsiFate::Pending)?;
    // Again: the same one; another event, and another device's, are none.
    equal(&signal(DEVICE, 0)?, &MsiFate::Pending)?;
    equal(&signal(DEVICE, 2)?, &MsiFate::Dropped)?;
    equal(&signal(DEVICE + 1, 0)?, &MsiFate::Dropped)?;

    ready.gic.save_pending_tables()?;
    let at = usize_from(FIRST_LPI / 8);
    let tables = memory.as_volatile_slice()?;
    let [first, second] = PENDING.map(|table| tables.read_obj::<u8>(offset(table) + at));
    equal(&[first?, second?], &[1 << (FIRST_LPI % 8), 0])
}

fn a_service_that_was_reset_knows_no_messages(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let memory = ram(RAM, MEMORY)?;
    let ready = ready(ctx, Kind::Its, &memory)?;
    ready.set(&service())?;
    command(&ready, &memory, &commands())?;
    equal(&ready.machine.vm.signal_msi(message(DEVICE, 0))?, &MsiFate::Pending)?;
    ready.gic.reset_its()?;
    let fate = ready.machine.vm.signal_msi(message(DEVICE, 0));
    ensure!(fate.is_err() || fate? == MsiFate::Dropped, "it is an interrupt still");
    Ok(())
}
