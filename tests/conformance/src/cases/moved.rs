//! Registers captured from one machine and restored to another on the same host.

use anyhow::ensure;
use kedge_arch::regs;
use kedge_firmware::{
    Birth, HOST, Live, Manner, RegisterState, Rules, Source, builtin, capture, plan,
};
use kedge_hv::{MpState, Vcpu, VcpuFeatures};
use kedge_hv_model::id;
use kedge_ids::RegId;

use crate::case::cases;
use crate::ctx::{Ctx, Machine, PLAIN, equal};
use crate::facts::PAIRS;

cases![
    Kvm registers_move_to_another_machine,
    Kvm the_psci_version_moves_with_the_registers,
    Bitmaps cleared_bitmaps_move_with_the_registers,
    Sve registers_of_sve_move_to_another_machine,
    Ptrauth keys_move_to_another_machine,
    Pmu the_monitors_counters_move_to_another_machine,
];

const TPIDR_EL1: RegId = RegId::system(3, 0, 13, 0, 4);
/// Z3, whose lowest bytes every vector length has.
const Z3: RegId = RegId(0x6080_0000_0015_0060);
/// The low half of the key A for instructions.
const APIAKEYLO_EL1: RegId = RegId::system(3, 0, 2, 1, 0);

fn vcpus(machine: &Machine) -> Vec<&dyn Vcpu> {
    machine.vcpus.iter().map(AsRef::as_ref).collect()
}

fn machine(ctx: &Ctx<'_>, features: VcpuFeatures) -> anyhow::Result<Machine> {
    let mut machine = ctx.machine_with(2, features)?;
    if features.contains(VcpuFeatures::SVE) {
        machine.vcpus.iter_mut().try_for_each(|vcpu| vcpu.finalize_sve())?;
    }
    Ok(machine)
}

/// The registers of a machine.
pub(super) fn save(
    ctx: &Ctx<'_>,
    machine: &Machine,
    features: VcpuFeatures,
) -> anyhow::Result<RegisterState> {
    let abi = builtin(HOST).expect("it is built in");
    let source = Source { features, abilities: ctx.host_abilities() };
    let birth = Birth { abi, firmware: Vec::new() };
    Ok(capture(&vcpus(machine), &source, birth, &Rules::new(&[]))?)
}

/// Gives them to another machine on the same host.
pub(super) fn restore(ctx: &Ctx<'_>, state: &RegisterState, new: &Machine) -> anyhow::Result<()> {
    let rows = regs::rows();
    let planned =
        plan(state, &mut Live::new(&vcpus(new), ctx.host_abilities()), &Rules::new(&rows))?;
    let otherwise: Vec<_> =
        planned.plan.lines.iter().filter(|l| l.verdict.word() != "keep").collect();
    ensure!(otherwise.is_empty(), "the same host offers something else: {otherwise:?}");
    planned.restore(&vcpus(new), &Manner::default())?;
    Ok(())
}

/// Moves the registers of `old` to a new machine, and compares all but the counters.
fn moved(ctx: &Ctx<'_>, old: &Machine, features: VcpuFeatures) -> anyhow::Result<Machine> {
    let state = save(ctx, old, features)?;
    let new = machine(ctx, features)?;
    restore(ctx, &state, &new)?;
    let again = save(ctx, &new, features)?;
    for (vcpu, list) in old.vcpus.iter().map(|vcpu| vcpu.reg_list()).enumerate() {
        let counters = [id::TIMER_CNT, id::PTIMER_CNT];
        for id in list?.into_iter().filter(|id| !counters.contains(id)) {
            let (found, due) = (again.of_vcpu(vcpu, id), state.of_vcpu(vcpu, id));
            ensure!(found == due, "{id} of vCPU {vcpu} is {found:?}, where {due:?} is due");
        }
    }
    Ok(new)
}

fn registers_move_to_another_machine(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let old = machine(ctx, PLAIN)?;
    for (index, vcpu) in (0..).zip(&old.vcpus) {
        vcpu.set_reg64(RegId::x(5), 0xfeed + index)?;
        vcpu.set_reg64(TPIDR_EL1, 0x1234_5678_9abc + index)?;
    }
    old[1].set_mp_state(MpState::Stopped)?;
    let new = moved(ctx, &old, PLAIN)?;
    equal(&new[1].reg64(RegId::x(5))?, &0xfeee)?;
    equal(&new[1].mp_state()?, &MpState::Stopped)
}

fn the_psci_version_moves_with_the_registers(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let old = machine(ctx, PLAIN)?;
    old[0].set_reg64(RegId::PSCI_VERSION, 0x2)?;
    let new = moved(ctx, &old, PLAIN)?;
    equal(&new[1].reg64(RegId::PSCI_VERSION)?, &0x2)
}

fn cleared_bitmaps_move_with_the_registers(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let old = machine(ctx, PLAIN)?;
    old[0].set_reg64(id::STD_BMAP, 0)?;
    old[0].set_reg64(id::VENDOR_HYP_BMAP, 0x1)?;
    let new = moved(ctx, &old, PLAIN)?;
    let read = [id::STD_BMAP, id::VENDOR_HYP_BMAP].map(|id| new[1].reg64(id).unwrap_or(u64::MAX));
    equal(&read, &[0x0, 0x1])
}

fn registers_of_sve_move_to_another_machine(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let features = PLAIN | VcpuFeatures::SVE;
    let old = machine(ctx, features)?;
    let mut value = vec![0; 256];
    value[..16].fill(0xa5);
    old[1].set_reg(Z3, &value)?;
    let new = moved(ctx, &old, features)?;
    equal(&new[1].reg(Z3)?, &value)
}

fn keys_move_to_another_machine(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let features = PLAIN | VcpuFeatures::PTRAUTH;
    let old = machine(ctx, features)?;
    old[0].set_reg64(APIAKEYLO_EL1, 0xdead_beef)?;
    let new = moved(ctx, &old, features)?;
    equal(&new[0].reg64(APIAKEYLO_EL1)?, &0xdead_beef)
}

fn the_monitors_counters_move_to_another_machine(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let features = PLAIN | VcpuFeatures::PMU_V3;
    let old = machine(ctx, features)?;
    for ([set, clear], value) in PAIRS.into_iter().zip([0x8000_0001, 0x1, 0x0]) {
        old[1].set_reg64(clear, u64::MAX)?;
        old[1].set_reg64(set, value)?;
    }
    let new = moved(ctx, &old, features)?;
    for (pair, value) in PAIRS.into_iter().zip([0x8000_0001, 0x1, 0x0]) {
        let read = [new[1].reg64(pair[0])?, new[1].reg64(pair[1])?];
        equal(&read, &[value, value])?;
    }
    Ok(())
}
