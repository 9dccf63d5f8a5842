//! The interrupt controller's identification: its revision is a version of
//! firmware like any other (Arm IHI 0048 and IHI 0069).

use core::fmt::Write;

use kedge_payloads::devicetree::{DeviceTree, Property};
use kedge_payloads::mmio::{Width, load};

/// A register: name, offset, width.
type Register = (&'static str, u64, Width);

const DISTRIBUTOR: [Register; 2] = [("GICD_TYPER", 0x4, Width::W4), ("GICD_IIDR", 0x8, Width::W4)];
const OF_V3: [Register; 2] = [("GICD_TYPER2", 0xc, Width::W4), ("GICD_PIDR2", 0xffe8, Width::W4)];
const REDISTRIBUTOR: [Register; 3] = [
    ("GICR_IIDR", 0x4, Width::W4),
    ("GICR_TYPER", 0x8, Width::W8),
    ("GICR_PIDR2", 0xffe8, Width::W4),
];
const CPU_INTERFACE: [Register; 1] = [("GICC_IIDR", 0xfc, Width::W4)];
const TRANSLATION: [Register; 4] = [
    ("GITS_IIDR", 0x4, Width::W4),
    ("GITS_TYPER", 0x8, Width::W8),
    ("GITS_BASER0", 0x100, Width::W8),
    ("GITS_BASER1", 0x108, Width::W8),
];

/// Every register that says what the controller is.
pub(crate) fn ask(out: &mut dyn Write, tree: DeviceTree) {
    let is_v3 = tree.find(|property| property.text().starts_with("arm,gic-v3")).is_some();
    tree.each(|property| {
        if property.name != "reg" {
            return;
        }
        if property.node.starts_with("msi-controller@") {
            show(out, base(&property, 0), &TRANSLATION);
        } else if property.node.starts_with("interrupt-controller@") {
            show(out, base(&property, 0), &DISTRIBUTOR);
            if is_v3 {
                show(out, base(&property, 0), &OF_V3);
                show(out, base(&property, 1), &REDISTRIBUTOR);
            } else {
                show(out, base(&property, 1), &CPU_INTERFACE);
            }
        }
    });
}

/// Where the range `number` of a `reg` begins.
fn base(property: &Property, number: usize) -> Option<u64> {
    property.value.get(number * 16..)?.first_chunk().map(|cells| u64::from_be_bytes(*cells))
}

fn show(out: &mut dyn Write, base: Option<u64>, registers: &[Register]) {
    let Some(base) = base else { return };
    for (name, offset, width) in registers {
        let value = load(base + offset, *width);
        let _ = writeln!(out, "firmware gic {name} {value:#x}");
    }
}
