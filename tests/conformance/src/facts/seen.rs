//! Facts about what guests read in registers, which is not always what a kernel tells
//! its user, and about what can be done about it.

use kedge_hv::{PmuEvents, Vcpu, VcpuFeatures};
use kedge_ids::{Ppi, RegId};

use super::{Group, fact, of_host};
use crate::ctx::{Ctx, Machine, PLAIN, any_gic};

/// The groups of this file.
pub(super) const GROUPS: &[Group] = &[
    of_host("what guests read", what_guests_read),
    of_host("hidden events", hidden_events),
    of_host("sizes of caches", cache_sizes),
];

const CTR_EL0: RegId = RegId::system(3, 3, 0, 0, 1);
const PMCEID0_EL0: RegId = RegId::system(3, 3, 9, 12, 6);
const PMCEID1_EL0: RegId = RegId::system(3, 3, 9, 12, 7);
/// Read by every guest with performance monitors.
const READ: [RegId; 6] = [
    CTR_EL0,
    PMCEID0_EL0,
    PMCEID1_EL0,
    RegId::system(3, 1, 0, 0, 1), // CLIDR_EL1
    RegId::system(3, 0, 0, 0, 0), // MIDR_EL1
    RegId::system(3, 0, 0, 4, 0), // ID_AA64PFR0_EL1
];
const WITH_PMU: VcpuFeatures = VcpuFeatures(PLAIN.0 | VcpuFeatures::PMU_V3.0);

/// Two vCPUs with performance monitors that are not ready, where the host has any.
pub(crate) fn monitored(ctx: &Ctx<'_>) -> anyhow::Result<Option<Machine>> {
    if !ctx.limits().features.contains(VcpuFeatures::PMU_V3) {
        return Ok(None);
    }
    let machine = ctx.machine_with(2, WITH_PMU)?;
    machine.vm.create_gic(&any_gic(machine.vm.as_ref()))?.init()?;
    Ok(Some(machine))
}

/// What a guest reads once the monitors are ready.
pub(crate) fn read(machine: &mut Machine, ids: &[RegId]) -> anyhow::Result<Vec<Option<u64>>> {
    machine.vcpus.iter().try_for_each(|vcpu| vcpu.init_pmu(Ppi::PMU))?;
    Ok(machine[0].read_as_guest(ids)?)
}

fn what_guests_read(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let line = |with: &str, (id, value): (&RegId, &Option<u64>)| {
        let value = value.map_or_else(|| "undefined".to_owned(), |value| format!("{value:#x}"));
        format!("with {with}, {id} reads {value}")
    };
    let mut machine = ctx.machine(1)?;
    machine.vm.create_gic(&any_gic(machine.vm.as_ref()))?.init()?;
    let plain = machine[0].read_as_guest(&READ)?;
    let mut facts: Vec<_> =
        READ.iter().zip(&plain).map(|found| line("no monitors", found)).collect();
    if let Some(mut machine) = monitored(ctx)? {
        let found = read(&mut machine, &READ)?;
        facts.extend(READ.iter().zip(&found).map(|found| line("monitors", found)));
    }
    Ok(facts)
}

/// What a guest reads where the kernel tells nothing, or something else, as lines of a
/// recording (see `kedge_hv_model::Recording`).
///
/// # Errors
/// The hypervisor refuses a machine.
pub fn untold(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let told = ctx.machine(1)?[0].reg64(CTR_EL0).ok();
    let ids = [CTR_EL0, PMCEID0_EL0, PMCEID1_EL0];
    let (ids, found) = match monitored(ctx)? {
        Some(mut machine) => (&ids[..], read(&mut machine, &ids)?),
        None => (&ids[..1], ctx.machine(1)?[0].read_as_guest(&ids[..1])?),
    };
    let untold = ids.iter().zip(found).filter(|(id, found)| **id != CTR_EL0 || *found != told);
    let lines = untold.filter_map(|(id, found)| Some(format!("seen {:x} {:x}", id.0, found?)));
    Ok(lines.collect())
}

/// Which events can be hidden, until when, and what a guest reads then.
fn hidden_events(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    const ALL: PmuEvents = PmuEvents { first: 0, count: 0x400 };
    let Some(mut machine) = monitored(ctx)? else { return Ok(Vec::new()) };
    let mut facts = Vec::new();
    for (first, count) in [(0x1e, 1), (0, 1), (0, 0), (0xffff, 1), (0xffff, 2), (0x23, 2)] {
        let result = machine[0].hide_pmu_events(PmuEvents { first, count });
        facts.push(fact(format_args!("{count} from {first:#x} on"), result));
    }
    machine[0].init_pmu(Ppi::PMU)?;
    facts.push(fact("when ready", machine[0].hide_pmu_events(ALL)));
    facts.push(fact(
        "when another is ready",
        machine[1].hide_pmu_events(PmuEvents { first: 0x11, count: 1 }),
    ));
    machine[1].init_pmu(Ppi::PMU)?;
    let found = machine[0].read_as_guest(&[PMCEID0_EL0, PMCEID1_EL0])?;
    facts.push(format!("a guest reads {found:x?}"));
    if let Some(mut machine) = monitored(ctx)? {
        machine[0].init_pmu(Ppi::PMU)?;
        machine[0].complete_access()?;
        facts.push(fact("when another has run", machine[1].hide_pmu_events(ALL)));
    }
    Ok(facts)
}

/// Which bits of caches' sizes can be changed, and for whom.
fn cache_sizes(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    const DEMUX: u64 = 0x11;
    let machine = ctx.machine(2)?;
    let list = machine[0].reg_list()?;
    let mut facts = Vec::new();
    for id in list.into_iter().filter(|id| id.coprocessor() == DEMUX) {
        let size = |vcpu: &dyn Vcpu| -> anyhow::Result<u32> {
            Ok(vcpu.reg(id)?.try_into().map(u32::from_le_bytes).unwrap_or(0))
        };
        let (born, beside) = (size(&machine[0])?, size(&machine[1])?);
        let (mut own, mut shared) = (0_u32, 0_u32);
        for bit in (0..u32::BITS).map(|bit| 1_u32 << bit) {
            let set = machine[0].set_reg(id, &(born ^ bit).to_le_bytes()).is_ok();
            if set && size(&machine[0])? == born ^ bit {
                let moved = size(&machine[1])? != beside;
                *(if moved { &mut shared } else { &mut own }) |= bit;
            }
            machine[0].set_reg(id, &born.to_le_bytes())?;
        }
        facts.push(format!("{id} = {born:#x}: {own:#x} of the vcpu's, {shared:#x} shared"));
    }
    Ok(facts)
}
