//! Makes the firmware calls of its command line, and shows what they answer in x0 to
//! x3: a word each, the function and its arguments in hexadecimal between commas, as
//! in `c3000100,5,6`. With `smc:` in front it goes by that instruction. The word
//! `stolen` shows the record of stolen time instead.
#![no_std]
#![no_main]
// UNSAFETY: a firmware call may do anything to the machine; the record of stolen time
// lies where the firmware says.
#![expect(unsafe_code)]

use core::arch::asm;

use kedge_payloads::devicetree::DeviceTree;
use kedge_payloads::start::Boot;
use kedge_payloads::{guest, println};

guest!(main);

const PV_TIME_FEATURES: u64 = 0xc500_0020;
const PV_TIME_ST: u64 = 0xc500_0021;
/// Turns of a loop that wait for time to be stolen.
const PATIENCE: u32 = 200_000;

/// x0 to x17.
type Registers = [u64; 18];

fn main(boot: &Boot) {
    let Some(tree) = DeviceTree::at(boot.x0) else { return };
    for word in tree.bootargs().split(' ').filter(|word| !word.is_empty()) {
        match word {
            "stolen" => show_stolen_time(),
            _ => make(word),
        }
    }
}

/// Makes the call of a word.
fn make(word: &str) {
    let (instruction, numbers): (fn(&mut Registers), _) = match word.strip_prefix("smc:") {
        Some(numbers) => (smc, numbers),
        None => (hvc, word),
    };
    // Recognisable where a word gives nothing.
    let mut x: Registers = core::array::from_fn(|n| 0x5a00 + n as u64);
    for (x, number) in x.iter_mut().zip(numbers.split(',')) {
        let Ok(number) = u64::from_str_radix(number, 16) else {
            return println!("CALL {word}: no number");
        };
        *x = number;
    }
    let before = x;
    instruction(&mut x);
    let rest = if x[4..] == before[4..] { "" } else { ", and another register changed" };
    println!("CALL {word}: {:#x} {:#x} {:#x} {:#x}{rest}", x[0], x[1], x[2], x[3]);
}

fn call(function: u64, argument: u64) -> u64 {
    let mut x = [0; 18];
    [x[0], x[1]] = [function, argument];
    hvc(&mut x);
    x[0]
}

/// As a guest finds it (Arm DEN0057, 3).
fn show_stolen_time() {
    let known = [PV_TIME_FEATURES, PV_TIME_ST].map(|id| call(PV_TIME_FEATURES, id).cast_signed());
    let address = call(PV_TIME_ST, 0).cast_signed();
    println!("STOLEN features {} {}", known[0], known[1]);
    if address < 0 {
        return println!("STOLEN no record: {address}");
    }
    let record = address as *const u64;
    // SAFETY: 64 bytes that the host writes and we read.
    let word = |n| unsafe { record.add(n).read_volatile() };
    println!("STOLEN record {address:#x}, revision and attributes {:#x}", word(0));
    let before = word(1);
    let mut turns = 0;
    while turns < PATIENCE && word(1) == before {
        turns += 1;
        core::hint::spin_loop();
    }
    println!("STOLEN {} went up by {}", before, word(1).wrapping_sub(before));
}

fn hvc(x: &mut Registers) {
    // SAFETY: a guest of the tests passes no addresses of Rust objects.
    unsafe {
        asm!("hvc #0", inout("x0") x[0], inout("x1") x[1], inout("x2") x[2],
        inout("x3") x[3], inout("x4") x[4], inout("x5") x[5], inout("x6") x[6],
        inout("x7") x[7], inout("x8") x[8], inout("x9") x[9], inout("x10") x[10],
        inout("x11") x[11], inout("x12") x[12], inout("x13") x[13], inout("x14") x[14],
        inout("x15") x[15], inout("x16") x[16], inout("x17") x[17])
    }
}

fn smc(x: &mut Registers) {
    // SAFETY: a guest of the tests passes no addresses of Rust objects.
    unsafe {
        asm!("smc #0", inout("x0") x[0], inout("x1") x[1], inout("x2") x[2],
        inout("x3") x[3], inout("x4") x[4], inout("x5") x[5], inout("x6") x[6],
        inout("x7") x[7], inout("x8") x[8], inout("x9") x[9], inout("x10") x[10],
        inout("x11") x[11], inout("x12") x[12], inout("x13") x[13], inout("x14") x[14],
        inout("x15") x[15], inout("x16") x[16], inout("x17") x[17])
    }
}
