//! Machines and their memory slots.

use kedge_hv::Access;
use libc::{EEXIST, EFAULT, EINVAL};

use crate::case::cases;
use crate::ctx::{Ctx, IPA_BITS, RAM, ram, refused};

cases![
    Kvm a_machine_has_as_many_address_bits_as_the_host_at_most,
    Kvm a_machine_has_32_address_bits_at_least,
    Kvm memory_starts_at_a_page,
    Kvm memory_ends_at_a_page,
    Kvm memory_does_not_overlap,
    Kvm memory_may_touch,
    Kvm a_slot_is_given_once,
    Kvm memory_ends_within_the_machines_address_bits,
    Kvm slots_are_numbered_up_to_the_limit,
];

/// A whole number of pages on every host.
const SIZE: u64 = 0x1_0000;

fn a_machine_has_as_many_address_bits_as_the_host_at_most(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let limit = ctx.limits().ipa_bits;
    ctx.vm_of(limit)?;
    refused(ctx.vm_of(limit + 1), EINVAL)
}

fn a_machine_has_32_address_bits_at_least(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    ctx.vm_of(32)?;
    refused(ctx.vm_of(31), EINVAL)?;
    refused(ctx.vm_of(0), EINVAL)
}

fn memory_starts_at_a_page(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    refused(vm.map_ram(0, ram(RAM + 0x100, SIZE)?, Access::ReadWrite), EINVAL)
}

fn memory_ends_at_a_page(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    refused(vm.map_ram(0, ram(RAM, SIZE + 0x100)?, Access::ReadWrite), EINVAL)
}

fn memory_does_not_overlap(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    vm.map_ram(0, ram(RAM, 2 * SIZE)?, Access::ReadWrite)?;
    refused(vm.map_ram(1, ram(RAM + SIZE, SIZE)?, Access::ReadWrite), EEXIST)?;
    refused(vm.map_ram(1, ram(RAM - SIZE, 2 * SIZE)?, Access::ReadOnly), EEXIST)
}

fn memory_may_touch(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    vm.map_ram(0, ram(RAM, SIZE)?, Access::ReadWrite)?;
    vm.map_ram(1, ram(RAM + SIZE, SIZE)?, Access::ReadOnly)?;
    Ok(vm.map_ram(2, ram(RAM - SIZE, SIZE)?, Access::ReadWrite)?)
}

fn a_slot_is_given_once(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    vm.map_ram(0, ram(RAM, SIZE)?, Access::ReadWrite)?;
    refused(vm.map_ram(0, ram(RAM + 4 * SIZE, SIZE)?, Access::ReadWrite), EEXIST)
}

fn memory_ends_within_the_machines_address_bits(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const END: u64 = 1 << IPA_BITS;
    let vm = ctx.vm()?;
    refused(vm.map_ram(0, ram(END, SIZE)?, Access::ReadWrite), EFAULT)?;
    refused(vm.map_ram(0, ram(END - SIZE, 2 * SIZE)?, Access::ReadWrite), EFAULT)?;
    Ok(vm.map_ram(0, ram(END - SIZE, SIZE)?, Access::ReadWrite)?)
}

fn slots_are_numbered_up_to_the_limit(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let slots = ctx.limits().slots;
    let vm = ctx.vm()?;
    refused(vm.map_ram(slots, ram(RAM, SIZE)?, Access::ReadWrite), EINVAL)?;
    Ok(vm.map_ram(slots - 1, ram(RAM, SIZE)?, Access::ReadWrite)?)
}
