//! Facts about which registers there are, whose, and what they accept.

use anyhow::bail;
use kedge_hv::{Vcpu, VcpuFeatures, VmConfig, WritableMasks};
use kedge_hv_model::id;
use kedge_ids::{Ppi, RegId};

use super::{Group, Holds, fact, of_host};
use crate::ctx::{Ctx, IPA_BITS, Machine, PLAIN, any_gic};

/// The groups of this file.
pub(super) const GROUPS: &[Group] = &[
    of_host("registers of a plain vcpu", plain_registers),
    of_host("registers with the pmu", pmu_registers),
    of_host("registers with ptrauth", ptrauth_registers),
    Group { name: "registers with sve", holds: Holds::SameHostWithSve, find: sve_registers },
    of_host("scopes", scopes),
    of_host("fields of id registers", writable_fields),
    of_host("frozen id registers", frozen_ids),
    of_host("controllers in id registers", controllers_in_ids),
    of_host("masks of id registers", masks),
    of_host("id registers that depend on others", dependencies),
    of_host("control of the pmu", pmu_control),
    Group { name: "vector state", holds: Holds::SameHostWithSve, find: vector_state },
];

/// Registers whose value runs on.
pub const CLOCKS: [RegId; 2] = [id::TIMER_CNT, id::PTIMER_CNT];

fn registers_of(vcpu: &dyn Vcpu) -> anyhow::Result<Vec<String>> {
    let mut facts = Vec::new();
    for id in vcpu.reg_list()? {
        match vcpu.reg(id)? {
            _ if CLOCKS.contains(&id) => facts.push(format!("{id} runs")),
            value => facts.push(format!("{id} is born as {value:x?}")),
        }
    }
    Ok(facts)
}

fn with_feature(ctx: &Ctx<'_>, feature: VcpuFeatures) -> anyhow::Result<Vec<String>> {
    registers_of(&ctx.machine_with(1, PLAIN | feature)?[0])
}

fn plain_registers(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    with_feature(ctx, VcpuFeatures::NONE)
}

fn pmu_registers(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    with_feature(ctx, VcpuFeatures::PMU_V3)
}

fn ptrauth_registers(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    with_feature(ctx, VcpuFeatures::PTRAUTH)
}

fn sve_registers(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let mut machine = ctx.machine_with(1, PLAIN | VcpuFeatures::SVE)?;
    machine[0].finalize_sve()?;
    registers_of(&machine[0])
}

/// Which bits of each register can be changed, and whose they are: written through
/// one vCPU, read through another.
fn scopes(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let machine = ctx.machine(2)?;
    let mut facts = Vec::new();
    let list = machine[0].reg_list()?;
    for id in list.into_iter().filter(|id| id.size().bytes() == 8 && !CLOCKS.contains(id)) {
        let (born, beside) = (machine[0].reg64(id)?, machine[1].reg64(id)?);
        let (mut own, mut shared) = (0, 0);
        for bit in (0..u64::BITS).map(|bit| 1_u64 << bit) {
            let set = machine[0].set_reg64(id, born ^ bit).is_ok();
            if set && machine[0].reg64(id)? == born ^ bit {
                let moved = machine[1].reg64(id)? != beside;
                *(if moved { &mut shared } else { &mut own }) |= bit;
            }
            // What does not go back shows in the next bits.
            let _ = machine[0].set_reg64(id, born);
        }
        facts.push(format!("{id}: {own:#x} of the vcpu's, {shared:#x} of the machine's"));
    }
    Ok(facts)
}

/// The registers whose fields have legal values: op0 3, CRn 0.
fn is_identification(id: RegId) -> bool {
    let of = |op1, crm, op2| RegId::system(3, op1, 0, crm, op2);
    (of(0, 1, 0)..=of(0, 7, 7)).contains(&id) || [of(1, 0, 1), of(3, 0, 1)].contains(&id)
}

/// What the fields of ID registers accept besides the value they have, as lines
/// of a recording (see `kedge_hv_model::Recording`).
///
/// # Errors
/// A register reads as something that it neither had nor was given.
pub fn writable_fields(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let machine = ctx.machine(1)?;
    let list = machine[0].reg_list()?;
    let mut facts = Vec::new();
    for id in list.into_iter().filter(|id| is_identification(*id)) {
        for shift in (0..u64::BITS).step_by(4) {
            facts.extend(accepted(&machine[0], id, shift)?);
        }
    }
    Ok(facts)
}

/// What the four bits at `shift` accept, unless it is their own value only.
fn accepted(vcpu: &dyn Vcpu, id: RegId, shift: u32) -> anyhow::Result<Option<String>> {
    let born = vcpu.reg64(id)?;
    let (mut kept, mut lost) = (0_u16, 0_u16);
    for value in 0..16 {
        let wanted = born & !(0xf << shift) | value << shift;
        if vcpu.set_reg64(id, wanted).is_ok() {
            match vcpu.reg64(id)? {
                now if now == wanted => kept |= 1 << value,
                now if now == born => lost |= 1 << value,
                now => bail!("{id} = {wanted:#x} reads {now:#x}"),
            }
        }
        vcpu.set_reg64(id, born)?;
    }
    let fixed = kept == 1 << (born >> shift & 0xf) && lost == 0;
    Ok((!fixed).then(|| format!("field {:x} {shift} {kept:x} {lost:x}", id.0)))
}

/// What ID registers accept after a run: all that they accepted before, one step
/// down in each field.
fn frozen_ids(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let mut machine = ctx.machine(1)?;
    let list = machine[0].reg_list()?;
    machine[0].complete_access()?;
    let mut facts = Vec::new();
    for id in list.into_iter().filter(|id| is_identification(*id)) {
        let born = machine[0].reg64(id)?;
        facts.push(fact(format_args!("{id} as it is"), machine[0].set_reg64(id, born)));
        for shift in (0..u64::BITS).step_by(4).filter(|shift| born >> shift & 0xf != 0) {
            let result = machine[0].set_reg64(id, born - (1 << shift));
            facts.push(fact(format_args!("{id} one less at {shift}"), result));
            machine[0].set_reg64(id, born)?;
        }
    }
    Ok(facts)
}

/// What the presence of a controller does to identification.
fn controllers_in_ids(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let list = ctx.machine(1)?[0].reg_list()?;
    let ids: Vec<_> = list.into_iter().filter(|id| is_identification(*id)).collect();
    let mut facts = Vec::new();
    for with in ["no controller", "a controller"] {
        let mut machine = ctx.machine(1)?;
        if with == "a controller" {
            machine.vm.create_gic(&any_gic(machine.vm.as_ref()))?.init()?;
        }
        for when in ["before", "after"] {
            for id in &ids {
                let value = machine[0].reg64(*id)?;
                facts.push(format!("{id} with {with} {when} a run is {value:#x}"));
            }
            machine[0].complete_access()?;
        }
    }
    Ok(facts)
}

/// The bits of ID registers that the host says can change.
///
/// # Errors
/// The host says that it says, and does not.
pub fn id_masks(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let masks = ctx.vm()?.writable_id_masks()?;
    let lines = masks.iter().flat_map(WritableMasks::iter);
    Ok(lines.map(|(id, mask)| format!("mask {:x} {mask:x}", id.0)).collect())
}

fn masks(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let mut facts = id_masks(ctx)?;
    if ctx.host_abilities().writable_imp_ids {
        let config = VmConfig { writable_imp_ids: true, ..VmConfig::new(IPA_BITS) };
        let masks = ctx.vm_with(&config)?.writable_id_masks()?;
        let lines = masks.iter().flat_map(WritableMasks::iter);
        facts.extend(lines.map(|(id, mask)| format!("in a machine of its own, {id}: {mask:#x}")));
    }
    Ok(facts)
}

/// Which ID registers another value of one field changes: at once, by creating a
/// controller, or by running.
fn dependencies(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let list = ctx.machine(1)?[0].reg_list()?;
    let ids: Vec<_> = list.into_iter().filter(|id| is_identification(*id)).collect();
    let mut facts = Vec::new();
    for id in &ids {
        for shift in (0..u64::BITS).step_by(4) {
            let born = ctx.machine(1)?[0].reg64(*id)?;
            let lowest = born & !(0xf << shift);
            if born == lowest {
                continue;
            }
            let what = format!("{id} with 0 at {shift}");
            facts.extend(lowered(ctx, &ids, (*id, lowest), &what)?);
        }
    }
    Ok(facts)
}

/// What lowering one ID register does to all of them.
fn lowered(
    ctx: &Ctx<'_>,
    ids: &[RegId],
    (id, lowest): (RegId, u64),
    what: &str,
) -> anyhow::Result<Vec<String>> {
    let mut machine = ctx.machine(1)?;
    let values = |machine: &Machine| -> anyhow::Result<Vec<u64>> {
        Ok(ids.iter().map(|id| machine[0].reg64(*id)).collect::<Result<_, _>>()?)
    };
    let mut before = values(&machine)?;
    if machine[0].set_reg64(id, lowest).is_err() {
        return Ok(Vec::new());
    }
    let mut facts = Vec::new();
    for then in ["written", "a controller", "a run"] {
        match then {
            "a controller" => machine.vm.create_gic(&any_gic(machine.vm.as_ref()))?.init()?,
            "a run" => machine[0].complete_access()?,
            _ => {}
        }
        let after = values(&machine)?;
        let changed = ids.iter().zip(before.iter().zip(&after)).filter(|(_, (a, b))| a != b);
        facts.extend(changed.map(|(id, (a, b))| format!("{what}, {then}: {id} {a:#x} to {b:#x}")));
        let count = machine[0].reg_list()?.len();
        facts.push(format!("{what}, {then}: {count} registers"));
        before = after;
    }
    Ok(facts)
}

const PMCR_EL0: RegId = RegId::system(3, 3, 9, 12, 0);

/// What the control register of the performance monitors takes, before and after
/// a run.
fn pmu_control(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    if !ctx.limits().features.contains(VcpuFeatures::PMU_V3) {
        return Ok(Vec::new());
    }
    let mut machine = ctx.machine_with(2, PLAIN | VcpuFeatures::PMU_V3)?;
    machine.vm.create_gic(&any_gic(machine.vm.as_ref()))?.init()?;
    machine.vcpus.iter().try_for_each(|vcpu| vcpu.init_pmu(Ppi::PMU))?;
    let born = machine[0].reg64(PMCR_EL0)?;
    let counters = (0..32).map(|n| born & !(0x1f << 11) | n << 11);
    let bits = (0..u64::BITS).map(|bit| born ^ 1 << bit);
    let values: Vec<_> = counters.chain(bits).chain([u64::MAX, 0, born]).collect();
    let mut facts = Vec::new();
    for when in ["before", "after"] {
        for value in &values {
            let result = machine[0].set_reg64(PMCR_EL0, *value);
            let (here, there) = (machine[0].reg64(PMCR_EL0)?, machine[1].reg64(PMCR_EL0)?);
            let line = format_args!("{when} a run, {value:#x} makes {here:#x} and {there:#x}");
            facts.push(fact(line, result));
        }
        machine[0].complete_access()?;
    }
    Ok(facts)
}

/// What vector registers keep of all ones, with all lengths and with the shortest.
fn vector_state(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    const Z0: RegId = RegId(0x6080_0000_0015_0000);
    const P0: RegId = RegId(0x6050_0000_0015_0400);
    const FFR: RegId = RegId(0x6050_0000_0015_0600);
    let mut facts = Vec::new();
    for shortest in [false, true] {
        let mut machine = ctx.machine_with(1, PLAIN | VcpuFeatures::SVE)?;
        if shortest {
            let mut lengths = [0; 64];
            lengths[0] = 1;
            machine[0].set_reg(RegId::SVE_VLS, &lengths)?;
        }
        machine[0].finalize_sve()?;
        for id in [Z0, P0, FFR] {
            let result = machine[0].set_reg(id, &vec![0xff; id.size().bytes()]);
            let kept = machine[0].reg(id)?.iter().filter(|byte| **byte == 0xff).count();
            facts.push(fact(format_args!("{id} keeps {kept} bytes, shortest {shortest}"), result));
        }
    }
    Ok(facts)
}
