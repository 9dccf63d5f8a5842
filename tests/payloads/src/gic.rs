//! Just enough of the interrupt controller that an interrupt wakes a CPU which
//! has them masked (Arm IHI 0048 and IHI 0069).

// UNSAFETY: the GICv3 CPU interface is in system registers.
#![expect(unsafe_code)]

use core::arch::asm;

use crate::devicetree::DeviceTree;
use crate::mmio::{Width, store, store32};

const DISTRIBUTOR: u64 = 0x0800_0000;
const CPU_INTERFACE: u64 = 0x0801_0000;

/// Lets the shared interrupt `intid` through to the first CPU.
pub fn let_through(intid: u64, tree: DeviceTree) {
    let bit = 1 << (intid % 32);
    let is_v3 = tree.find(|property| property.text().starts_with("arm,gic-v3")).is_some();
    if is_v3 {
        // EnableGrp1, affinity routing.
        store32(DISTRIBUTOR, 0x12);
        store32(DISTRIBUTOR + 0x80 + intid / 32 * 4, bit);
        store(DISTRIBUTOR + 0x6000 + intid * 8, Width::W8, 0);
        // SAFETY: with interrupts masked, none is taken.
        unsafe {
            asm!(
                "msr S3_0_C12_C12_5, {on}", // ICC_SRE_EL1
                "isb",
                "msr S3_0_C4_C6_0, {all}", // ICC_PMR_EL1
                "msr S3_0_C12_C12_7, {on}", // ICC_IGRPEN1_EL1
                "isb",
                on = in(reg) 1_u64,
                all = in(reg) 0xff_u64,
            );
        }
    } else {
        store32(DISTRIBUTOR, 1);
        store(DISTRIBUTOR + 0x800 + intid, Width::W1, 1);
        store32(CPU_INTERFACE + 4, 0xff);
        store32(CPU_INTERFACE, 1);
    }
    store(DISTRIBUTOR + 0x400 + intid, Width::W1, 0x80);
    store32(DISTRIBUTOR + 0x100 + intid / 32 * 4, bit);
}
