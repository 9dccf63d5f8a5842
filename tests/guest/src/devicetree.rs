//! What Linux does to the device tree it is given before it shows it in
//! `/sys/firmware/fdt` (drivers/of/fdt.c, `early_init_dt_scan_chosen`;
//! arch/arm64/kernel/pi/kaslr_early.c): the seeds are wiped.

use std::ops::Range;

use anyhow::Context;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;

/// `tree` as Linux leaves it: `kaslr-seed` zero, `rng-seed` overwritten by NOPs.
///
/// # Errors
/// It is no device tree.
pub(crate) fn as_linux_leaves_it(tree: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut left = tree.to_vec();
    for Property { name, whole, value } in properties(tree)? {
        match name.as_str() {
            "kaslr-seed" => left.get_mut(value).context("a value is in its tree")?.fill(0),
            "rng-seed" => {
                let words = left.get_mut(whole).context("a property is in its tree")?;
                words.chunks_mut(4).for_each(|word| word.copy_from_slice(&NOP.to_be_bytes()));
            }
            _ => {}
        }
    }
    Ok(left)
}

struct Property {
    name: String,
    /// Its bytes, from the token on.
    whole: Range<usize>,
    value: Range<usize>,
}

fn properties(tree: &[u8]) -> anyhow::Result<Vec<Property>> {
    let (structure, strings) = (word(tree, 8)?, word(tree, 12)?);
    let mut at = usize::try_from(structure)?;
    let mut found = Vec::new();
    loop {
        match word(tree, at)? {
            BEGIN_NODE => at = (at + 4 + text(tree, at + 4)?.len() + 1).next_multiple_of(4),
            END_NODE | NOP => at += 4,
            PROPERTY => {
                let value = at + 12..at + 12 + usize::try_from(word(tree, at + 4)?)?;
                let name = text(tree, usize::try_from(strings + word(tree, at + 8)?)?)?;
                let whole = at..value.end.next_multiple_of(4);
                at = whole.end;
                found.push(Property { name, whole, value });
            }
            _ => return Ok(found),
        }
    }
}

fn word(tree: &[u8], at: usize) -> anyhow::Result<u32> {
    let bytes = tree.get(at..).and_then(|rest| rest.first_chunk());
    Ok(u32::from_be_bytes(*bytes.context("the tree breaks off")?))
}

fn text(tree: &[u8], at: usize) -> anyhow::Result<String> {
    let bytes = tree.get(at..).and_then(|rest| rest.split(|&byte| byte == 0).next());
    Ok(String::from_utf8_lossy(bytes.context("the tree breaks off")?).into_owned())
}
