//! What a guest without an operating system needs: a start, a serial port, a
//! device tree, firmware calls, and accesses of a chosen width.
//!
//! A guest is a program in `src/bin` that says `guest!(main)`. It runs at EL1 on
//! one CPU, with all memory mapped as it is, interrupts masked, and floating
//! point on. What it prints is its result; the tests read it.
#![no_std]

pub mod devicetree;
pub mod fault;
pub mod gic;
mod memory;
pub mod mmio;
pub mod psci;
pub mod serial;
pub mod smccc;
pub mod start;

use core::panic::PanicInfo;

#[panic_handler]
fn panic(panic: &PanicInfo<'_>) -> ! {
    println!("PAYLOAD-PANIC {panic}");
    psci::off()
}
