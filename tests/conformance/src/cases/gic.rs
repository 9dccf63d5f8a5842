//! The interrupt controller and the performance monitors: creation, placement,
//! initialisation.

use kedge_guest_memory::GuestAddress;
use kedge_hv::{GicConfig, VcpuFeatures};
use kedge_ids::{Ppi, VcpuId};
use libc::{E2BIG, EBUSY, EEXIST, EINVAL, ENODEV};

use crate::case::cases;
use crate::ctx::{Ctx, IPA_BITS, PLAIN, any_gic, gic_v3, refused};

cases![
    NoGicV2 a_version_the_host_lacks_is_no_device,
    GicV3 there_is_one_controller,
    GicV3 frames_are_aligned,
    GicV3 frames_lie_within_the_machines_address_bits,
    GicV3 interrupts_come_in_thirty_twos_below_1024,
    GicV3 vcpus_come_before_initialisation,
    GicV3 a_vcpu_can_come_between_creation_and_initialisation,
    GicV3 a_controller_that_is_not_ready_keeps_vcpus_from_running,
    GicV3 a_controller_comes_before_the_first_run,
    GicV3 initialising_it_twice_changes_nothing,
    GicV2 a_gicv2_serves_eight_vcpus,
    GicV2 a_gicv2_has_frames_of_4_kib,
    Kvm a_vcpu_without_a_pmu_has_none_to_initialise,
    GicV3 a_pmu_comes_after_the_controllers_initialisation,
    Pmu a_pmu_is_initialised_once,
];

const DISTRIBUTOR: u64 = 0x800_0000;
const REDISTRIBUTORS: u64 = 0x80a_0000;
const ITS: u64 = 0x808_0000;

fn v3(distributor: u64, redistributors: u64, its: Option<u64>) -> GicConfig {
    GicConfig::V3 {
        distributor: GuestAddress(distributor),
        redistributors: GuestAddress(redistributors),
        its: its.map(GuestAddress),
        spis: 64,
    }
}

fn v2(distributor: u64, cpu_interface: u64) -> GicConfig {
    GicConfig::V2 {
        distributor: GuestAddress(distributor),
        cpu_interface: GuestAddress(cpu_interface),
        spis: 64,
    }
}

fn a_version_the_host_lacks_is_no_device(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    refused(machine.vm.create_gic(&v2(DISTRIBUTOR, REDISTRIBUTORS)), ENODEV)
}

fn there_is_one_controller(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let _gic = machine.vm.create_gic(&gic_v3())?;
    refused(machine.vm.create_gic(&gic_v3()), EEXIST)
}

/// Each on a machine of its own: a controller that was refused a place stays.
fn all_refused(ctx: &Ctx<'_>, configs: &[GicConfig], errno: i32) -> anyhow::Result<()> {
    configs.iter().try_for_each(|config| refused(ctx.machine(1)?.vm.create_gic(config), errno))
}

fn frames_are_aligned(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const HALF: u64 = 0x8000;
    let configs = [
        v3(DISTRIBUTOR + HALF, REDISTRIBUTORS, None),
        v3(DISTRIBUTOR, REDISTRIBUTORS + HALF, None),
        v3(DISTRIBUTOR, REDISTRIBUTORS, Some(ITS + HALF)),
    ];
    all_refused(ctx, &configs, EINVAL)
}

fn frames_lie_within_the_machines_address_bits(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const END: u64 = 1 << IPA_BITS;
    let configs = [
        v3(END, REDISTRIBUTORS, None),
        v3(DISTRIBUTOR, END, None),
        v3(DISTRIBUTOR, REDISTRIBUTORS, Some(END)),
    ];
    all_refused(ctx, &configs, E2BIG)
}

fn with_spis(spis: u32) -> GicConfig {
    GicConfig::V3 {
        distributor: GuestAddress(DISTRIBUTOR),
        redistributors: GuestAddress(REDISTRIBUTORS),
        its: None,
        spis,
    }
}

fn interrupts_come_in_thirty_twos_below_1024(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    all_refused(ctx, &[0, 33, 992, 1024, u32::MAX].map(with_spis), EINVAL)?;
    for spis in [32, 64, 960] {
        ctx.machine(1)?.vm.create_gic(&with_spis(spis))?;
    }
    Ok(())
}

fn vcpus_come_before_initialisation(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    machine.vm.create_gic(&gic_v3())?.init()?;
    refused(machine.vm.create_vcpu(VcpuId(1)), EBUSY)
}

fn a_vcpu_can_come_between_creation_and_initialisation(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let gic = machine.vm.create_gic(&gic_v3())?;
    machine.vm.create_vcpu(VcpuId(1))?.init(PLAIN)?;
    Ok(gic.init()?)
}

fn a_controller_that_is_not_ready_keeps_vcpus_from_running(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    let _gic = machine.vm.create_gic(&gic_v3())?;
    refused(machine[0].complete_access(), EBUSY)
}

fn a_controller_comes_before_the_first_run(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    machine[0].complete_access()?;
    refused(machine.vm.create_gic(&gic_v3()), EBUSY)
}

fn initialising_it_twice_changes_nothing(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let gic = machine.vm.create_gic(&gic_v3())?;
    gic.init()?;
    Ok(gic.init()?)
}

fn a_gicv2_serves_eight_vcpus(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    ctx.machine(8)?.vm.create_gic(&v2(DISTRIBUTOR, REDISTRIBUTORS))?;
    // Where the host has no other controller, there is no ninth vCPU at all.
    if ctx.limits().vcpus == 8 {
        return refused(ctx.machine(9).map(drop), EINVAL);
    }
    refused(ctx.machine(9)?.vm.create_gic(&v2(DISTRIBUTOR, REDISTRIBUTORS)), E2BIG)
}

fn a_gicv2_has_frames_of_4_kib(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const ODD: u64 = 0x800;
    ctx.machine(1)?.vm.create_gic(&v2(DISTRIBUTOR + 0x1000, REDISTRIBUTORS + 0x1000))?;
    let configs = [v2(DISTRIBUTOR + ODD, REDISTRIBUTORS), v2(DISTRIBUTOR, REDISTRIBUTORS + ODD)];
    all_refused(ctx, &configs, EINVAL)
}

const WITH_PMU: VcpuFeatures = VcpuFeatures(PLAIN.0 | VcpuFeatures::PMU_V3.0);

fn a_vcpu_without_a_pmu_has_none_to_initialise(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    refused(ctx.machine(1)?[0].init_pmu(Ppi::PMU), ENODEV)
}

fn a_pmu_comes_after_the_controllers_initialisation(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    if !ctx.limits().features.contains(VcpuFeatures::PMU_V3) {
        return Ok(());
    }
    let machine = ctx.machine_with(1, WITH_PMU)?;
    let gic = machine.vm.create_gic(&gic_v3())?;
    refused(machine[0].init_pmu(Ppi::PMU), ENODEV)?;
    gic.init()?;
    drop(machine);
    let mut machine = ctx.machine_with(1, WITH_PMU)?;
    machine.vm.create_gic(&gic_v3())?.init()?;
    machine[0].init_pmu(Ppi::PMU)?;
    Ok(machine[0].complete_access()?)
}

fn a_pmu_is_initialised_once(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine_with(1, WITH_PMU)?;
    machine.vm.create_gic(&any_gic(machine.vm.as_ref()))?.init()?;
    machine[0].init_pmu(Ppi::PMU)?;
    refused(machine[0].init_pmu(Ppi::PMU), EBUSY)
}
