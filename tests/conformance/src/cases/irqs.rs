//! What a machine's user decides of its interrupts: the timers' numbers, and the
//! revision of the controller's behaviour.

use anyhow::ensure;
use kedge_guest_memory::GuestAddress;
use kedge_hv::{Gic, GicConfig, GicReg, GicVersion, Timer, VcpuFeatures};
use kedge_ids::{Ppi, VcpuId};
use libc::{EBUSY, EINVAL, ENXIO};

use crate::case::cases;
use crate::ctx::{Ctx, Machine, PLAIN, any_gic, equal, gic_v3, refused};

cases![
    Kvm timers_without_a_controller_have_no_interrupts,
    Kvm timers_can_be_given_other_interrupts,
    Kvm timers_can_swap_their_interrupts,
    Kvm two_timers_with_one_interrupt_do_not_run,
    Kvm timers_keep_their_interrupts_after_the_first_run,
    Pmu a_timer_and_the_pmu_with_one_interrupt_do_not_run,
    Kvm the_distributor_is_born_with_its_newest_revision,
    Kvm a_revision_the_distributor_lacks_is_refused,
    Kvm no_other_field_of_the_distributors_identity_changes,
    Kvm the_distributors_revision_can_change_after_a_run,
    GicV3 a_gicv3_has_no_registers_of_a_gicv2,
    GicV3 a_controller_without_a_translation_service_has_none_of_its_registers,
    GicV2 a_gicv2_has_no_registers_of_a_gicv3,
    GicV2 reaching_for_a_register_makes_a_gicv2_ready,
];

fn machine_with_gic(
    ctx: &Ctx<'_>,
    features: VcpuFeatures,
) -> anyhow::Result<(Machine, Box<dyn Gic>)> {
    let machine = ctx.machine_with(2, features)?;
    let gic = machine.vm.create_gic(&any_gic(machine.vm.as_ref()))?;
    gic.init()?;
    Ok((machine, gic))
}

fn ppi(intid: u32) -> anyhow::Result<Ppi> {
    Ok(Ppi::try_from(intid)?)
}

fn timers_without_a_controller_have_no_interrupts(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    refused(machine[0].set_timer_ppi(Timer::Virtual, ppi(20)?), EINVAL)
}

fn timers_can_be_given_other_interrupts(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (mut machine, _gic) = machine_with_gic(ctx, PLAIN)?;
    machine[0].set_timer_ppi(Timer::Virtual, ppi(16)?)?;
    machine[1].set_timer_ppi(Timer::Physical, ppi(31)?)?;
    machine[0].complete_access()?;
    Ok(machine[1].complete_access()?)
}

fn timers_can_swap_their_interrupts(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (mut machine, _gic) = machine_with_gic(ctx, PLAIN)?;
    machine[0].set_timer_ppi(Timer::Virtual, Ppi::PHYSICAL_TIMER)?;
    machine[0].set_timer_ppi(Timer::Physical, Ppi::VIRTUAL_TIMER)?;
    Ok(machine[0].complete_access()?)
}

fn two_timers_with_one_interrupt_do_not_run(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (mut machine, _gic) = machine_with_gic(ctx, PLAIN)?;
    machine[1].set_timer_ppi(Timer::Virtual, Ppi::PHYSICAL_TIMER)?;
    refused(machine[0].complete_access(), EINVAL)?;
    refused(machine[1].complete_access(), EINVAL)
}

fn timers_keep_their_interrupts_after_the_first_run(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (mut machine, _gic) = machine_with_gic(ctx, PLAIN)?;
    machine[0].complete_access()?;
    refused(machine[0].set_timer_ppi(Timer::Virtual, ppi(20)?), EBUSY)?;
    refused(machine[0].set_timer_ppi(Timer::Virtual, Ppi::VIRTUAL_TIMER), EBUSY)
}

fn a_timer_and_the_pmu_with_one_interrupt_do_not_run(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (mut machine, _gic) = machine_with_gic(ctx, PLAIN | VcpuFeatures::PMU_V3)?;
    machine[0].init_pmu(Ppi::PMU)?;
    machine[1].init_pmu(Ppi::PMU)?;
    machine[0].set_timer_ppi(Timer::Physical, Ppi::PMU)?;
    refused(machine[0].complete_access(), EINVAL)
}

fn the_distributor_is_born_with_its_newest_revision(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (_machine, gic) = machine_with_gic(ctx, PLAIN)?;
    let newest = gic.distributor_revision()?;
    ensure!((2..=3).contains(&newest), "revision {newest}");
    for revision in 2..=newest {
        gic.set_distributor_revision(revision)?;
        equal(&gic.distributor_revision()?, &revision)?;
    }
    Ok(())
}

fn a_revision_the_distributor_lacks_is_refused(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (_machine, gic) = machine_with_gic(ctx, PLAIN)?;
    let newest = gic.distributor_revision()?;
    for revision in [0, newest + 1, 15, 16] {
        refused(gic.set_distributor_revision(revision), EINVAL)?;
    }
    equal(&gic.distributor_revision()?, &newest)
}

/// `GICD_IIDR` of a controller.
fn identity(gic: &dyn Gic) -> GicReg {
    match gic.version() {
        GicVersion::V2 => GicReg::DistributorV2 { cpu: VcpuId(0), offset: 8 },
        GicVersion::V3 => GicReg::Distributor { offset: 8 },
    }
}

fn no_other_field_of_the_distributors_identity_changes(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (_machine, gic) = machine_with_gic(ctx, PLAIN)?;
    let iidr = identity(gic.as_ref());
    let value = gic.reg(iidr)?;
    equal(&(value & !0xf000), &0x4b00_043b)?;
    gic.set_reg(iidr, value)?;
    for bit in [0, 11, 16, 24, 31] {
        refused(gic.set_reg(iidr, value ^ 1 << bit), EINVAL)?;
    }
    Ok(())
}

fn the_distributors_revision_can_change_after_a_run(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (mut machine, gic) = machine_with_gic(ctx, PLAIN)?;
    machine[0].complete_access()?;
    gic.set_distributor_revision(2)?;
    equal(&gic.distributor_revision()?, &2)
}

fn a_gicv3_has_no_registers_of_a_gicv2(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let gic = machine.vm.create_gic(&gic_v3())?;
    gic.init()?;
    let reg = GicReg::DistributorV2 { cpu: VcpuId(0), offset: 8 };
    refused(gic.reg(reg), ENXIO)?;
    refused(gic.set_reg(reg, 0), ENXIO)
}

fn a_controller_without_a_translation_service_has_none_of_its_registers(
    ctx: &Ctx<'_>,
) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let gic = machine.vm.create_gic(&gic_v3())?;
    gic.init()?;
    refused(gic.reg(GicReg::Its { offset: 0 }), ENXIO)
}

fn a_gicv2_has_no_registers_of_a_gicv3(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let (_machine, gic) = machine_with_gic(ctx, PLAIN)?;
    refused(gic.reg(GicReg::Distributor { offset: 8 }), ENXIO)
}

fn reaching_for_a_register_makes_a_gicv2_ready(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let v2 = GicConfig::V2 {
        distributor: GuestAddress(0x800_0000),
        cpu_interface: GuestAddress(0x801_0000),
        spis: 64,
    };
    let gic = machine.vm.create_gic(&v2)?;
    gic.distributor_revision()?;
    refused(machine.vm.create_vcpu(VcpuId(1)), EBUSY)
}
