//! `/cpus`, with topology and caches, and `/psci`, which turns them on (Linux,
//! bindings/arm/cpus.yaml, bindings/cpu/cpu-topology.txt, bindings/arm/psci.yaml;
//! Devicetree Specification 0.4, 3.8 and 3.9).

use kedge_ids::Mpidr;
use vm_fdt::FdtWriter;

use super::{Machine, Written, node, phandle, strings};
use crate::PsciVersion;
use crate::cache::{Caches, Geometry, Outer};
use crate::psci::v0_1;

pub(super) fn write(fdt: &mut FdtWriter, machine: &Machine) -> Written {
    node(fdt, "cpus", |fdt| {
        // Affinity level 3 is in the upper of two cells.
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 0)?;
        let cpus = || (0_u32..).zip(&machine.cpus);
        for (index, mpidr) in cpus() {
            write_cpu(fdt, index, *mpidr, &machine.caches)?;
        }
        write_outer_caches(fdt, machine)?;
        // One cluster of equal cores: kernels before 5.18 know no `socket`.
        node(fdt, "cpu-map", |fdt| {
            node(fdt, "cluster0", |fdt| {
                cpus().try_for_each(|(index, _)| {
                    node(fdt, &format!("core{index}"), |fdt| {
                        fdt.property_u32("cpu", phandle::CPUS + index)
                    })
                })
            })
        })
    })
}

fn write_cpu(fdt: &mut FdtWriter, index: u32, mpidr: Mpidr, caches: &Caches) -> Written {
    let affinity = mpidr.affinity();
    node(fdt, &format!("cpu@{affinity:x}"), |fdt| {
        fdt.property_string("device_type", "cpu")?;
        fdt.property_string("compatible", "arm,armv8")?;
        fdt.property_u64("reg", affinity)?;
        fdt.property_string("enable-method", "psci")?;
        if let Some(data) = &caches.data {
            write_geometry(fdt, "d-", data)?;
        }
        if let Some(instruction) = &caches.instruction {
            write_geometry(fdt, "i-", instruction)?;
        }
        write_next_level(fdt, caches.outer.first().map(|next| (0, next)), index)?;
        fdt.property_phandle(phandle::CPUS + index)
    })
}

/// The caches behind the first level: for each level, one for every group of
/// vCPUs as large as the host's groups are.
fn write_outer_caches(fdt: &mut FdtWriter, machine: &Machine) -> Written {
    let levels = &machine.caches.outer;
    for (depth, cache) in levels.iter().enumerate() {
        let first_cpus = (0_u32..).zip(&machine.cpus).step_by(group(cache));
        for (instance, (first_cpu, _)) in (0_u32..).zip(first_cpus) {
            node(fdt, &format!("l{}-cache{instance}", cache.level), |fdt| {
                fdt.property_string("compatible", "cache")?;
                fdt.property_u32("cache-level", cache.level)?;
                fdt.property_null("cache-unified")?;
                write_geometry(fdt, "", &cache.geometry)?;
                let next = levels.get(depth + 1).map(|next| (depth + 1, next));
                write_next_level(fdt, next, first_cpu)?;
                fdt.property_phandle(cache_phandle(depth, instance))
            })?;
        }
    }
    Ok(())
}

/// How many vCPUs share a cache.
fn group(cache: &Outer) -> usize {
    usize::try_from(cache.shared_by).unwrap_or(usize::MAX).max(1)
}

fn write_geometry(fdt: &mut FdtWriter, prefix: &str, geometry: &Geometry) -> Written {
    fdt.property_u32(&format!("{prefix}cache-size"), geometry.size)?;
    if let Some(line) = geometry.line {
        fdt.property_u32(&format!("{prefix}cache-line-size"), line)?;
    }
    if let Some(sets) = geometry.sets {
        fdt.property_u32(&format!("{prefix}cache-sets"), sets)?;
    }
    Ok(())
}

/// The cache of the level `next` that vCPU `cpu` uses.
fn write_next_level(fdt: &mut FdtWriter, next: Option<(usize, &Outer)>, cpu: u32) -> Written {
    let Some((depth, cache)) = next else { return Ok(()) };
    let instance = cpu / cache.shared_by.max(1);
    fdt.property_u32("next-level-cache", cache_phandle(depth, instance))
}

/// The handle of a cache: room for 4096 of each level.
fn cache_phandle(depth: usize, instance: u32) -> u32 {
    let depth = u32::try_from(depth).unwrap_or(u32::MAX);
    phandle::CACHES.saturating_add(depth.saturating_mul(0x1000)).saturating_add(instance)
}

/// `/psci`, in the form that `version` has in a device tree. KVM's 0.1 offers
/// neither CPU_SUSPEND nor MIGRATE, so that their ids are not named.
pub(super) fn write_psci(fdt: &mut FdtWriter, version: PsciVersion) -> Written {
    node(fdt, "psci", |fdt| {
        if version < PsciVersion::V0_2 {
            strings(fdt, "compatible", &["arm,psci"])?;
            fdt.property_u32("cpu_off", v0_1::CPU_OFF)?;
            fdt.property_u32("cpu_on", v0_1::CPU_ON)?;
        } else if version < PsciVersion::V1_0 {
            strings(fdt, "compatible", &["arm,psci-0.2"])?;
        } else {
            strings(fdt, "compatible", &["arm,psci-1.0", "arm,psci-0.2"])?;
        }
        // A guest at EL1 without an EL3 of its own calls its hypervisor.
        fdt.property_string("method", "hvc")
    })
}
