//! `KVM_ARM_VCPU_INIT`: which features, when, and what it resets.

use anyhow::ensure;
use kedge_hv::{MpState, VcpuFeatures};
use kedge_ids::{RegId, VcpuId};
use libc::{EEXIST, EINVAL, ENOENT, ENOEXEC};

use crate::case::cases;
use crate::ctx::{Ctx, PLAIN, equal, refused};

cases![
    Kvm nothing_works_before_initialisation,
    Kvm an_unknown_feature_does_not_exist,
    Kvm half_of_pointer_authentication_is_refused,
    Kvm a_feature_the_host_lacks_is_refused,
    Kvm initialising_again_takes_the_same_features_only,
    Kvm initialising_again_resets_core_registers,
    Kvm initialising_again_wakes_a_stopped_vcpu,
    Kvm a_vcpu_can_be_born_off,
    Kvm vcpus_may_differ_in_being_born_off,
    Kvm a_refused_initialisation_leaves_the_machine_open,
    Kvm there_is_one_vcpu_of_each_index,
    Kvm there_are_no_more_vcpus_than_the_limit,
    TwoWidths all_vcpus_have_one_register_width,
];

fn nothing_works_before_initialisation(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.raw_machine(1)?;
    let vcpu = &mut machine[0];
    refused(vcpu.reg_list(), ENOEXEC)?;
    refused(vcpu.reg(RegId::PC), ENOEXEC)?;
    refused(vcpu.set_reg64(RegId::PSCI_VERSION, 2), ENOEXEC)?;
    refused(vcpu.finalize_sve(), ENOEXEC)?;
    refused(vcpu.complete_access(), ENOEXEC)?;
    refused(vcpu.run(), ENOEXEC)
}

fn an_unknown_feature_does_not_exist(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.raw_machine(1)?;
    refused(machine[0].init(PLAIN | VcpuFeatures(1 << 31)), ENOENT)
}

fn half_of_pointer_authentication_is_refused(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.raw_machine(1)?;
    refused(machine[0].init(PLAIN | VcpuFeatures(1 << 5)), EINVAL)?;
    refused(machine[0].init(PLAIN | VcpuFeatures(1 << 6)), EINVAL)
}

fn a_feature_the_host_lacks_is_refused(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let offered = ctx.limits().features;
    for feature in [VcpuFeatures::SVE, VcpuFeatures::PMU_V3, VcpuFeatures::PTRAUTH] {
        let result = ctx.machine_with(1, PLAIN | feature).map(drop);
        match offered.contains(feature) {
            true => result?,
            false => refused(result, EINVAL)?,
        }
    }
    Ok(())
}

fn initialising_again_takes_the_same_features_only(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    refused(machine[0].init(VcpuFeatures::NONE), EINVAL)?;
    Ok(machine[0].init(PLAIN)?)
}

fn initialising_again_resets_core_registers(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const EL1H_MASKED: u64 = 0x3c5;
    let mut machine = ctx.machine(1)?;
    machine[0].set_reg64(RegId::PC, 0x8000_0000)?;
    machine[0].set_reg64(RegId::x(7), 7)?;
    machine[0].init(PLAIN)?;
    equal(&machine[0].reg64(RegId::PC)?, &0)?;
    equal(&machine[0].reg64(RegId::x(7))?, &0)?;
    equal(&machine[0].reg64(RegId::PSTATE)?, &EL1H_MASKED)
}

fn initialising_again_wakes_a_stopped_vcpu(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    machine[0].set_mp_state(MpState::Stopped)?;
    machine[0].init(PLAIN)?;
    equal(&machine[0].mp_state()?, &MpState::Runnable)
}

fn a_vcpu_can_be_born_off(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine_with(1, PLAIN | VcpuFeatures::POWER_OFF)?;
    equal(&machine[0].mp_state()?, &MpState::Stopped)
}

fn vcpus_may_differ_in_being_born_off(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.raw_machine(2)?;
    machine[0].init(PLAIN)?;
    machine[1].init(PLAIN | VcpuFeatures::POWER_OFF)?;
    equal(&machine[0].mp_state()?, &MpState::Runnable)?;
    equal(&machine[1].mp_state()?, &MpState::Stopped)
}

fn a_refused_initialisation_leaves_the_machine_open(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.raw_machine(2)?;
    refused(machine[0].init(VcpuFeatures(1 << 31)), ENOENT)?;
    machine[1].init(PLAIN)?;
    Ok(machine[0].init(PLAIN)?)
}

fn there_is_one_vcpu_of_each_index(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.raw_machine(1)?;
    refused(machine.vm.create_vcpu(VcpuId(0)), EEXIST)
}

fn there_are_no_more_vcpus_than_the_limit(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let limit = ctx.limits().vcpus;
    ensure!(limit > 0, "a host without vCPUs");
    refused(ctx.vm()?.create_vcpu(VcpuId(limit)), EINVAL)
}

fn all_vcpus_have_one_register_width(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let narrow = PLAIN | VcpuFeatures::EL1_32BIT;
    let mut machine = ctx.raw_machine(2)?;
    machine[0].init(PLAIN)?;
    refused(machine[1].init(narrow), EINVAL)
}
