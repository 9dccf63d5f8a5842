//! Accesses to addresses that nobody owns, decodable and not, and accesses of
//! devices in widths they do not have.
#![no_std]
#![no_main]
// UNSAFETY: instructions that a compiler would not choose.
#![expect(unsafe_code)]

use core::arch::asm;

use kedge_payloads::fault::{Faults, expect};
use kedge_payloads::mmio::{Width, load, store};
use kedge_payloads::start::Boot;
use kedge_payloads::{guest, println, serial};

guest!(main);

/// Between the last possible device and RAM.
const NOWHERE: u64 = 0x7000_0000;
const RTC: u64 = 0x4000_1000;
const FIRST_TRANSPORT: u64 = 0x4000_3000;

fn main(_: &Boot) {
    loads_and_stores();
    aborts();
    devices();
    println!("ABORT done");
}

fn loads_and_stores() {
    for width in Width::ALL {
        let address = NOWHERE + 0x100 + width.bytes();
        let address = address & !(width.bytes() - 1);
        let value = load(address, width);
        println!("ABORT load of {} bytes from nowhere: {value:#x}", width.bytes());
        let faults = expect(|| store(address, width, 0));
        println!("ABORT store of {} bytes to nowhere: {} faults", width.bytes(), faults.count);
    }
}

/// What KVM cannot decode; each is to arrive as one external abort.
fn aborts() {
    let tell = |name: &str, address: u64, faults: Faults| {
        let Faults { count, esr, far, .. } = faults;
        // Linux 6.1 sets the upper half, reserved bits, when it injects an abort: it
        // extends the sign of a 32-bit constant.
        let esr = esr & 0xffff_ffff;
        let right = if far == address { "right" } else { "wrong" };
        println!("ABORT {name}: {count} faults, esr {esr:#x}, far {far:#x} {right}");
    };
    let at = NOWHERE + 0x1000;
    // SAFETY: nobody's memory.
    tell(
        "ldp",
        at,
        expect(|| unsafe {
            asm!("ldp {a}, {b}, [{at}]", a = out(reg) _, b = out(reg) _, at = in(reg) at)
        }),
    );
    let at = NOWHERE + 0x2010;
    // SAFETY: nobody's memory.
    tell("stp", at, expect(|| unsafe { asm!("stp xzr, xzr, [{at}]", at = in(reg) at) }));
    let at = NOWHERE + 0x3020;
    // SAFETY: nobody's memory.
    tell(
        "ldr with writeback",
        at,
        expect(|| unsafe { asm!("ldr {a}, [{at}], #8", a = out(reg) _, at = inout(reg) at => _) }),
    );
    let at = NOWHERE + 0x4030;
    // SAFETY: nobody's memory.
    tell(
        "str with writeback",
        at,
        expect(|| unsafe { asm!("str xzr, [{at}, #0]!", at = inout(reg) at => _) }),
    );
    let at = NOWHERE + 0x5040;
    // SAFETY: nobody's memory.
    tell(
        "vector load",
        at,
        expect(|| unsafe { asm!("ld1 {{v0.16b}}, [{at}]", at = in(reg) at, out("v0") _) }),
    );
    let at = serial::BASE;
    // SAFETY: a device's registers, which no Rust object is in.
    tell(
        "ldp of a device",
        at,
        expect(|| unsafe {
            asm!("ldp {a}, {b}, [{at}]", a = out(reg) _, b = out(reg) _, at = in(reg) at)
        }),
    );
}

/// Widths that do not suit: an answer, whatever it is, and no fault.
fn devices() {
    let bases = [("rtc", RTC), ("serial", serial::BASE), ("virtio", FIRST_TRANSPORT)];
    for (name, base) in bases {
        for width in Width::ALL {
            let mut value = 0;
            let faults = expect(|| value = load(base + 0x18, width));
            let bytes = width.bytes();
            println!("ABORT {name} load of {bytes} bytes: {value:#x}, {} faults", faults.count);
            let faults = expect(|| store(base + 0xff8, width, 0));
            println!("ABORT {name} store of {bytes} bytes: {} faults", faults.count);
        }
    }
}
