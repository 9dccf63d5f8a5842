//! Says twenty times a second what its virtual and its physical counter read, after the
//! counters' frequency, until somebody ends it.
#![no_std]
#![no_main]
// UNSAFETY: counters are read by their registers.
#![expect(unsafe_code)]

use core::arch::asm;

use kedge_payloads::start::Boot;
use kedge_payloads::{guest, println};

guest!(main);

macro_rules! read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: reading this register changes nothing.
        unsafe { asm!(concat!("isb\nmrs {}, ", $register), out(reg) value, options(nostack)) };
        value
    }};
}

fn main(_: &Boot) {
    let frequency = read!("cntfrq_el0");
    println!("COUNTERS {frequency}");
    let mut next = read!("cntvct_el0");
    loop {
        let now = read!("cntvct_el0");
        if now < next {
            continue;
        }
        next = now + frequency / 20;
        println!("COUNT {now} {}", read!("cntpct_el0"));
    }
}
