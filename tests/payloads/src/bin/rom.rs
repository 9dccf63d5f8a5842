//! Read-only memory: loads from it, and stores that it must refuse.
#![no_std]
#![no_main]
// UNSAFETY: a store that a hypervisor cannot decode.
#![expect(unsafe_code)]

use core::arch::asm;

use kedge_payloads::fault::{Faults, expect};
use kedge_payloads::mmio::{Width, load, store};
use kedge_payloads::start::Boot;
use kedge_payloads::{guest, println};

guest!(main);

/// Where the machine is to have it, and its last double word.
const ROM: u64 = 0x1000_0000;
const LAST: u64 = ROM + 0xfff8;

fn main(_: &Boot) {
    show();
    for width in Width::ALL {
        tell("store", width.bytes(), ROM + 8, expect(|| store(ROM + 8, width, 0)));
    }
    // SAFETY: nothing of Rust's is there.
    let pair = expect(|| unsafe { asm!("stp xzr, xzr, [{at}]", at = in(reg) LAST - 8) });
    tell("pair", 16, LAST - 8, pair);
    show();
    println!("ROM done");
}

fn show() {
    for width in Width::ALL {
        println!("ROM load of {} bytes: {:#x}", width.bytes(), load(ROM, width));
    }
    println!("ROM last: {:#x}", load(LAST, Width::W8));
}

fn tell(what: &str, bytes: u64, address: u64, faults: Faults) {
    let Faults { count, esr, far, .. } = faults;
    // Linux 6.1 extends the sign of what it injects.
    let esr = esr & 0xffff_ffff;
    let right = if far == address { "right" } else { "wrong" };
    println!("ROM {what} of {bytes} bytes: {count} faults, esr {esr:#x}, far {right}");
}
