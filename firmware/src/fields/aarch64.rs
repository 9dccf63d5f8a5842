//! Fields of the ID registers of AArch64 (Arm DDI 0487, D24.2).

use kedge_ids::RegId;

use super::{Field, Rule};

type Row = (RegId, &'static [Field]);

const fn id(crm: u64, op2: u64) -> RegId {
    RegId::system(3, 0, 0, crm, op2)
}

const fn low(name: &'static str, shift: u32) -> Field {
    Field::low(name, shift)
}

const fn signed(name: &'static str, shift: u32) -> Field {
    Field::signed(name, shift)
}

const fn exact(name: &'static str, shift: u32, safe: u64) -> Field {
    Field::exact(name, shift, safe)
}

const fn bit(name: &'static str, shift: u32) -> Field {
    Field::wide(name, shift, 1)
}

const fn byte(name: &'static str, shift: u32) -> Field {
    Field::wide(name, shift, 8)
}

const SPEC_SEI: Field = Field { rule: Rule::Higher, ..Field::low("SpecSEI", 24) };

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    (id(4, 0), &[ // ID_AA64PFR0_EL1
        low("EL0", 0), low("EL1", 4), low("EL2", 8), low("EL3", 12), signed("FP", 16),
        signed("AdvSIMD", 20), Field::machine("GIC", 24), low("RAS", 28), low("SVE", 32),
        low("SEL2", 36), low("MPAM", 40), low("AMU", 44), low("DIT", 48), low("RME", 52),
        low("CSV2", 56), low("CSV3", 60),
    ]),
    (id(4, 1), &[ // ID_AA64PFR1_EL1
        low("BT", 0), low("SSBS", 4), low("MTE", 8), low("RAS_frac", 12),
        low("MPAM_frac", 16), low("SME", 24), low("RNDR_trap", 28), low("CSV2_frac", 32),
        low("NMI", 36), signed("MTE_frac", 40), low("GCS", 44), low("THE", 48),
        low("MTEX", 52), low("DF2", 56), low("PFAR", 60),
    ]),
    (id(4, 2), &[ // ID_AA64PFR2_EL1
        low("MTEPERM", 0), low("MTESTOREONLY", 4), low("MTEFAR", 8),
        Field::machine("GCIE", 12), low("UINJ", 16), low("FPMR", 32),
    ]),
    (id(4, 4), &[ // ID_AA64ZFR0_EL1
        low("SVEver", 0), low("AES", 4), low("EltPerm", 12), low("BitPerm", 16),
        low("BF16", 20), low("B16B16", 24), low("SHA3", 32), low("SM4", 40), low("I8MM", 44),
        low("F16MM", 48), low("F32MM", 52), low("F64MM", 56),
    ]),
    (id(4, 5), &[ // ID_AA64SMFR0_EL1
        bit("SMOP4", 0), bit("STMOP", 16), bit("SFEXPA", 23), bit("AES", 24),
        bit("SBitPerm", 25), bit("SF8DP2", 28), bit("SF8DP4", 29), bit("SF8FMA", 30),
        bit("F32F32", 32), bit("BI32I32", 33), bit("B16F32", 34), bit("F16F32", 35),
        low("I8I32", 36), bit("F8F32", 40), bit("F8F16", 41), bit("F16F16", 42),
        bit("B16B16", 43), low("I16I32", 44), bit("F64F64", 48), low("I16I64", 52),
        low("SMEver", 56), bit("LUTv2", 60), bit("FA64", 63),
    ]),
    (id(4, 7), &[ // ID_AA64FPFR0_EL1
        bit("F8E4M3", 0), bit("F8E5M2", 1), bit("F8MM4", 26), bit("F8MM8", 27),
        bit("F8DP2", 28), bit("F8DP4", 29), bit("F8FMA", 30), bit("F8CVT", 31),
    ]),
    (id(5, 0), &[ // ID_AA64DFR0_EL1
        low("DebugVer", 0), low("TraceVer", 4), signed("PMUVer", 8), low("BRPs", 12),
        low("PMSS", 16), low("WRPs", 20), low("SEBEP", 24), low("CTX_CMPs", 28),
        low("PMSVer", 32), signed("DoubleLock", 36), low("TraceFilt", 40),
        low("TraceBuffer", 44), signed("MTPMU", 48), low("BRBE", 52), low("ExtTrcBuff", 56),
        low("HPMN0", 60),
    ]),
    (id(5, 1), &[ // ID_AA64DFR1_EL1
        byte("SYSPMUID", 0), byte("BRPs", 8), byte("WRPs", 16), byte("CTX_CMPs", 24),
        low("SPMU", 32), low("PMICNTR", 36), low("ABLE", 40), low("ITE", 44), low("EBEP", 48),
        low("DPFZS", 52), byte("ABL_CMPs", 56),
    ]),
    (id(5, 2), &[ // ID_AA64DFR2_EL1
        low("STEP", 0), low("BWE", 4),
    ]),
    (id(6, 0), &[ // ID_AA64ISAR0_EL1
        low("AES", 4), low("SHA1", 8), low("SHA2", 12), low("CRC32", 16), low("Atomic", 20),
        low("TME", 24), low("RDM", 28), low("SHA3", 32), low("SM3", 36), low("SM4", 40),
        low("DP", 44), low("FHM", 48), low("TS", 52), low("TLB", 56), low("RNDR", 60),
    ]),
    (id(6, 1), &[ // ID_AA64ISAR1_EL1
        low("DPB", 0), exact("APA", 4, 0), exact("API", 8, 0), low("JSCVT", 12),
        low("FCMA", 16), low("LRCPC", 20), low("GPA", 24), low("GPI", 28), low("FRINTTS", 32),
        low("SB", 36), low("SPECRES", 40), low("BF16", 44), low("DGH", 48), low("I8MM", 52),
        low("XS", 56), low("LS64", 60),
    ]),
    (id(6, 2), &[ // ID_AA64ISAR2_EL1
        low("WFxT", 0), low("RPRES", 4), low("GPA3", 8), exact("APA3", 12, 0),
        low("MOPS", 16), low("BC", 20), low("PAC_frac", 24), low("CLRBHB", 28),
        low("SYSREG_128", 32), low("SYSINSTR_128", 36), low("PRFMSLC", 40),
        low("PCDPHINT", 44), low("RPRFM", 48), low("CSSC", 52), low("LUT", 56),
        low("ATS1A", 60),
    ]),
    (id(6, 3), &[ // ID_AA64ISAR3_EL1
        low("CPA", 0), low("FAMINMAX", 4), low("TLBIW", 8), low("PACM", 12), low("LSFE", 16),
        low("OCCMO", 20), low("LSUI", 24), low("FPRCVT", 28),
    ]),
    // TGran4 and TGran64 count from "not implemented" at 0xf; of their second stages, 0
    // refers to the first stage and 1 says "not implemented".
    (id(7, 0), &[ // ID_AA64MMFR0_EL1
        low("PARange", 0), low("ASIDBits", 4), low("BigEnd", 8), low("SNSMem", 12),
        low("BigEndEL0", 16), low("TGran16", 20), signed("TGran64", 24), signed("TGran4", 28),
        exact("TGran16_2", 32, 1), exact("TGran64_2", 36, 1), exact("TGran4_2", 40, 1),
        low("ExS", 44), low("FGT", 56), low("ECV", 60),
    ]),
    (id(7, 1), &[ // ID_AA64MMFR1_EL1
        low("HAFDBS", 0), low("VMIDBits", 4), low("VH", 8), low("HPDS", 12), low("LO", 16),
        low("PAN", 20), SPEC_SEI, low("XNX", 28), low("TWED", 32), low("ETS", 36),
        low("HCX", 40), low("AFP", 44), low("nTLBPA", 48), low("TIDCP1", 52), low("CMOW", 56),
        low("ECBHB", 60),
    ]),
    (id(7, 2), &[ // ID_AA64MMFR2_EL1
        low("CnP", 0), low("UAO", 4), low("LSM", 8), low("IESB", 12), low("VARange", 16),
        low("CCIDX", 20), low("NV", 24), low("ST", 28), low("AT", 32), low("IDS", 36),
        low("FWB", 40), low("TTL", 48), low("BBM", 52), low("EVT", 56), low("E0PD", 60),
    ]),
    (id(7, 3), &[ // ID_AA64MMFR3_EL1
        low("TCRX", 0), low("SCTLRX", 4), low("S1PIE", 8), low("S2PIE", 12), low("S1POE", 16),
        low("S2POE", 20), low("AIE", 24), low("MEC", 28), low("D128", 32), low("D128_2", 36),
        low("SNERR", 40), low("ANERR", 44), low("SDERR", 52), low("ADERR", 56),
        low("Spec_FPACC", 60),
    ]),
    (id(7, 4), &[ // ID_AA64MMFR4_EL1
        low("EIESB", 4), low("ASID2", 8), low("HACDBS", 12), low("FGWTE3", 16),
        low("NV_frac", 20), signed("E2H0", 24), low("E3DSE", 36),
    ]),
];
