//! `/memory` and what is reserved in it.

use kedge_guest_memory::GuestRange;
use vm_fdt::FdtWriter;

use super::{Machine, Written, node, reg};

pub(super) fn write(fdt: &mut FdtWriter, machine: &Machine) -> Written {
    let memory = joined(&machine.memory);
    let Some(first) = memory.first() else { return Ok(()) };
    node(fdt, &format!("memory@{:x}", first.start.0), |fdt| {
        fdt.property_string("device_type", "memory")?;
        reg(fdt, &memory)
    })?;
    if machine.reserved.is_empty() {
        return Ok(());
    }
    node(fdt, "reserved-memory", |fdt| {
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_null("ranges")?;
        machine.reserved.iter().try_for_each(|range| {
            node(fdt, &format!("firmware@{:x}", range.start.0), |fdt| {
                reg(fdt, &[*range])?;
                fdt.property_null("no-map")
            })
        })
    })
}

/// `ranges`, those that touch made one: how many memory slots RAM takes is the
/// host's affair.
fn joined(ranges: &[GuestRange]) -> Vec<GuestRange> {
    let mut joined: Vec<GuestRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end() == range.start.0 => last.size += range.size,
            _ => joined.push(*range),
        }
    }
    joined
}
