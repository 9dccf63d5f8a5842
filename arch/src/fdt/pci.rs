//! The host bridge of PCI (Linux, bindings/pci/host-generic-pci.yaml and pci-msi.txt; IEEE
//! 1275, PCI Bus Binding 2.1).

use kedge_guest_memory::GuestRange;
use vm_fdt::FdtWriter;

use super::{Machine, Written, node, phandle, reg};
use crate::layout::PciLayout;

/// Bytes of configuration space of a bus.
const BUS: u64 = 1 << 20;
/// Functions of a bus.
const FUNCTIONS: u64 = 256;
/// The first cell of an address: memory below 4 GiB, not prefetchable.
const MEMORY_32: u32 = 0x0200_0000;

pub(super) fn write(fdt: &mut FdtWriter, machine: &Machine) -> Written {
    let Some(PciLayout { config, window }) = machine.pci else { return Ok(()) };
    let buses = config.size / BUS;
    let [last, requesters] = [buses - 1, buses * FUNCTIONS].map(low);
    let GuestRange { start, size } = window;
    // An address of the bus is the same one of the machine.
    let start = [low(start.0 >> 32), low(start.0)];
    let ranges = [&[MEMORY_32][..], &start, &start, &[low(size >> 32), low(size)]].concat();
    node(fdt, &format!("pcie@{:x}", config.start.0), |fdt| {
        fdt.property_string("compatible", "pci-host-ecam-generic")?;
        fdt.property_string("device_type", "pci")?;
        reg(fdt, &[config])?;
        fdt.property_array_u32("bus-range", &[0, last])?;
        fdt.property_u32("linux,pci-domain", 0)?;
        fdt.property_u32("#address-cells", 3)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_array_u32("ranges", &ranges)?;
        // Who sends a message is told by bus, device and function.
        fdt.property_array_u32("msi-map", &[0, phandle::ITS, 0, requesters])?;
        fdt.property_null("dma-coherent")
    })
}

/// Bits 0 to 31.
fn low(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).expect("32 bits are left")
}
