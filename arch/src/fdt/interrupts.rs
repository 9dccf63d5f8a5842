//! The interrupt controller, the timer and the performance monitors (Linux,
//! bindings/interrupt-controller/arm,gic.yaml and arm,gic-v3.yaml,
//! bindings/timer/arm,arch_timer.yaml, bindings/arm/pmu.yaml).

use kedge_guest_memory::{GuestAddress, GuestRange};
use kedge_hv::{GicConfig, GicVersion};
use kedge_ids::{Ppi, Spi, u64_from};
use vm_fdt::FdtWriter;

use super::{Machine, Timers, Written, node, phandle, reg};

/// The first cell of an interrupt.
mod kind {
    pub(super) const SPI: u32 = 0;
    pub(super) const PPI: u32 = 1;
}

/// The third cell of an interrupt.
mod flags {
    pub(super) const EDGE_RISING: u32 = 1;
    pub(super) const LEVEL_HIGH: u32 = 4;
}

/// The sizes of the controllers' frames in bytes.
mod frame {
    pub(super) const V2_DISTRIBUTOR: u64 = 0x1000;
    pub(super) const V2_CPU_INTERFACE: u64 = 0x2000;
    pub(super) const V3_DISTRIBUTOR: u64 = 0x1_0000;
    pub(super) const V3_REDISTRIBUTOR: u64 = 0x2_0000;
    pub(super) const ITS: u64 = 0x2_0000;
}

pub(super) fn write_gic(fdt: &mut FdtWriter, machine: &Machine) -> Written {
    let cpus = u64_from(machine.cpus.len());
    match machine.gic {
        GicConfig::V2 { distributor, cpu_interface, .. } => {
            let frames = [
                GuestRange { start: distributor, size: frame::V2_DISTRIBUTOR },
                GuestRange { start: cpu_interface, size: frame::V2_CPU_INTERFACE },
            ];
            write_controller(fdt, "arm,gic-400", &frames, None)
        }
        GicConfig::V3 { distributor, redistributors, its, .. } => {
            let frames = [
                GuestRange { start: distributor, size: frame::V3_DISTRIBUTOR },
                GuestRange { start: redistributors, size: cpus * frame::V3_REDISTRIBUTOR },
            ];
            write_controller(fdt, "arm,gic-v3", &frames, its)
        }
    }
}

fn write_controller(
    fdt: &mut FdtWriter,
    compatible: &str,
    frames: &[GuestRange; 2],
    its: Option<GuestAddress>,
) -> Written {
    node(fdt, &format!("interrupt-controller@{:x}", frames[0].start.0), |fdt| {
        fdt.property_string("compatible", compatible)?;
        fdt.property_null("interrupt-controller")?;
        fdt.property_u32("#interrupt-cells", 3)?;
        reg(fdt, frames)?;
        fdt.property_phandle(phandle::GIC)?;
        let Some(its) = its else { return fdt.property_u32("#address-cells", 0) };
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_null("ranges")?;
        node(fdt, &format!("msi-controller@{:x}", its.0), |fdt| {
            fdt.property_string("compatible", "arm,gic-v3-its")?;
            fdt.property_null("msi-controller")?;
            fdt.property_u32("#msi-cells", 1)?;
            reg(fdt, &[GuestRange { start: its, size: frame::ITS }])?;
            fdt.property_phandle(phandle::ITS)
        })
    })
}

pub(super) fn write_timer(fdt: &mut FdtWriter, machine: &Machine) -> Written {
    let Timers { virtual_timer, physical_timer } = machine.timers;
    let timers = [Ppi::SECURE_PHYSICAL_TIMER, physical_timer, virtual_timer, Ppi::HYPERVISOR_TIMER];
    let cells: Vec<_> = timers.into_iter().flat_map(|timer| ppi(machine, timer)).collect();
    node(fdt, "timer", |fdt| {
        fdt.property_string("compatible", "arm,armv8-timer")?;
        fdt.property_array_u32("interrupts", &cells)?;
        // It goes on counting whatever power state a vCPU is in.
        fdt.property_null("always-on")
    })
}

pub(super) fn write_pmu(fdt: &mut FdtWriter, machine: &Machine) -> Written {
    let Some(overflow) = machine.pmu else { return Ok(()) };
    node(fdt, "pmu", |fdt| {
        fdt.property_string("compatible", "arm,armv8-pmuv3")?;
        fdt.property_array_u32("interrupts", &ppi(machine, overflow))
    })
}

/// The cells of a device's interrupt.
pub(super) fn spi(spi: Spi) -> [u32; 3] {
    [kind::SPI, spi.offset(), flags::EDGE_RISING]
}

/// The cells of a level-triggered private interrupt. A GICv2's binding wants the
/// CPUs that have it, in bits 15:8.
fn ppi(machine: &Machine, ppi: Ppi) -> [u32; 3] {
    let cpus = match machine.gic.version() {
        GicVersion::V2 => (1_u32 << machine.cpus.len().min(8)) - 1,
        GicVersion::V3 => 0,
    };
    [kind::PPI, ppi.offset(), cpus << 8 | flags::LEVEL_HIGH]
}
