//! The fields of ID registers (Arm DDI 0487, D24.2; of AArch32, G8.2): their names, and
//! which of two values promises a guest less.
//!
//! What a host *takes* is found by trial ([`crate::FoundField`]); a rule only orders the
//! values, as Linux does to make CPUs of one system look alike
//! (arch/arm64/kernel/cpufeature.c), and as KVM does where it differs
//! (arch/arm64/kvm/sys_regs.c, `kvm_arm64_ftr_safe_value`).

mod aarch32;
mod aarch64;
mod blocks;
mod cache;

use kedge_ids::RegId;

pub(crate) use blocks::{Block, blocks};
pub(crate) use cache::is_there;

use crate::probe;

/// Some bits of an ID register that mean one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in the Arm manual; of bits that have none, empty.
    pub name: &'static str,
    /// Its lowest bit.
    pub shift: u32,
    /// How many bits it has.
    pub width: u32,
    /// Which of two values promises less.
    pub rule: Rule,
}

/// Which of two values of a field promises a guest less, so that a guest that was
/// promised it is safe on both hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The lower number.
    Lower,
    /// The lower number in two's complement: the highest bit says "not implemented".
    SignedLower,
    /// The higher number.
    Higher,
    /// The higher number, but zero, "unknown", promises nothing at all.
    HigherOrZero,
    /// None of two different ones; this value promises less than any other.
    ExactOr(u64),
    /// None: it describes, and whoever believes it is safe with either.
    Description,
    /// It follows a device of the machine, and is not promised by itself.
    Machine,
}

impl Rule {
    /// The place of `value`, of a field of `width` bits, in the order of the rule: what
    /// promises more has the higher place.
    pub fn place(self, value: u64, width: u32) -> i128 {
        let number = i128::from(value);
        let sign = 1 << (width - 1);
        match self {
            Self::SignedLower if value & sign != 0 => number - i128::from(sign) * 2,
            Self::Lower | Self::SignedLower => number,
            Self::HigherOrZero if value == 0 => i128::MIN,
            Self::Higher | Self::HigherOrZero => -number,
            Self::ExactOr(safe) => i128::from(value != safe),
            Self::Description | Self::Machine => 0,
        }
    }
}

impl Field {
    /// Its bits in the register.
    pub const fn mask(&self) -> u64 {
        (u64::MAX >> (u64::BITS - self.width)) << self.shift
    }

    /// Its value in `register`.
    pub const fn of(&self, register: u64) -> u64 {
        (register & self.mask()) >> self.shift
    }

    /// Its name, or its bits where it has none.
    pub fn title(&self) -> String {
        let last = self.shift + self.width - 1;
        match self.name {
            "" => format!("bits {last}:{}", self.shift),
            name => name.to_owned(),
        }
    }

    /// Unsigned, four bits: the usual one.
    const fn low(name: &'static str, shift: u32) -> Self {
        Self { name, shift, width: 4, rule: Rule::Lower }
    }

    const fn signed(name: &'static str, shift: u32) -> Self {
        Self { rule: Rule::SignedLower, ..Self::low(name, shift) }
    }

    const fn exact(name: &'static str, shift: u32, safe: u64) -> Self {
        Self { rule: Rule::ExactOr(safe), ..Self::low(name, shift) }
    }

    const fn machine(name: &'static str, shift: u32) -> Self {
        Self { rule: Rule::Machine, ..Self::low(name, shift) }
    }

    const fn wide(name: &'static str, shift: u32, width: u32) -> Self {
        Self { width, ..Self::low(name, shift) }
    }
}

/// The fields of an ID register, by position. Of one that this release does not know,
/// fields of four bits in which zero means "not implemented", as in all of them.
pub fn of(register: RegId) -> &'static [Field] {
    let tables = [aarch64::TABLE, aarch32::TABLE, cache::TABLE];
    if probe::cache(register).is_some() {
        return cache::SIZE;
    }
    let mut rows = tables.into_iter().flatten();
    rows.find(|(id, _)| *id == register).map_or(UNKNOWN, |(_, fields)| *fields)
}

/// The fields of a register that is not in the tables.
const UNKNOWN: &[Field] = &{
    let mut fields = [Field::exact("", 0, 0); 16];
    let mut shift = 0;
    let mut rest: &mut [Field] = &mut fields;
    while let Some((field, others)) = rest.split_first_mut() {
        field.shift = shift;
        shift += 4;
        rest = others;
    }
    fields
};

/// How `found` differs from `wanted`, field by field: `DebugVer is 0x8, not 0x6`.
pub fn explain(register: RegId, wanted: u64, found: u64) -> Vec<String> {
    let differs = |field: &Field| field.of(wanted) != field.of(found);
    let phrase = |field: Field| {
        let (title, found, wanted) = (field.title(), field.of(found), field.of(wanted));
        format!("{title} is {found:#x}, not {wanted:#x}")
    };
    blocks(register)
        .into_iter()
        .flat_map(|block| block.fields)
        .filter(differs)
        .map(phrase)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DFR0: RegId = RegId::system(3, 0, 0, 5, 0);

    fn tables() -> impl Iterator<Item = &'static (RegId, &'static [Field])> {
        [aarch64::TABLE, aarch32::TABLE, cache::TABLE].into_iter().flatten()
    }

    fn place(name: &str, register: RegId, value: u64) -> i128 {
        let field = of(register).iter().find(|field| field.name == name).unwrap();
        field.rule.place(value, field.width)
    }

    #[test]
    fn fields_stand_by_position_and_do_not_overlap() {
        for (register, fields) in tables() {
            let ends = fields.windows(2).all(|two| two[0].shift + two[0].width <= two[1].shift);
            assert!(ends, "{register}");
            assert!(fields.iter().all(|field| field.shift + field.width <= u64::BITS));
        }
    }

    #[test]
    fn no_register_is_there_twice_and_no_name_twice_in_one() {
        let mut seen = BTreeSet::new();
        assert!(tables().all(|(register, _)| seen.insert(*register)));
        for (register, fields) in tables() {
            let names: BTreeSet<_> = fields.iter().map(|field| field.name).collect();
            assert_eq!(names.len(), fields.len(), "{register}");
        }
    }

    #[test]
    fn an_unknown_register_has_sixteen_fields_in_which_zero_is_nothing() {
        let fields = of(RegId::system(3, 0, 0, 7, 7));
        assert_eq!(fields.len(), 16);
        assert!(fields.iter().all(|field| field.rule == Rule::ExactOr(0)));
        assert_eq!(fields[15].title(), "bits 63:60");
    }

    #[test]
    fn a_field_with_a_sign_is_not_implemented_at_the_highest_number() {
        let tgran4 = |value| place("TGran4", RegId::system(3, 0, 0, 7, 0), value);
        assert!(tgran4(0xf) < tgran4(0) && tgran4(0) < tgran4(1));
        assert!(place("DoubleLock", DFR0, 0xf) < place("DoubleLock", DFR0, 0));
        assert!(place("PMUVer", DFR0, 0xf) < place("PMUVer", DFR0, 0));
    }

    #[test]
    fn a_granule_of_which_the_cache_knows_nothing_promises_nothing() {
        let cwg = |value| place("CWG", RegId::system(3, 3, 0, 0, 1), value);
        assert!(cwg(0) < cwg(9) && cwg(9) < cwg(4));
    }

    #[test]
    fn a_cache_is_there_by_its_level_and_by_what_it_holds() {
        let caches = |clidr| (0..16).filter(|cache| is_there(clidr, *cache)).collect::<Vec<_>>();
        assert_eq!(caches(0x8200_0023), [0, 1, 2]);
        assert_eq!(caches(0x0200_0021), [1, 2]);
        assert_eq!(caches(0), [0; 0]);
    }

    #[test]
    fn a_caches_size_is_one_description() {
        let blocks = blocks(RegId(0x6020_0000_0011_0001));
        assert_eq!(blocks.len(), 1);
        assert_eq!(blocks[0].title(), "LineSize, Associativity, NumSets");
    }

    #[test]
    fn two_ways_to_sign_pointers_cannot_be_compared() {
        let apa = |value| place("APA", RegId::system(3, 0, 0, 6, 1), value);
        assert!(apa(0) < apa(1));
        assert_eq!(apa(1), apa(2));
    }

    #[test]
    fn no_cpu_promises_more_by_its_name_than_another() {
        let names = [(0, 0, 0), (0, 0, 6), (1, 0, 7)];
        for (op1, crm, op2) in names {
            let register = RegId::system(3, op1, 0, crm, op2);
            assert!(of(register).iter().all(|field| field.rule == Rule::Description), "{register}");
        }
    }

    #[test]
    fn a_difference_is_told_by_field() {
        let told = explain(DFR0, 0x1030_5006, 0x1030_5408);
        assert_eq!(told, ["DebugVer is 0x8, not 0x6", "PMUVer is 0x4, not 0x0"]);
        assert_eq!(explain(DFR0, 0x6, 0x6), [""; 0]);
    }

    #[test]
    fn bits_without_a_name_are_told_by_position() {
        let told = explain(RegId::system(3, 0, 0, 7, 4), 0, 1);
        assert_eq!(told, ["bits 3:0 is 0x1, not 0x0"]);
    }
}
