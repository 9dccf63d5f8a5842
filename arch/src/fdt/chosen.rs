//! `/chosen`: what the firmware tells the kernel (Linux,
//! Documentation/devicetree/bindings/chosen.txt).

use vm_fdt::FdtWriter;

use super::{Machine, Written, devices, node};

pub(super) fn write(fdt: &mut FdtWriter, machine: &Machine) -> Written {
    node(fdt, "chosen", |fdt| {
        fdt.property_string("bootargs", &machine.cmdline)?;
        if let Some(initrd) = machine.initrd {
            fdt.property_u64("linux,initrd-start", initrd.start.0)?;
            fdt.property_u64("linux,initrd-end", initrd.end())?;
        }
        if let Some(seed) = machine.rng_seed {
            fdt.property("rng-seed", &seed)?;
        }
        if let Some(seed) = machine.kaslr_seed {
            fdt.property_u64("kaslr-seed", seed)?;
        }
        let stdout = machine.devices.iter().find(|device| Some(device.address) == machine.stdout);
        if let Some(device) = stdout {
            fdt.property_string("stdout-path", &format!("/{}", devices::name(device)))?;
        }
        Ok(())
    })
}
