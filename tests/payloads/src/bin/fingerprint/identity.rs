//! What the processor says of itself (Arm DDI 0487, D24.2).

// UNSAFETY: registers are read by instructions, some of which no processor has.
#![expect(unsafe_code)]

use core::arch::{asm, naked_asm};
use core::fmt::Write;

use kedge_payloads::fault::expect;

/// The names of the registers with op0 = 3, op1 = 0, CRn = 0, by CRm and op2; of what
/// the architecture reserves, none.
#[rustfmt::skip]
const NAMES: [[&str; 8]; 8] = [
    ["MIDR_EL1", "", "", "", "", "MPIDR_EL1", "REVIDR_EL1", ""],
    ["ID_PFR0_EL1", "ID_PFR1_EL1", "ID_DFR0_EL1", "ID_AFR0_EL1",
     "ID_MMFR0_EL1", "ID_MMFR1_EL1", "ID_MMFR2_EL1", "ID_MMFR3_EL1"],
    ["ID_ISAR0_EL1", "ID_ISAR1_EL1", "ID_ISAR2_EL1", "ID_ISAR3_EL1",
     "ID_ISAR4_EL1", "ID_ISAR5_EL1", "ID_MMFR4_EL1", "ID_ISAR6_EL1"],
    ["MVFR0_EL1", "MVFR1_EL1", "MVFR2_EL1", "", "ID_PFR2_EL1", "ID_DFR1_EL1", "ID_MMFR5_EL1", ""],
    ["ID_AA64PFR0_EL1", "ID_AA64PFR1_EL1", "ID_AA64PFR2_EL1", "",
     "ID_AA64ZFR0_EL1", "ID_AA64SMFR0_EL1", "", "ID_AA64FPFR0_EL1"],
    ["ID_AA64DFR0_EL1", "ID_AA64DFR1_EL1", "ID_AA64DFR2_EL1", "",
     "ID_AA64AFR0_EL1", "ID_AA64AFR1_EL1", "", ""],
    ["ID_AA64ISAR0_EL1", "ID_AA64ISAR1_EL1", "ID_AA64ISAR2_EL1", "ID_AA64ISAR3_EL1", "", "", "", ""],
    ["ID_AA64MMFR0_EL1", "ID_AA64MMFR1_EL1", "ID_AA64MMFR2_EL1", "ID_AA64MMFR3_EL1",
     "ID_AA64MMFR4_EL1", "", "", ""],
];
/// Of each CPU, not of the machine.
const PER_CPU: [&str; 1] = ["MPIDR_EL1"];

/// Cache levels and their types in `CLIDR_EL1`.
const LEVELS: u64 = 7;
const SEPARATE: u64 = 0b011;
const DATA: [u64; 3] = [0b010, SEPARATE, 0b100];
const INSTRUCTIONS: [u64; 2] = [0b001, SEPARATE];

/// Every register that there is or may be one day.
pub(crate) fn ask(out: &mut dyn Write) {
    for (crm, names) in NAMES.iter().enumerate() {
        for (op2, name) in names.iter().enumerate() {
            let value = Value(read(crm * 8 + op2));
            let name = if name.is_empty() { "-" } else { name };
            let end = if PER_CPU.contains(&name) { " per-cpu" } else { "" };
            let _ = writeln!(out, "id S3_0_C0_C{crm}_{op2} {name} {value}{end}");
        }
    }
    others(out);
    caches(out);
}

/// Those elsewhere. `CTR_EL0`, `DCZID_EL0`, `AIDR_EL1` and `CNTFRQ_EL0` are everywhere;
/// the others may be unknown, hence by encoding.
fn others(out: &mut dyn Write) {
    macro_rules! registers {
        ($($encoding:literal $name:literal)*) => {$({
            let mut value = 0_u64;
            // SAFETY: it reads a register, or is undefined, which is caught.
            let faults = expect(|| unsafe {
                asm!(concat!("mrs {}, ", $encoding), inout(reg) value)
            });
            let value = Value((faults.count == 0).then_some(value));
            let _ = writeln!(out, concat!("id ", $encoding, " ", $name, " {}"), value);
        })*};
    }
    registers! {
        "S3_3_C0_C0_1" "CTR_EL0"
        "S3_3_C0_C0_7" "DCZID_EL0"
        "S3_1_C0_C0_7" "AIDR_EL1"
        "S3_3_C14_C0_0" "CNTFRQ_EL0"
        "S3_1_C0_C0_4" "GMID_EL1"
        "S3_1_C0_C0_6" "SMIDR_EL1"
        "S3_0_C9_C14_6" "PMMIR_EL1"
        "S3_3_C9_C12_6" "PMCEID0_EL0"
        "S3_3_C9_C12_7" "PMCEID1_EL0"
        "S3_0_C5_C3_0" "ERRIDR_EL1"
        "S3_0_C10_C4_4" "MPAMIDR_EL1"
    }
}

/// The caches that `CLIDR_EL1` has, in the form of `CCSIDR_EL1`. Each CPU has its own,
/// and all say the same.
fn caches(out: &mut dyn Write) {
    let clidr: u64;
    // SAFETY: it reads a register that is everywhere.
    unsafe { asm!("mrs {}, clidr_el1", out(reg) clidr) };
    let _ = writeln!(out, "id S3_1_C0_C0_1 CLIDR_EL1 {clidr:#x}");
    for level in 0..LEVELS {
        let kind = clidr >> (3 * level) & 0b111;
        let sides = [(0, DATA.contains(&kind)), (1, INSTRUCTIONS.contains(&kind))];
        for (side, _) in sides.into_iter().filter(|(_, there)| *there) {
            let ccsidr: u64;
            // SAFETY: which cache the register is about matters to nobody else.
            unsafe {
                asm!(
                    "msr csselr_el1, {cache}",
                    "isb",
                    "mrs {ccsidr}, ccsidr_el1",
                    cache = in(reg) level << 1 | side,
                    ccsidr = out(reg) ccsidr,
                );
            }
            let _ = writeln!(out, "id cache {level} {side} CCSIDR_EL1 {ccsidr:#x}");
        }
    }
}

/// The register with the number CRm * 8 + op2; nothing if reading it is undefined.
fn read(number: usize) -> Option<u64> {
    let instruction = read_all as *const () as usize + number * 8;
    let mut value = 0_u64;
    let faults = expect(|| {
        // SAFETY: two instructions of the table, which change x0 only.
        unsafe {
            asm!("blr {}", in(reg) instruction, inout("x0") value, out("lr") _);
        }
    });
    (faults.count == 0).then_some(value)
}

/// For each register, two instructions that read it and return: `mrs x0, S3_0_C0_Cm_n`.
#[unsafe(naked)]
extern "C" fn read_all() {
    naked_asm!(
        ".set number, 0",
        ".rept 64",
        ".inst 0xd5380000 | (number << 5)",
        "ret",
        ".set number, number + 1",
        ".endr",
    );
}

/// What a register reads, if it can be read.
struct Value(Option<u64>);

impl core::fmt::Display for Value {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value:#x}"),
            None => f.write_str("undefined"),
        }
    }
}
