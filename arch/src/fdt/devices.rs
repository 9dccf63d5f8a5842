//! Devices, each with the node that it describes itself by, and the clock they
//! share.

use kedge_bus::Value;
use kedge_guest_memory::GuestRange;
use vm_fdt::FdtWriter;

use super::{Machine, PlacedDevice, Written, interrupts, node, phandle, reg};

/// The reference clock of Arm's peripherals.
const CLOCK_HZ: u32 = 24_000_000;

pub(super) fn write(fdt: &mut FdtWriter, machine: &Machine) -> Written {
    if machine.devices.iter().any(wants_clock) {
        write_clock(fdt)?;
    }
    machine.devices.iter().try_for_each(|device| write_device(fdt, device))
}

/// The name of a device's node, with its unit address.
pub(super) fn name(device: &PlacedDevice) -> String {
    format!("{}@{:x}", device.node.name, device.address.0)
}

fn wants_clock(device: &PlacedDevice) -> bool {
    device.node.properties.iter().any(|(_, value)| matches!(value, Value::Clock(_)))
}

fn write_clock(fdt: &mut FdtWriter) -> Written {
    node(fdt, "apb-pclk", |fdt| {
        fdt.property_string("compatible", "fixed-clock")?;
        fdt.property_u32("#clock-cells", 0)?;
        fdt.property_u32("clock-frequency", CLOCK_HZ)?;
        fdt.property_string("clock-output-names", "clk24mhz")?;
        fdt.property_phandle(phandle::CLOCK)
    })
}

fn write_device(fdt: &mut FdtWriter, device: &PlacedDevice) -> Written {
    node(fdt, &name(device), |fdt| {
        for (name, value) in &device.node.properties {
            match value {
                Value::Empty => fdt.property_null(name),
                Value::Cells(cells) => fdt.property_array_u32(name, cells),
                Value::Strings(texts) => fdt.property_string_list(name, texts.clone()),
                Value::Clock(times) => fdt.property_array_u32(name, &vec![phandle::CLOCK; *times]),
            }?;
        }
        reg(fdt, &[GuestRange { start: device.address, size: device.size }])?;
        match device.interrupt {
            Some(spi) => fdt.property_array_u32("interrupts", &interrupts::spi(spi)),
            None => Ok(()),
        }
    })
}
