//! A register cut into pieces that are chosen one by one: a host's trials go by four
//! bits, fields do not always.

use kedge_ids::RegId;

use super::{Field, Rule, of};

/// Bits of a register, whole fields and whole groups of four.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The lowest bit.
    pub(crate) shift: u32,
    /// How many: a multiple of four.
    pub(crate) width: u32,
    /// The fields in it, by position; bits without a name are one, too.
    pub(crate) fields: Vec<Field>,
}

impl Block {
    /// Its bits in the register.
    pub(crate) fn mask(&self) -> u64 {
        (u64::MAX >> (u64::BITS - self.width)) << self.shift
    }

    /// The places of a register's fields of this block in the order of their rules.
    pub(crate) fn places(&self, register: u64) -> Vec<i128> {
        self.fields.iter().map(|field| field.rule.place(field.of(register), field.width)).collect()
    }

    /// The fields' names.
    pub(crate) fn title(&self) -> String {
        const SHOWN: usize = 3;
        let named = self.fields.iter().filter(|field| !field.name.is_empty());
        let names: Vec<_> = named.map(Field::title).collect();
        match names.len() {
            0 => self.fields.first().map_or_else(String::new, Field::title),
            1..=SHOWN => names.join(", "),
            _ => format!("{} and others", names[..SHOWN].join(", ")),
        }
    }
}

/// The register `id` in blocks, the lowest first; they cover all of it.
pub(crate) fn blocks(id: RegId) -> Vec<Block> {
    let named = of(id);
    let end = |field: &Field| field.shift + field.width;
    if named.iter().any(|field| field.rule == Rule::Description) {
        // What describes one thing comes from one host.
        let fields = with_gaps(0, u64::BITS, named.to_vec());
        return vec![Block { shift: 0, width: u64::BITS, fields }];
    }
    let mut blocks = Vec::new();
    let mut shift = 0;
    while shift < u64::BITS {
        let mut stop = shift + 4;
        // A field that reaches over the end takes the next group in, and what is there.
        while let Some(over) =
            named.iter().find(|field| (shift..stop).contains(&field.shift) && end(field) > stop)
        {
            stop = end(over).next_multiple_of(4);
        }
        let within = named.iter().filter(|field| (shift..stop).contains(&field.shift));
        let fields = with_gaps(shift, stop, within.copied().collect());
        blocks.push(Block { shift, width: stop - shift, fields });
        shift = stop;
    }
    blocks
}

/// `fields`, and one without a name wherever there is none.
fn with_gaps(start: u32, stop: u32, fields: Vec<Field>) -> Vec<Field> {
    let gap = |shift, until: u32| {
        let unnamed = Field { name: "", shift, width: until - shift, rule: Rule::ExactOr(0) };
        (shift < until).then_some(unnamed)
    };
    let mut all = Vec::new();
    let mut at = start;
    for field in fields {
        all.extend(gap(at, field.shift));
        at = field.shift + field.width;
        all.push(field);
    }
    all.extend(gap(at, stop));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(id: RegId) -> Vec<(u32, u32, String)> {
        blocks(id).iter().map(|block| (block.shift, block.width, block.title())).collect()
    }

    #[test]
    fn a_usual_register_has_a_block_for_each_field() {
        let pfr0 = spans(RegId::system(3, 0, 0, 4, 0));
        assert_eq!(pfr0.len(), 16);
        assert_eq!(pfr0[15], (60, 4, "CSV3".to_owned()));
    }

    #[test]
    fn small_fields_share_a_block_and_a_long_one_has_several_groups() {
        let ctr = spans(RegId::system(3, 3, 0, 0, 1));
        assert!(ctr.contains(&(28, 4, "IDC, DIC".to_owned())));
        assert!(ctr.contains(&(32, 8, "TminLine".to_owned())));
    }

    #[test]
    fn a_description_is_one_block() {
        let clidr = spans(RegId::system(3, 1, 0, 0, 1));
        assert_eq!(clidr, [(0, 64, "Ctype1, Ctype2, Ctype3 and others".to_owned())]);
    }

    #[test]
    fn blocks_cover_a_register() {
        for id in (0..64).map(|n| RegId::system(3, 0, 0, n / 8, n % 8)) {
            let all = blocks(id).iter().fold(0, |all: u64, block| {
                let fields = block.fields.iter().fold(0, |all, field| all | field.mask());
                assert_eq!(fields, block.mask(), "{id}");
                all | block.mask()
            });
            assert_eq!(all, u64::MAX);
        }
    }
}
