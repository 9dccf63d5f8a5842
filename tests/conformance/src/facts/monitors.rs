//! Facts about the registers of performance monitors: what is kept of what a user
//! writes, and which registers hold one value.

use kedge_ids::RegId;

use super::{Group, fact, monitored, of_host};
use crate::ctx::Ctx;

/// The groups of this file.
pub(super) const GROUPS: &[Group] = &[
    of_host("registers of the monitors", registers),
    of_host("counters in the monitors' registers", counters),
];

const fn el0(crm: u64, op2: u64) -> RegId {
    RegId::system(3, 3, 9, crm, op2)
}

/// The registers with a bit for each counter: one that sets bits, one that clears them.
pub(crate) const PAIRS: [[RegId; 2]; 3] = [
    [el0(12, 1), el0(12, 2)], // PMCNTENSET, PMCNTENCLR
    [el0(14, 3), el0(12, 3)], // PMOVSSET, PMOVSCLR
    [RegId::system(3, 0, 9, 14, 1), RegId::system(3, 0, 9, 14, 2)], // PMINTENSET, PMINTENCLR
];

/// Those with one value; of the events' counters and their types the first and the last.
const OTHERS: [RegId; 9] = [
    el0(12, 4),                     // PMSWINC_EL0
    el0(12, 5),                     // PMSELR_EL0
    el0(13, 0),                     // PMCCNTR_EL0
    el0(14, 0),                     // PMUSERENR_EL0
    RegId::system(3, 3, 14, 8, 0),  // PMEVCNTR0_EL0
    RegId::system(3, 3, 14, 11, 6), // PMEVCNTR30_EL0
    RegId::system(3, 3, 14, 12, 0), // PMEVTYPER0_EL0
    RegId::system(3, 3, 14, 15, 6), // PMEVTYPER30_EL0
    RegId::system(3, 3, 14, 15, 7), // PMCCFILTR_EL0
];
const VALUES: [u64; 4] = [u64::MAX, 0, 0x1234_5678_8000_0003, 0x5];

/// What each register reads when it was given a value.
fn registers(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let Some(machine) = monitored(ctx)? else { return Ok(Vec::new()) };
    let mut facts = Vec::new();
    for id in OTHERS {
        for value in VALUES {
            let result = machine[0].set_reg64(id, value);
            let now = machine[0].reg64(id)?;
            facts.push(fact(format_args!("{id} given {value:#x} reads {now:#x}"), result));
        }
    }
    Ok(facts)
}

/// What both registers of a pair read when one of them was given a value: after all bits
/// were set, and after none were.
fn counters(ctx: &Ctx<'_>) -> anyhow::Result<Vec<String>> {
    let Some(machine) = monitored(ctx)? else { return Ok(Vec::new()) };
    let mut facts = Vec::new();
    for pair @ [set, clear] in PAIRS {
        for (id, before) in [(set, u64::MAX), (set, 0), (clear, u64::MAX), (clear, 0)] {
            for value in VALUES {
                // One of the two clears, whatever the other one does.
                machine[0].set_reg64(clear, u64::MAX)?;
                machine[0].set_reg64(set, 0)?;
                machine[0].set_reg64(set, before)?;
                let result = machine[0].set_reg64(id, value);
                let [ones, zeros] = [machine[0].reg64(pair[0])?, machine[0].reg64(pair[1])?];
                let line = format_args!(
                    "{set} = {before:#x}, {id} = {value:#x}: {ones:#x} and {zeros:#x}"
                );
                facts.push(fact(line, result));
            }
        }
    }
    Ok(facts)
}
