//! Says which optional features its CPU has, and uses them.
#![no_std]
#![no_main]
// UNSAFETY: instructions that not every CPU has.
#![expect(unsafe_code)]

use core::arch::asm;

use kedge_payloads::fault::expect;
use kedge_payloads::start::Boot;
use kedge_payloads::{guest, println};

guest!(main);

/// A field of 4 bits.
fn field(register: u64, at: u32) -> u64 {
    register >> at & 0xf
}

fn main(_: &Boot) {
    let (pfr0, isar1, isar2, dfr0): (u64, u64, u64, u64);
    // SAFETY: they only say what there is; ID_AA64ISAR2_EL1, by its encoding, reads as
    // zero where it is not known.
    unsafe {
        asm!(
            "mrs {}, id_aa64pfr0_el1",
            "mrs {}, id_aa64isar1_el1",
            "mrs {}, S3_0_C0_C6_2",
            "mrs {}, id_aa64dfr0_el1",
            out(reg) pfr0,
            out(reg) isar1,
            out(reg) isar2,
            out(reg) dfr0,
        );
    }
    let sve = field(pfr0, 32);
    // APA, API, GPA, GPI; GPA3, APA3.
    let ptrauth = [4, 8, 24, 28].map(|at| field(isar1, at)).iter().sum::<u64>()
        + field(isar2, 8)
        + field(isar2, 12);
    let pmu = field(dfr0, 8);
    println!("CPU sve {sve}");
    println!("CPU ptrauth {}", u64::from(ptrauth > 0));
    println!("CPU pmu {}", u64::from(pmu > 0 && pmu < 0xf));
    if sve > 0 {
        vectors();
    }
    if ptrauth > 0 {
        signatures();
    }
    if pmu > 0 && pmu < 0xf {
        cycles();
    }
}

fn vectors() {
    let mut bytes = 0_u64;
    let faults = expect(|| {
        // SAFETY: it writes one register. The first EL1 access lets lengths be all there
        // are (ZCR_EL1).
        unsafe {
            asm!(
                ".arch_extension sve",
                "mov {0}, #15",
                "msr S3_0_C1_C2_0, {0}",
                "isb",
                "cntb {0}",
                out(reg) bytes,
            );
        }
    });
    println!("CPU vector bytes {bytes}, {} faults", faults.count);
}

fn signatures() {
    let (mut with, mut back) = (0x8000_0000_u64, 0_u64);
    let faults = expect(|| {
        // SAFETY: keys of the guest's own, used for one number.
        unsafe {
            asm!(
                ".arch_extension pauth",
                "msr S3_0_C2_C1_0, {key}", // APIAKeyLo_EL1
                "msr S3_0_C2_C1_1, {key}", // APIAKeyHi_EL1
                "mrs {back}, sctlr_el1",
                "orr {back}, {back}, #(1 << 31)", // EnIA
                "msr sctlr_el1, {back}",
                "isb",
                "pacia {with}, {key}",
                "mov {back}, {with}",
                "autia {back}, {key}",
                key = in(reg) 0x0123_4567_89ab_cdef_u64,
                with = inout(reg) with,
                back = out(reg) back,
            );
        }
    });
    let works = faults.count == 0 && with != 0x8000_0000 && back == 0x8000_0000;
    println!("CPU {}", if works { "signs pointers" } else { "does not sign pointers" });
}

fn cycles() {
    let (before, after): (u64, u64);
    // SAFETY: counters of the guest's own.
    unsafe {
        asm!(
            "msr pmccfiltr_el0, xzr",
            "msr pmcntenset_el0, {all}",
            "msr pmcr_el0, {on}",
            "isb",
            "mrs {before}, pmccntr_el0",
            "mov {after}, #10000",
            "1: subs {after}, {after}, #1",
            "b.ne 1b",
            "isb",
            "mrs {after}, pmccntr_el0",
            all = in(reg) 1_u64 << 31,
            // E, C, LC.
            on = in(reg) 0b100_0101_u64,
            before = out(reg) before,
            after = out(reg) after,
        );
    }
    println!("CPU {}", if after > before { "counts cycles" } else { "counts no cycles" });
}
