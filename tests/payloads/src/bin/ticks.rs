//! Watches its time pass: looks at both counters again and again, and tells when one
//! was far ahead at the next look. Between two looks it reads a device's register.
#![no_std]
#![no_main]
// UNSAFETY: counters are read by instructions of their own.
#![expect(unsafe_code)]

use core::arch::asm;

use kedge_payloads::mmio::load32;
use kedge_payloads::start::Boot;
use kedge_payloads::{guest, println};

guest!(main);

const RTC_DATA: u64 = 0x4000_1000;
/// What a busy host may take from a guest.
const FAR_MS: u64 = 1500;
/// How often it says that it is there.
const BEAT_MS: u64 = 200;

#[derive(Clone, Copy)]
struct Look {
    virtual_counter: u64,
    physical_counter: u64,
}

fn look() -> Look {
    let (virtual_counter, physical_counter): (u64, u64);
    // SAFETY: reading counters changes nothing.
    unsafe {
        asm!(
            "isb", "mrs {}, cntvct_el0", "mrs {}, cntpct_el0",
            out(reg) virtual_counter, out(reg) physical_counter, options(nomem, nostack)
        );
    }
    Look { virtual_counter, physical_counter }
}

/// Ticks in a millisecond.
fn ticks_per_ms() -> u64 {
    let frequency: u64;
    // SAFETY: reading a constant changes nothing.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nomem, nostack)) };
    (frequency / 1000).max(1)
}

fn main(_: &Boot) {
    let per_ms = ticks_per_ms();
    let mut last = look();
    let mut beat = last.virtual_counter;
    println!("TICKS start");
    loop {
        // What it says is not asked for: the look at it leaves the guest.
        let _ = load32(RTC_DATA);
        let now = look();
        let gone = now.virtual_counter.wrapping_sub(last.virtual_counter) / per_ms;
        let gone_physical = now.physical_counter.wrapping_sub(last.physical_counter) / per_ms;
        if gone > FAR_MS || gone_physical > FAR_MS {
            println!("TICKS jump {gone} {gone_physical}");
        }
        last = now;
        if now.virtual_counter.wrapping_sub(beat) / per_ms > BEAT_MS {
            beat = now.virtual_counter;
            println!("TICKS beat");
        }
    }
}
