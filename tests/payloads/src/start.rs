//! From a guest's first instruction to Rust.
//!
//! Whatever a machine hands over, code then runs with the MMU on: the compiler's
//! core library makes unaligned accesses, which memory without an MMU refuses.

use core::arch::naked_asm;

/// Makes `main` the guest's program: called with a [`Boot`], and followed by a
/// power-off. The Image header comes first in the file.
#[macro_export]
macro_rules! guest {
    ($main:path) => {
        core::arch::global_asm!(
            ".section .header, \"ax\"",
            "b {start}",
            ".long 0",
            ".quad 0",
            ".quad _image_size",
            // Little-endian, 4 KiB pages, anywhere in memory.
            ".quad 0xa",
            ".quad 0, 0, 0",
            ".ascii \"ARM\\x64\"",
            ".long 0",
            start = sym $crate::start::start,
        );
        $crate::entry!($main);
    };
}

/// As [`guest!`](crate::guest), for a file without header.
#[macro_export]
macro_rules! flat_guest {
    ($main:path) => {
        core::arch::global_asm!(
            ".section .header, \"ax\"",
            "b {start}",
            start = sym $crate::start::start,
        );
        $crate::entry!($main);
    };
}

/// What `start` calls.
#[doc(hidden)]
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn guest_main(x0: u64, entered_at: u64) -> ! {
            $main(&$crate::start::Boot { x0, entered_at });
            $crate::psci::off()
        }
    };
}

/// What the machine handed over.
#[derive(Debug)]
pub struct Boot {
    /// The register x0: the address of the device tree.
    pub x0: u64,
    /// The address of the first instruction.
    pub entered_at: u64,
}

/// The first CPU's start.
#[unsafe(naked)]
pub extern "C" fn start() {
    naked_asm!(
        "mov x19, x0",
        "adrp x20, _start",
        // The tables: 512 GiB in blocks of 1 GiB, the first two of them devices'.
        "adrp x9, _tables",
        "mov x10, #0",
        "1: lsl x11, x10, #30",
        "mov x12, #0x701",
        "cmp x10, #2",
        "b.hs 2f",
        "mov x12, #0x405",
        "movk x12, #0x60, lsl #48",
        "2: orr x11, x11, x12",
        "str x11, [x9, x10, lsl #3]",
        "add x10, x10, #1",
        "cmp x10, #512",
        "b.lo 1b",
        "dsb sy",
        "bl {set_up}",
        "adrp x9, _stack",
        "mov sp, x9",
        "mov x0, x19",
        "mov x1, x20",
        "b guest_main",
        set_up = sym set_up,
    );
}

/// Another CPU's start, for `CPU_ON`: the context is the top of its stack, where
/// the function to call stands, which gets the context.
#[unsafe(naked)]
pub extern "C" fn secondary() {
    naked_asm!(
        "mov x19, x0",
        "bl {set_up}",
        "mov sp, x19",
        "mov x0, x19",
        "ldr x1, [x19]",
        "br x1",
        set_up = sym set_up,
    );
}

/// Vectors, floating point, MMU. Clobbers x9.
#[unsafe(naked)]
extern "C" fn set_up() {
    naked_asm!(
        // CPACR_EL1: FPEN and ZEN.
        "mov x9, #0x330000",
        "msr cpacr_el1, x9",
        "adrp x9, payload_vectors",
        "add x9, x9, :lo12:payload_vectors",
        "msr vbar_el1, x9",
        "msr tpidr_el1, xzr",
        // Attribute 0: normal memory, write-back. Attribute 1: device memory.
        "mov x9, #0x04ff",
        "msr mair_el1, x9",
        // 39 bits, 4 KiB granule, uncached walks of TTBR0 only, 40 bits out.
        "mov x9, #25",
        "movk x9, #0x0080, lsl #16",
        "movk x9, #0x2, lsl #32",
        "msr tcr_el1, x9",
        "adrp x9, _tables",
        "msr ttbr0_el1, x9",
        "isb",
        "tlbi vmalle1",
        "dsb sy",
        "isb",
        "mrs x9, sctlr_el1",
        "orr x9, x9, #1",
        "orr x9, x9, #4",
        "orr x9, x9, #0x1000",
        "msr sctlr_el1, x9",
        "isb",
        "ret",
    );
}
