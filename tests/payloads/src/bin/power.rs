//! Does to its machine's power what the command line says.
#![no_std]
#![no_main]
// UNSAFETY: a guest that crashes does so on purpose.
#![expect(unsafe_code)]

use core::arch::asm;

use kedge_payloads::devicetree::DeviceTree;
use kedge_payloads::mmio::{load32, store32};
use kedge_payloads::psci::{self, call, function, wait};
use kedge_payloads::start::{Boot, secondary};
use kedge_payloads::{gic, guest, println};

guest!(main);

const RTC: u64 = 0x4000_1000;
const RTC_DATA: u64 = RTC;
const RTC_MATCH: u64 = RTC + 0x4;
const RTC_MASK: u64 = RTC + 0x10;
const RTC_INTID: u64 = 33;
/// A type that PSCI leaves to vendors.
const VENDOR_RESET: u64 = 0x8000_0001;
const HIBERNATE_OFF: u64 = 1;

fn main(boot: &Boot) {
    let Some(tree) = DeviceTree::at(boot.x0) else {
        println!("POWER no device tree at {:#x}", boot.x0);
        return;
    };
    let word = tree.bootargs();
    println!("POWER {word}");
    let answer = match word {
        "off" => call(function::SYSTEM_OFF, [0; 3]),
        "reset" => call(function::SYSTEM_RESET, [0; 3]),
        "reset2" => call(function::SYSTEM_RESET2, [VENDOR_RESET, 7, 0]),
        "off2" => call(function::SYSTEM_OFF2, [HIBERNATE_OFF, 0, 0]),
        "suspend" => suspend(tree),
        "idle" => wait(),
        "spin" => loop {
            core::hint::spin_loop();
        },
        "crash" => crash(),
        "panic" => panic_like_linux(),
        "panic-and-reset" => {
            panic_like_linux();
            call(function::SYSTEM_RESET, [0; 3])
        }
        _ => {
            println!("POWER no such word");
            0
        }
    };
    println!("POWER answer {answer}");
}

/// Sleeps until the clock's alarm, set to the next second but one.
fn suspend(tree: DeviceTree) -> i64 {
    gic::let_through(RTC_INTID, tree);
    let now = load32(RTC_DATA);
    store32(RTC_MATCH, now + 2);
    store32(RTC_MASK, 1);
    let top = 0x8070_0000_u64;
    // SAFETY: memory that is neither ours nor anybody's.
    unsafe { (top as *mut [u64; 2]).write_volatile([woken as *const () as u64, u64::from(now)]) };
    let entry = secondary as *const () as u64;
    call(function::SYSTEM_SUSPEND, [entry, top, 0])
}

/// Runs after the sleep, with the context that was left.
extern "C" fn woken(context: &[u64; 2]) -> ! {
    let slept = u64::from(load32(RTC_DATA)) - context[1];
    println!("POWER woke after {slept} s");
    psci::off()
}

/// An exception whose handler cannot be reached, for ever.
fn crash() -> ! {
    // SAFETY: none of it is meant to work.
    unsafe { asm!("msr vbar_el1, xzr", "isb", "udf #0", options(noreturn)) }
}

fn panic_like_linux() -> i64 {
    println!("[    0.000000] Kernel panic - not syncing: asked to");
    println!("[    0.000000] ---[ end Kernel panic - not syncing: asked to ]---");
    0
}
