//! `KVM_GET_REG_LIST` and `ONE_REG` for registers of every kind.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use kedge_hv::VcpuFeatures;
use kedge_ids::RegId;
use libc::{EINVAL, ENOENT};

use crate::case::cases;
use crate::ctx::{Ctx, Machine, PLAIN, equal, refused};

cases![
    Kvm every_listed_register_is_as_long_as_its_id_says,
    Kvm every_listed_register_can_be_written_back,
    Kvm every_register_is_listed_once,
    Kvm the_list_is_the_same_for_every_vcpu,
    Kvm the_list_holds_what_every_release_has,
    Kvm registers_come_in_many_sizes,
    Kvm a_value_of_another_length_is_refused,
    Kvm an_id_of_another_architecture_is_refused,
    Kvm an_unknown_register_does_not_exist,
    Kvm an_unknown_bank_does_not_exist,
    Kvm a_firmware_register_of_another_size_does_not_exist,
    Kvm general_purpose_registers_belong_to_their_vcpu,
    Kvm a_vector_register_keeps_all_its_bytes,
    Pmu the_feature_pmu_gives_its_registers,
    Ptrauth the_feature_ptrauth_gives_ten_keys,
];

/// V0, 128 bits.
const V0: RegId = RegId(0x6040_0000_0010_0054);
/// Of bank 0x14, the register behind all that there are.
const NO_FW_REGISTER: RegId = RegId(0x6030_0000_0014_00ff);
const NO_BITMAP: RegId = RegId(0x6030_0000_0016_00ff);
/// FPSR, 32 bits.
const FPSR: RegId = RegId(0x6020_0000_0010_00d4);
const PMCR_EL0: RegId = RegId::system(3, 3, 9, 12, 0);
const PMCCFILTR_EL0: RegId = RegId::system(3, 3, 14, 15, 7);
const APIAKEYLO_EL1: RegId = RegId::system(3, 0, 2, 1, 0);
const APGAKEYHI_EL1: RegId = RegId::system(3, 0, 2, 3, 1);
const TIMER_CVAL: RegId = kedge_hv_model::id::TIMER_CVAL;

fn every_listed_register_is_as_long_as_its_id_says(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    for id in machine[0].reg_list()? {
        let value = machine[0].reg(id).with_context(|| id.to_string())?;
        equal(&value.len(), &id.size().bytes())?;
    }
    Ok(())
}

fn every_listed_register_can_be_written_back(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    for id in machine[0].reg_list()? {
        let value = machine[0].reg(id)?;
        machine[0].set_reg(id, &value).with_context(|| format!("{id} = {value:x?}"))?;
    }
    Ok(())
}

fn every_register_is_listed_once(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let list = ctx.machine(1)?[0].reg_list()?;
    equal(&list.iter().collect::<BTreeSet<_>>().len(), &list.len())
}

fn the_list_is_the_same_for_every_vcpu(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(2)?;
    equal(&machine[0].reg_list()?, &machine[1].reg_list()?)
}

fn the_list_holds_what_every_release_has(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let list = ctx.machine(1)?[0].reg_list()?;
    let core = (0..31).map(RegId::x).chain([RegId::PC, RegId::PSTATE, V0, FPSR]);
    let others = [RegId::PSCI_VERSION, RegId::MPIDR_EL1, TIMER_CVAL];
    for id in core.chain(others) {
        ensure!(list.contains(&id), "{id} is not listed");
    }
    Ok(())
}

fn registers_come_in_many_sizes(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let sizes = machine[0].reg_list()?.into_iter().map(|id| id.size().bytes());
    equal(&sizes.collect::<BTreeSet<_>>(), &BTreeSet::from([4, 8, 16]))
}

fn a_value_of_another_length_is_refused(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    for (id, length) in [(RegId::PC, 4), (RegId::PC, 16), (V0, 8), (FPSR, 8), (FPSR, 0)] {
        refused(machine[0].set_reg(id, &vec![0; length]), EINVAL)?;
    }
    refused(machine[0].reg64(V0), EINVAL)
}

fn cannot_be_reached(machine: &Machine, id: RegId, errno: i32) -> anyhow::Result<()> {
    refused(machine[0].reg(id), errno).with_context(|| format!("read {id}"))?;
    let zero = vec![0; id.size().bytes()];
    refused(machine[0].set_reg(id, &zero), errno).with_context(|| format!("write {id}"))
}

fn an_id_of_another_architecture_is_refused(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const X86: u64 = 0x2 << 60;
    const ARM64: u64 = 0x6 << 60;
    let machine = ctx.machine(1)?;
    cannot_be_reached(&machine, RegId(RegId::PC.0 - ARM64 + X86), EINVAL)?;
    cannot_be_reached(&machine, RegId(RegId::PSCI_VERSION.0 | 1 << 40), EINVAL)
}

fn an_unknown_register_does_not_exist(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    cannot_be_reached(&machine, NO_FW_REGISTER, ENOENT)?;
    cannot_be_reached(&machine, NO_BITMAP, ENOENT)?;
    cannot_be_reached(&machine, RegId::system(3, 7, 15, 15, 7), ENOENT)
}

fn an_unknown_bank_does_not_exist(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const BANK: u64 = 0x3f << 16;
    let machine = ctx.machine(1)?;
    cannot_be_reached(&machine, RegId(0x6030_0000_0000_0000 | BANK), ENOENT)
}

fn a_firmware_register_of_another_size_does_not_exist(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const U32: u64 = 0x6020_0000_0000_0000;
    const BANK: u64 = 0x14 << 16;
    cannot_be_reached(&ctx.machine(1)?, RegId(U32 | BANK), ENOENT)
}

fn general_purpose_registers_belong_to_their_vcpu(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(2)?;
    machine[0].set_reg64(RegId::x(3), 33)?;
    machine[0].set_reg64(TIMER_CVAL, 44)?;
    equal(&machine[0].reg64(RegId::x(3))?, &33)?;
    equal(&machine[1].reg64(RegId::x(3))?, &0)?;
    equal(&machine[1].reg64(TIMER_CVAL)?, &0)
}

fn a_vector_register_keeps_all_its_bytes(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let value: Vec<u8> = (1..=16).collect();
    let machine = ctx.machine(1)?;
    machine[0].set_reg(V0, &value)?;
    equal(&machine[0].reg(V0)?, &value)
}

fn the_feature_pmu_gives_its_registers(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let list = ctx.machine_with(1, PLAIN | VcpuFeatures::PMU_V3)?[0].reg_list()?;
    ensure!(list.contains(&PMCR_EL0), "PMCR_EL0 is not listed");
    ensure!(list.contains(&PMCCFILTR_EL0), "PMCCFILTR_EL0 is not listed");
    Ok(())
}

fn the_feature_ptrauth_gives_ten_keys(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let plain = ctx.machine(1)?[0].reg_list()?;
    let machine = ctx.machine_with(1, PLAIN | VcpuFeatures::PTRAUTH)?;
    let keys = machine[0].reg_list()?.into_iter().filter(|id| !plain.contains(id));
    let keys: Vec<_> = keys.collect();
    equal(&keys.len(), &10)?;
    ensure!(keys.contains(&APIAKEYLO_EL1) && keys.contains(&APGAKEYHI_EL1), "found {keys:?}");
    machine[0].set_reg64(APIAKEYLO_EL1, 0x5ec_2e7)?;
    equal(&machine[0].reg64(APIAKEYLO_EL1)?, &0x5ec_2e7)
}
