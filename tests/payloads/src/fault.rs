//! Exceptions: an access that is expected to abort is recorded and skipped, and so is
//! an SError that is expected; any other exception ends the guest with a line that says
//! which.

// UNSAFETY: the record of an expected fault is known to the vectors by a system
// register.
#![expect(unsafe_code)]

use core::arch::{asm, global_asm};
use core::ptr;

use crate::{println, psci};

/// What the vectors recorded, at the offsets they know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Faults {
    /// How many there were.
    pub count: u64,
    /// `ESR_EL1` of the last.
    pub esr: u64,
    /// `FAR_EL1` of the last.
    pub far: u64,
    /// `ELR_EL1` of the last: the instruction's address.
    pub elr: u64,
}

/// Runs `access`, skipping each of its instructions that faults, and going on behind
/// each SError.
pub fn expect(access: impl FnOnce()) -> Faults {
    let mut faults = Faults::default();
    let record = &raw mut faults;
    // SAFETY: the vectors write to the record until the register is cleared below,
    // before the record goes.
    unsafe { asm!("msr tpidr_el1, {}", in(reg) record) };
    access();
    // SAFETY: without a record, the vectors end the guest.
    unsafe { asm!("msr tpidr_el1, xzr") };
    // SAFETY: the record is ours and alive; the vectors wrote to it unseen.
    unsafe { ptr::read_volatile(record) }
}

/// Ends the guest for an exception at vector `index`.
extern "C" fn unexpected(index: u64, esr: u64, far: u64, elr: u64) -> ! {
    println!("PAYLOAD-EXCEPTION vector={index} esr={esr:#x} far={far:#x} elr={elr:#x}");
    psci::off()
}

global_asm!(
    ".section .text.vectors, \"ax\"",
    ".balign 2048",
    ".global payload_vectors",
    "payload_vectors:",
    ".set index, 0",
    ".rept 16",
    ".balign 128",
    ".if index == 4",
    "b 1f",
    ".elseif index == 7",
    "b 4f",
    ".else",
    "mov x0, #index",
    "b 2f",
    ".endif",
    ".set index, index + 1",
    ".endr",
    // Synchronous, from EL1 itself.
    "1:",
    "stp x0, x1, [sp, #-16]!",
    "mrs x0, tpidr_el1",
    "cbz x0, 3f",
    "ldr x1, [x0]",
    "add x1, x1, #1",
    "str x1, [x0]",
    "mrs x1, esr_el1",
    "str x1, [x0, #8]",
    "mrs x1, far_el1",
    "str x1, [x0, #16]",
    "mrs x1, elr_el1",
    "str x1, [x0, #24]",
    "add x1, x1, #4",
    "msr elr_el1, x1",
    "ldp x0, x1, [sp], #16",
    "eret",
    // SError, from EL1 itself: behind no instruction in particular.
    "4:",
    "stp x0, x1, [sp, #-16]!",
    "mrs x0, tpidr_el1",
    "cbz x0, 5f",
    "ldr x1, [x0]",
    "add x1, x1, #1",
    "str x1, [x0]",
    "mrs x1, esr_el1",
    "str x1, [x0, #8]",
    "ldp x0, x1, [sp], #16",
    "eret",
    "5: mov x0, #7",
    "b 2f",
    "3: mov x0, #4",
    "2: mrs x1, esr_el1",
    "mrs x2, far_el1",
    "mrs x3, elr_el1",
    "b {unexpected}",
    unexpected = sym unexpected,
);
