//! Fields of the ID registers of AArch32 (Arm DDI 0487, G8.2): what a guest may run at
//! EL0, if at all.

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

const SPEC_SEI: Field = Field { rule: Rule::Higher, ..Field::low("SpecSEI", 0) };

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    (id(1, 0), &[ // ID_PFR0_EL1
        low("State0", 0), low("State1", 4), low("State2", 8), low("State3", 12),
        low("CSV2", 16), low("AMU", 20), low("DIT", 24), low("RAS", 28),
    ]),
    (id(1, 1), &[ // ID_PFR1_EL1
        low("ProgMod", 0), low("Security", 4), low("MProgMod", 8), low("Virtualization", 12),
        low("GenTimer", 16), low("Sec_frac", 20), low("Virt_frac", 24),
        Field::machine("GIC", 28),
    ]),
    (id(1, 2), &[ // ID_DFR0_EL1
        low("CopDbg", 0), low("CopSDbg", 4), low("MMapDbg", 8), low("CopTrc", 12),
        low("MMapTrc", 16), low("MProfDbg", 20), signed("PerfMon", 24), low("TraceFilt", 28),
    ]),
    (id(1, 4), &[ // ID_MMFR0_EL1
        low("VMSA", 0), low("PMSA", 4), signed("OuterShr", 8), low("ShareLvl", 12),
        low("TCM", 16), low("AuxReg", 20), low("FCSE", 24), signed("InnerShr", 28),
    ]),
    (id(1, 5), &[ // ID_MMFR1_EL1
        low("L1HvdVA", 0), low("L1UniVA", 4), low("L1HvdSW", 8), low("L1UniSW", 12),
        low("L1Hvd", 16), low("L1Uni", 20), low("L1TstCln", 24), low("BPred", 28),
    ]),
    (id(1, 6), &[ // ID_MMFR2_EL1
        low("L1HvdFG", 0), low("L1HvdBG", 4), low("L1HvdRng", 8), low("HvdTLB", 12),
        low("UniTLB", 16), low("MemBarr", 20), low("WFIStall", 24), low("HWAccFlg", 28),
    ]),
    (id(1, 7), &[ // ID_MMFR3_EL1
        low("CMaintVA", 0), low("CMaintSW", 4), low("BPMaint", 8), low("MaintBcst", 12),
        low("PAN", 16), low("CohWalk", 20), low("CMemSz", 24), signed("Supersec", 28),
    ]),
    (id(2, 0), &[ // ID_ISAR0_EL1
        low("Swap", 0), low("BitCount", 4), low("BitField", 8), low("CmpBranch", 12),
        low("Coproc", 16), low("Debug", 20), low("Divide", 24),
    ]),
    (id(2, 1), &[ // ID_ISAR1_EL1
        low("Endian", 0), low("Except", 4), low("Except_AR", 8), low("Extend", 12),
        low("IfThen", 16), low("Immediate", 20), low("Interwork", 24), low("Jazelle", 28),
    ]),
    (id(2, 2), &[ // ID_ISAR2_EL1
        low("LoadStore", 0), low("MemHint", 4), low("MultiAccessInt", 8), low("Mult", 12),
        low("MultS", 16), low("MultU", 20), low("PSR_AR", 24), low("Reversal", 28),
    ]),
    (id(2, 3), &[ // ID_ISAR3_EL1
        low("Saturate", 0), low("SIMD", 4), low("SVC", 8), low("SynchPrim", 12),
        low("TabBranch", 16), low("T32Copy", 20), low("TrueNOP", 24), low("T32EE", 28),
    ]),
    (id(2, 4), &[ // ID_ISAR4_EL1
        low("Unpriv", 0), low("WithShifts", 4), low("Writeback", 8), low("SMC", 12),
        low("Barrier", 16), low("SynchPrim_frac", 20), low("PSR_M", 24), low("SWP_frac", 28),
    ]),
    (id(2, 5), &[ // ID_ISAR5_EL1
        low("SEVL", 0), low("AES", 4), low("SHA1", 8), low("SHA2", 12), low("CRC32", 16),
        low("RDM", 24), low("VCMA", 28),
    ]),
    (id(2, 6), &[ // ID_MMFR4_EL1
        SPEC_SEI, low("AC2", 4), low("XNX", 8), low("CnP", 12), low("HPDS", 16),
        low("LSM", 20), low("CCIDX", 24), low("EVT", 28),
    ]),
    (id(2, 7), &[ // ID_ISAR6_EL1
        low("JSCVT", 0), low("DP", 4), low("FHM", 8), low("SB", 12), low("SPECRES", 16),
        low("BF16", 20), low("I8MM", 24), low("CLRBHB", 28),
    ]),
    (id(3, 0), &[ // MVFR0_EL1
        low("SIMDReg", 0), low("FPSP", 4), low("FPDP", 8), low("FPTrap", 12),
        low("FPDivide", 16), low("FPSqrt", 20), low("FPShVec", 24), low("FPRound", 28),
    ]),
    (id(3, 1), &[ // MVFR1_EL1
        low("FPFtZ", 0), low("FPDNaN", 4), low("SIMDLS", 8), low("SIMDInt", 12),
        low("SIMDSP", 16), low("SIMDHP", 20), low("FPHP", 24), low("SIMDFMAC", 28),
    ]),
    (id(3, 2), &[ // MVFR2_EL1
        low("SIMDMisc", 0), low("FPMisc", 4),
    ]),
    (id(3, 4), &[ // ID_PFR2_EL1
        low("CSV3", 0), low("SSBS", 4), low("RAS_frac", 8),
    ]),
    (id(3, 5), &[ // ID_DFR1_EL1
        signed("MTPMU", 0), low("HPMN0", 4),
    ]),
    (id(3, 6), &[ // ID_MMFR5_EL1
        low("ETS", 0), low("nTLBPA", 4),
    ]),
];
