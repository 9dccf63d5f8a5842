//! Writes down what the model needs to know of a host, in the format of
//! `kedge_hv_model::Recording`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kedge_hv::{Vcpu, VcpuFeatures};
use kedge_ids::RegId;

use crate::Ctx;
use crate::ctx::PLAIN;
use crate::facts;

/// The features that change which registers there are.
const FEATURES: [(&str, VcpuFeatures); 3] =
    [("pmu", VcpuFeatures::PMU_V3), ("sve", VcpuFeatures::SVE), ("ptrauth", VcpuFeatures::PTRAUTH)];

/// A recording of this host.
///
/// # Errors
/// The hypervisor refuses something that every host can do.
pub fn recording(ctx: &Ctx<'_>) -> anyhow::Result<String> {
    let limits = ctx.limits();
    let mut text = String::new();
    writeln!(
        text,
        "limits ipa_bits={} vcpus={} slots={} features={:#x}",
        limits.ipa_bits, limits.vcpus, limits.slots, limits.features.0
    )?;
    writeln!(text, "counter {}", ctx.host_abilities().counter_hz)?;
    let plain = registers(ctx, VcpuFeatures::NONE)?;
    for (id, value) in &plain {
        writeln!(text, "plain {:x} {}", id.0, hex(value))?;
    }
    for (name, feature) in FEATURES {
        if !limits.features.contains(feature) {
            continue;
        }
        let with = registers(ctx, feature)?;
        for id in plain.keys().filter(|id| !with.contains_key(id)) {
            writeln!(text, "{name} {:x} -", id.0)?;
        }
        for (id, value) in with.iter().filter(|(id, value)| plain.get(id) != Some(value)) {
            writeln!(text, "{name} {:x} {}", id.0, hex(value))?;
        }
    }
    let lines = [facts::writable_fields(ctx)?, facts::id_masks(ctx)?, facts::untold(ctx)?];
    for line in lines.iter().flatten() {
        writeln!(text, "{line}")?;
    }
    Ok(text)
}

/// All registers of a vCPU with this feature; a clock's value is 0.
fn registers(ctx: &Ctx<'_>, feature: VcpuFeatures) -> anyhow::Result<BTreeMap<RegId, Vec<u8>>> {
    let mut machine = ctx.machine_with(1, PLAIN | feature)?;
    if feature == VcpuFeatures::SVE {
        machine[0].finalize_sve()?;
    }
    let vcpu: &dyn Vcpu = &machine[0];
    let value = |id: RegId| match vcpu.reg(id) {
        Ok(_) if facts::CLOCKS.contains(&id) => Ok((id, vec![0; 8])),
        value => value.map(|value| (id, value)),
    };
    Ok(vcpu.reg_list()?.into_iter().map(value).collect::<Result<_, _>>()?)
}

fn hex(value: &[u8]) -> String {
    let digits: String = value.iter().rev().map(|byte| format!("{byte:02x}")).collect();
    let short = digits.trim_start_matches('0');
    if short.is_empty() { "0".to_owned() } else { short.to_owned() }
}
