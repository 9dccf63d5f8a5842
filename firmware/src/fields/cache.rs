//! Fields of the registers that describe caches and tell one CPU from another.

use kedge_ids::RegId;

use super::{Field, Rule};

type Row = (RegId, &'static [Field]);

const fn cache_type(name: &'static str, shift: u32, width: u32) -> Field {
    Field { rule: Rule::Description, ..Field::wide(name, shift, width) }
}

const fn granule(name: &'static str, shift: u32) -> Field {
    Field { rule: Rule::HigherOrZero, ..Field::low(name, shift) }
}

/// A guest cleans its caches by CTR_EL0, which is exact; CLIDR_EL1 is read by those that
/// show the caches to people, and may have been made up (Linux 6.3).
#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    (RegId::system(3, 0, 0, 0, 0), &[ // MIDR_EL1
        cache_type("Revision", 0, 4), cache_type("PartNum", 4, 12),
        cache_type("Architecture", 16, 4), cache_type("Variant", 20, 4),
        cache_type("Implementer", 24, 8),
    ]),
    (RegId::system(3, 1, 0, 0, 1), &[ // CLIDR_EL1
        cache_type("Ctype1", 0, 3), cache_type("Ctype2", 3, 3), cache_type("Ctype3", 6, 3),
        cache_type("Ctype4", 9, 3), cache_type("Ctype5", 12, 3), cache_type("Ctype6", 15, 3),
        cache_type("Ctype7", 18, 3), cache_type("LoUIS", 21, 3), cache_type("LoC", 24, 3),
        cache_type("LoUU", 27, 3), cache_type("ICB", 30, 3), cache_type("Ttype1", 33, 2),
        cache_type("Ttype2", 35, 2), cache_type("Ttype3", 37, 2), cache_type("Ttype4", 39, 2),
        cache_type("Ttype5", 41, 2), cache_type("Ttype6", 43, 2), cache_type("Ttype7", 45, 2),
    ]),
    (RegId::system(3, 3, 0, 0, 1), &[ // CTR_EL0
        Field::low("IminLine", 0),
        Field { rule: Rule::ExactOr(0b10), ..Field::wide("L1Ip", 14, 2) },
        Field::low("DminLine", 16), granule("ERG", 20), granule("CWG", 24),
        Field::wide("IDC", 28, 1), Field::wide("DIC", 29, 1), Field::wide("TminLine", 32, 6),
    ]),
];
