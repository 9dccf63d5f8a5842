//! What the processor does, by executing it: features may be there although the
//! identification hides them, or the other way round.

// UNSAFETY: instructions that not every processor has; each is caught.
#![expect(unsafe_code)]

use core::arch::asm;
use core::fmt::{self, Write};

use kedge_payloads::fault::{Faults, expect};

/// The feature's name in the Arm manual, and an instruction that only works with it.
type Instruction = (&'static str, fn());

/// A function for each feature: assembler that may change x0 to x3, v0 to v2, the
/// flags and, where it comes to it, memory that x3 points to.
macro_rules! instructions {
    ($($feature:literal: $($line:literal),+;)*) => {
        [$(($feature, {
            fn run() {
                let mut memory = [0_u64; 16];
                // SAFETY: it changes what it is said to change, or nothing.
                unsafe {
                    asm!(
                        $($line,)+
                        inout("x3") memory.as_mut_ptr() => _,
                        out("x0") _, out("x1") _, out("x2") _,
                        out("v0") _, out("v1") _, out("v2") _,
                    );
                }
            }
            run as fn()
        })),*]
    };
}

#[rustfmt::skip]
const INSTRUCTIONS: &[Instruction] = &instructions! {
    "FEAT_CRC32":    ".arch_extension crc", "crc32b w0, w1, w2";
    "FEAT_LSE":      ".arch_extension lse", "ldadd x0, x1, [x3]";
    "FEAT_LSE128":   ".arch_extension lse128", "ldclrp x0, x1, [x3]";
    "FEAT_AES":      ".arch_extension aes", "aese v0.16b, v1.16b";
    "FEAT_PMULL":    ".arch_extension aes", "pmull v0.1q, v1.1d, v2.1d";
    "FEAT_SHA1":     ".arch_extension sha2", "sha1h s0, s1";
    "FEAT_SHA256":   ".arch_extension sha2", "sha256h q0, q1, v2.4s";
    "FEAT_SHA512":   ".arch_extension sha3", "sha512h q0, q1, v2.2d";
    "FEAT_SHA3":     ".arch_extension sha3", "rax1 v0.2d, v1.2d, v2.2d";
    "FEAT_SM3":      ".arch_extension sm4", "sm3partw1 v0.4s, v1.4s, v2.4s";
    "FEAT_SM4":      ".arch_extension sm4", "sm4e v0.4s, v1.4s";
    "FEAT_RDM":      ".arch_extension rdm", "sqrdmlah v0.4s, v1.4s, v2.4s";
    "FEAT_FP16":     ".arch_extension fp16", "fadd h0, h1, h2";
    "FEAT_FHM":      ".arch_extension fp16fml", "fmlal v0.4s, v1.4h, v2.4h";
    "FEAT_DotProd":  ".arch_extension dotprod", "udot v0.4s, v1.16b, v2.16b";
    "FEAT_I8MM":     ".arch_extension i8mm", "usdot v0.4s, v1.16b, v2.16b";
    "FEAT_BF16":     ".arch_extension bf16", "bfdot v0.4s, v1.8h, v2.8h";
    "FEAT_JSCVT":    ".arch armv8.3-a", "fjcvtzs w0, d0";
    "FEAT_FCMA":     ".arch armv8.3-a", "fcadd v0.4s, v1.4s, v2.4s, #90";
    "FEAT_LRCPC":    ".arch_extension rcpc", "ldapr x0, [x3]";
    "FEAT_LRCPC2":   ".arch armv8.4-a", "ldapur x0, [x3, #8]";
    "FEAT_FlagM":    ".arch armv8.4-a", "rmif x0, #1, #2";
    "FEAT_FlagM2":   ".arch armv8.5-a", "axflag";
    "FEAT_FRINTTS":  ".arch armv8.5-a", "frint32z d0, d1";
    "FEAT_DPB":      ".arch armv8.2-a", "dc cvap, x3";
    "FEAT_DPB2":     ".arch armv8.5-a", "dc cvadp, x3";
    "FEAT_DIT":      ".arch armv8.4-a", "mrs x0, dit";
    "FEAT_PAN":      ".arch armv8.1-a", "mrs x0, pan";
    "FEAT_PAN2":     ".arch armv8.2-a", "at s1e1rp, x3";
    "FEAT_UAO":      ".arch armv8.2-a", "mrs x0, uao";
    "FEAT_SSBS2":    "mrs x0, S3_3_C4_C2_6";
    "FEAT_NMI":      "mrs x0, S3_0_C4_C3_0";
    "FEAT_EBEP":     "mrs x0, S3_0_C4_C3_1";
    "FEAT_SB":       ".arch armv8.5-a", "sb";
    "FEAT_SPECRES":  ".arch armv8.5-a", "cfp rctx, xzr";
    "FEAT_RNG":      "mrs x0, S3_3_C2_C4_0";
    "FEAT_PAuth":    ".arch armv8.3-a", "xpaci x0";
    "FEAT_PACGA":    ".arch armv8.3-a", "pacga x0, x1, x2";
    "APIAKeyLo_EL1": "mrs x0, S3_0_C2_C1_0";
    "FEAT_MTE":      ".arch_extension memtag", "irg x0, x1";
    "RGSR_EL1":      "mrs x0, S3_0_C1_C0_5";
    "FEAT_WFxT":     ".arch_extension wfxt", "wfet xzr";
    "FEAT_MOPS":     ".arch_extension mops", "mov x1, #8", "setp [x3]!, x1!, x2",
                     "setm [x3]!, x1!, x2", "sete [x3]!, x1!, x2";
    "FEAT_HBC":      ".arch_extension hbc", "bc.eq 2f", "2:";
    "FEAT_CSSC":     ".arch_extension cssc", "abs x0, x1";
    "FEAT_CPA":      ".arch_extension cpa", "addpt x0, x1, x2";
    "FEAT_XS":       ".arch_extension xs", "dsb synxs";
    "FEAT_SVE":      ".arch_extension sve", "cntb x0";
    "FEAT_SVE2":     ".arch_extension sve2", "adclb z0.s, z1.s, z2.s";
    "CNTPCT_EL0":    "mrs x0, cntpct_el0";
    "CNTP_CTL_EL0":  "mrs x0, cntp_ctl_el0";
    "FEAT_ECV":      "mrs x0, S3_3_C14_C0_6"; // CNTVCTSS_EL0
    "PMCR_EL0":      "mrs x0, pmcr_el0";
    "ICC_SRE_EL1":   "mrs x0, S3_0_C12_C12_5";
    "ICC_CTLR_EL1":  "mrs x0, S3_0_C12_C12_4";
    "DBGBVR0_EL1":   "mrs x0, S2_0_C0_C0_4";
    "OSDLR_EL1":     "mrs x0, S2_0_C1_C3_4";
    "DISR_EL1":      "mrs x0, S3_0_C12_C1_1";
    "LORC_EL1":      "mrs x0, S3_0_C10_C4_3";
    "AMCR_EL0":      "mrs x0, S3_3_C13_C2_0";
    "PMSCR_EL1":     "mrs x0, S3_0_C9_C9_0";
    "TRBLIMITR_EL1": "mrs x0, S3_0_C9_C11_0";
    "TRFCR_EL1":     "mrs x0, S3_0_C1_C2_1";
    "BRBCR_EL1":     "mrs x0, S2_1_C9_C0_0";
    "MPAM1_EL1":     "mrs x0, S3_0_C10_C5_0";
    "SCXTNUM_EL1":   "mrs x0, S3_0_C13_C0_7";
    "TCR2_EL1":      "mrs x0, S3_0_C2_C0_3";
    "SCTLR2_EL1":    "mrs x0, S3_0_C1_C0_3";
    "PIR_EL1":       "mrs x0, S3_0_C10_C2_3";
    "POR_EL1":       "mrs x0, S3_0_C10_C2_4";
    "MAIR2_EL1":     "mrs x0, S3_0_C10_C2_1";
    "FPMR":          "mrs x0, S3_3_C4_C4_2";
    "GCSCR_EL1":     "mrs x0, S3_0_C2_C5_0";
    "RCWMASK_EL1":   "mrs x0, S3_0_C13_C0_6";
    "ACCDATA_EL1":   "mrs x0, S3_0_C13_C0_5";
    "TPIDR2_EL0":    "mrs x0, S3_3_C13_C0_5";
    "ACTLR_EL1":     "mrs x0, actlr_el1";
    "HCR_EL2":       "mrs x0, S3_4_C1_C1_0";
};

/// Which instructions work, and the lengths of vectors.
pub(crate) fn ask(out: &mut dyn Write) {
    for (feature, run) in INSTRUCTIONS {
        let _ = writeln!(out, "cpu {feature} {}", Effect(expect(run)));
    }
    vectors(out);
}

/// The lengths that SVE can be set to. What is asked for is rounded down to one of them.
fn vectors(out: &mut dyn Write) {
    let mut last = 0;
    for quadwords in 1..=16_u64 {
        let mut bytes = 0_u64;
        // SAFETY: no vector is in use while the length changes.
        let faults = expect(|| unsafe {
            asm!(
                ".arch_extension sve",
                "msr S3_0_C1_C2_0, {length}", // ZCR_EL1
                "isb",
                "cntb {bytes}",
                length = in(reg) quadwords - 1,
                bytes = inout(reg) bytes,
            )
        });
        if faults.count == 0 && bytes != last {
            let _ = writeln!(out, "cpu vectors of {} bits", bytes * 8);
            last = bytes;
        }
    }
}

/// What came of an instruction.
struct Effect(Faults);

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // ESR_EL1.EC; undefined instructions have none of their own.
        match (self.0.count, self.0.esr >> 26 & 0x3f) {
            (0, _) => f.write_str("works"),
            (_, 0) => f.write_str("undefined"),
            (_, class) => write!(f, "exception class {class:#x}"),
        }
    }
}
