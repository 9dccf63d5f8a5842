//! Fields of the registers that describe caches and tell one CPU from another.

use kedge_ids::RegId;

use super::{Field, Rule};

type Row = (RegId, &'static [Field]);

const fn described(name: &'static str, shift: u32, width: u32) -> Field {
    Field { rule: Rule::Description, ..Field::wide(name, shift, width) }
}

const fn granule(name: &'static str, shift: u32) -> Field {
    Field { rule: Rule::HigherOrZero, ..Field::low(name, shift) }
}

/// All bits of a register whose maker alone knows what they mean: zero is not less.
const MAKERS_OWN: &[Field] = &[described("", 0, u64::BITS)];

/// `CCSIDR_EL1` of each cache, in the form without FEAT_CCIDX. Old CPUs have more to say in
/// the bits that have no name any more.
pub(super) const SIZE: &[Field] = &[
    described("LineSize", 0, 3),
    described("Associativity", 3, 10),
    described("NumSets", 13, 15),
    described("", 28, 36),
];

/// Whether there is the cache that `CSSELR_EL1` would select, by `CLIDR_EL1`.
pub(crate) fn is_there(clidr: u64, selected: u64) -> bool {
    const LEVELS: u64 = 7;
    let (level, instructions) = (selected >> 1, selected & 1 != 0);
    let kind = if level < LEVELS { clidr >> (3 * level) & 0b111 } else { 0 };
    // Instructions only, data only, one for each, one for both.
    match kind {
        0b001 => instructions,
        0b011 => true,
        0b010 | 0b100 => !instructions,
        _ => false,
    }
}

/// A guest cleans its caches by CTR_EL0, which is exact; CLIDR_EL1 is read by those that
/// show the caches to people, and may have been made up (Linux 6.3).
#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    (RegId::system(3, 0, 0, 0, 0), &[ // MIDR_EL1
        described("Revision", 0, 4), described("PartNum", 4, 12),
        described("Architecture", 16, 4), described("Variant", 20, 4),
        described("Implementer", 24, 8),
    ]),
    (RegId::system(3, 0, 0, 0, 6), MAKERS_OWN), // REVIDR_EL1
    (RegId::system(3, 1, 0, 0, 7), MAKERS_OWN), // AIDR_EL1
    (RegId::system(3, 1, 0, 0, 1), &[ // CLIDR_EL1
        described("Ctype1", 0, 3), described("Ctype2", 3, 3), described("Ctype3", 6, 3),
        described("Ctype4", 9, 3), described("Ctype5", 12, 3), described("Ctype6", 15, 3),
        described("Ctype7", 18, 3), described("LoUIS", 21, 3), described("LoC", 24, 3),
        described("LoUU", 27, 3), described("ICB", 30, 3), described("Ttype1", 33, 2),
        described("Ttype2", 35, 2), described("Ttype3", 37, 2), described("Ttype4", 39, 2),
        described("Ttype5", 41, 2), described("Ttype6", 43, 2), described("Ttype7", 45, 2),
    ]),
    (RegId::system(3, 3, 0, 0, 1), &[ // CTR_EL0
        Field::low("IminLine", 0),
        Field { rule: Rule::ExactOr(0b10), ..Field::wide("L1Ip", 14, 2) },
        Field::low("DminLine", 16), granule("ERG", 20), granule("CWG", 24),
        Field::wide("IDC", 28, 1), Field::wide("DIC", 29, 1), Field::wide("TminLine", 32, 6),
    ]),
];
