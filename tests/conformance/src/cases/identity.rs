//! Identification registers: which can be changed, until when, for whom.

use anyhow::{Context, ensure};
use kedge_hv::VmConfig;
use kedge_ids::{Mpidr, RegId, VcpuId};
use libc::{EBUSY, EINVAL};

use crate::case::cases;
use crate::ctx::{Ctx, IPA_BITS, Machine, PLAIN, equal, errno, refused};

cases![
    Kvm id_registers_are_accepted_as_they_are_before_and_after_the_first_run,
    Kvm an_id_register_does_not_take_more_than_the_host_has,
    Kvm a_refused_id_register_keeps_its_value,
    Kvm a_lowered_id_register_holds_for_the_whole_machine,
    Kvm id_registers_that_freeze_are_busy_after_the_first_run,
    Kvm a_lowered_id_register_survives_initialisation,
    Kvm the_main_id_register_is_fixed,
    NoImpIds a_host_whose_main_id_registers_are_fixed_says_so,
    ImpIds main_id_registers_take_any_value_of_their_width,
    ImpIds main_id_registers_are_the_whole_machines,
    ImpIds main_id_registers_freeze_at_the_first_run,
    ImpIds main_id_registers_survive_initialisation,
    Kvm the_affinity_follows_from_the_index,
    Kvm the_affinity_can_be_set_for_each_vcpu_at_any_time,
    Kvm cache_registers_are_all_fixed_or_all_writable,
];

const MIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 0);
const REVIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 6);
const AIDR_EL1: RegId = RegId::system(3, 1, 0, 0, 7);
const PFR0_EL1: RegId = RegId::system(3, 0, 0, 4, 0);
const DFR0_EL1: RegId = RegId::system(3, 0, 0, 5, 0);
const CLIDR_EL1: RegId = RegId::system(3, 1, 0, 0, 1);

/// The ID registers: op0 3, op1 0, CRn 0, CRm 1 to 7.
fn id_registers(ctx: &Ctx<'_>) -> anyhow::Result<Vec<RegId>> {
    let first = RegId::system(3, 0, 0, 1, 0);
    let last = RegId::system(3, 0, 0, 7, 7);
    let list = ctx.machine(1)?[0].reg_list()?;
    Ok(list.into_iter().filter(|id| (first..=last).contains(id)).collect())
}

/// The values one lower in one field, of which there is something to take.
fn lowered(value: u64) -> impl Iterator<Item = u64> {
    let fields = (0..u64::BITS).step_by(4).filter(move |shift| value >> shift & 0xf != 0);
    fields.map(move |shift| value - (1 << shift))
}

/// A register and a lower value that it accepts: CSV2 or CSV3 at least, wherever
/// the CPU has them.
fn lowerable(ctx: &Ctx<'_>) -> anyhow::Result<Option<(RegId, u64)>> {
    for id in id_registers(ctx)? {
        let machine = ctx.machine(1)?;
        let accepts = |lower: &u64| {
            let set = machine[0].set_reg64(id, *lower).is_ok();
            set && machine[0].reg64(id).is_ok_and(|now| now == *lower)
        };
        if let Some(lower) = lowered(machine[0].reg64(id)?).find(accepts) {
            return Ok(Some((id, lower)));
        }
    }
    Ok(None)
}

fn id_registers_are_accepted_as_they_are_before_and_after_the_first_run(
    ctx: &Ctx<'_>,
) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    for _ in ["before", "after"] {
        for id in id_registers(ctx)? {
            let value = machine[0].reg64(id)?;
            machine[0].set_reg64(id, value).with_context(|| format!("{id} = {value:#x}"))?;
        }
        machine[0].complete_access()?;
    }
    Ok(())
}

fn an_id_register_does_not_take_more_than_the_host_has(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const CSV3: u64 = 0xf << 60;
    const RESERVED: u64 = 0xf << 44;
    let machine = ctx.machine(1)?;
    let value = machine[0].reg64(PFR0_EL1)?;
    refused(machine[0].set_reg64(PFR0_EL1, value | CSV3), EINVAL)?;
    let value = machine[0].reg64(DFR0_EL1)?;
    refused(machine[0].set_reg64(DFR0_EL1, value ^ RESERVED), EINVAL)
}

fn a_refused_id_register_keeps_its_value(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let value = machine[0].reg64(PFR0_EL1)?;
    refused(machine[0].set_reg64(PFR0_EL1, u64::MAX), EINVAL)?;
    equal(&machine[0].reg64(PFR0_EL1)?, &value)
}

fn a_lowered_id_register_holds_for_the_whole_machine(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let Some((id, lower)) = lowerable(ctx)? else { return Ok(()) };
    let machine = ctx.machine(2)?;
    machine[0].set_reg64(id, lower)?;
    equal(&machine[1].reg64(id)?, &lower)
}

fn id_registers_that_freeze_are_busy_after_the_first_run(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let Some((id, lower)) = lowerable(ctx)? else { return Ok(()) };
    let mut machine = ctx.machine(1)?;
    machine[0].complete_access()?;
    // Older kernels go on accepting the few values that they accept at all.
    let result = machine[0].set_reg64(id, lower);
    ensure!([0, EBUSY].contains(&errno(&result)), "found {result:?}");
    Ok(())
}

fn a_lowered_id_register_survives_initialisation(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let Some((id, lower)) = lowerable(ctx)? else { return Ok(()) };
    let mut machine = ctx.machine(1)?;
    machine[0].set_reg64(id, lower)?;
    machine[0].init(PLAIN)?;
    equal(&machine[0].reg64(id)?, &lower)
}

fn the_main_id_register_is_fixed(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    let value = machine[0].reg64(MIDR_EL1)?;
    machine[0].set_reg64(MIDR_EL1, value)?;
    refused(machine[0].set_reg64(MIDR_EL1, value ^ 1), EINVAL)
}

const WRITABLE: VmConfig = VmConfig { ipa_bits: IPA_BITS, writable_imp_ids: true };

/// A machine whose main ID registers are its own.
fn own_main_ids(ctx: &Ctx<'_>) -> anyhow::Result<Machine> {
    let vm = ctx.vm_with(&WRITABLE)?;
    let mut vcpus = vec![vm.create_vcpu(VcpuId(0))?, vm.create_vcpu(VcpuId(1))?];
    vcpus.iter_mut().try_for_each(|vcpu| vcpu.init(PLAIN))?;
    Ok(Machine { vcpus, vm, ram: None })
}

fn a_host_whose_main_id_registers_are_fixed_says_so(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    refused(ctx.vm_with(&WRITABLE), EINVAL)
}

fn main_id_registers_take_any_value_of_their_width(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = own_main_ids(ctx)?;
    for (id, value) in [(MIDR_EL1, 0x411f_d401), (REVIDR_EL1, u64::MAX), (AIDR_EL1, u64::MAX)] {
        machine[0].set_reg64(id, value)?;
        equal(&machine[0].reg64(id)?, &value)?;
    }
    refused(machine[0].set_reg64(MIDR_EL1, 1 << 32 | 0x411f_d401), EINVAL)
}

fn main_id_registers_are_the_whole_machines(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = own_main_ids(ctx)?;
    for id in [MIDR_EL1, REVIDR_EL1, AIDR_EL1] {
        let other = machine[0].reg64(id)? ^ 1;
        machine[0].set_reg64(id, other)?;
        equal(&machine[1].reg64(id)?, &other)?;
    }
    Ok(())
}

fn main_id_registers_freeze_at_the_first_run(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = own_main_ids(ctx)?;
    machine[0].set_reg64(MIDR_EL1, 0x411f_d401)?;
    machine[0].complete_access()?;
    machine[1].set_reg64(MIDR_EL1, 0x411f_d401)?;
    refused(machine[1].set_reg64(MIDR_EL1, 0x411f_d402), EBUSY)?;
    refused(machine[1].set_reg64(REVIDR_EL1, u64::MAX), EBUSY)
}

fn main_id_registers_survive_initialisation(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = own_main_ids(ctx)?;
    machine[0].set_reg64(MIDR_EL1, 0x411f_d401)?;
    machine[0].init(PLAIN)?;
    equal(&machine[0].reg64(MIDR_EL1)?, &0x411f_d401)
}

fn the_affinity_follows_from_the_index(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    let limit = ctx.limits().vcpus;
    for index in [0, 1, 7, 15, 16, 17].into_iter().filter(|index| *index < limit) {
        let mut vcpu = vm.create_vcpu(VcpuId(index))?;
        vcpu.init(PLAIN)?;
        let affinity = Mpidr::from_register(vcpu.reg64(RegId::MPIDR_EL1)?);
        equal(&affinity, &Mpidr::of(VcpuId(index)))?;
    }
    Ok(())
}

fn the_affinity_can_be_set_for_each_vcpu_at_any_time(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const ELSEWHERE: u64 = 0x8000_0203;
    let mut machine = ctx.machine(2)?;
    machine[0].complete_access()?;
    let before = machine[1].reg64(RegId::MPIDR_EL1)?;
    machine[0].set_reg64(RegId::MPIDR_EL1, ELSEWHERE)?;
    equal(&machine[0].reg64(RegId::MPIDR_EL1)?, &ELSEWHERE)?;
    equal(&machine[1].reg64(RegId::MPIDR_EL1)?, &before)
}

fn cache_registers_are_all_fixed_or_all_writable(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    // CCSIDR of the first data cache; bit 3 is in its number of ways.
    const CCSIDR: RegId = RegId(0x6020_0000_0011_0000);
    const LEVEL_7: u64 = 1 << 18;
    let machine = ctx.machine(2)?;
    let clidr = machine[0].reg64(CLIDR_EL1)?;
    let size = machine[0].reg(CCSIDR)?;
    let other_size = [size[0] ^ 1 << 3, size[1], size[2], size[3]];
    let results = (
        errno(&machine[0].set_reg64(CLIDR_EL1, clidr ^ LEVEL_7)),
        errno(&machine[0].set_reg(CCSIDR, &other_size)),
    );
    ensure!([(0, 0), (EINVAL, EINVAL)].contains(&results), "errnos {results:?}");
    equal(&machine[1].reg64(CLIDR_EL1)?, &clidr)?;
    equal(&machine[1].reg(CCSIDR)?, &size)
}
