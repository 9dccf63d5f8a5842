//! Properties of the flattened device tree (Devicetree Specification 0.4,
//! chapter 5).

// UNSAFETY: the tree lies where a register says.
#![expect(unsafe_code)]

use core::{slice, str};

/// The first word of every tree.
pub const MAGIC: u32 = 0xd00d_feed;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;

/// A device tree in memory.
#[derive(Clone, Copy, Debug)]
pub struct DeviceTree {
    bytes: &'static [u8],
}

/// A property and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// The name of the node around its node, empty for the root's children.
    pub parent: &'static str,
    /// Its node's name, empty for the root.
    pub node: &'static str,
    /// Its own name.
    pub name: &'static str,
    /// Its value.
    pub value: &'static [u8],
}

impl Property {
    /// The value as text, without the zero at the end.
    #[must_use]
    pub fn text(&self) -> &'static str {
        str::from_utf8(self.value).unwrap_or("").trim_end_matches('\0')
    }

    /// The value as a number of one or two cells.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.value.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }
}

impl DeviceTree {
    /// The tree that a machine left at `address`, where there is one.
    #[must_use]
    pub fn at(address: u64) -> Option<Self> {
        let start = usize::try_from(address).ok()? as *const u8;
        // SAFETY: a tree lies outside the guest's image and stack, and nobody writes
        // to it.
        let header = unsafe { slice::from_raw_parts(start, 8) };
        if word(header, 0)? != MAGIC {
            return None;
        }
        let size = usize::try_from(word(header, 4)?).ok()?;
        // SAFETY: as above, for as long as the tree says that it is.
        Some(Self { bytes: unsafe { slice::from_raw_parts(start, size) } })
    }

    /// The kernel's command line.
    #[must_use]
    pub fn bootargs(self) -> &'static str {
        self.find(|property| property.node == "chosen" && property.name == "bootargs")
            .map_or("", |property| property.text())
    }

    /// The first property that `wanted` says is the one.
    pub fn find(self, mut wanted: impl FnMut(&Property) -> bool) -> Option<Property> {
        let mut found = None;
        self.each(|property| {
            if found.is_none() && wanted(&property) {
                found = Some(property);
            }
        });
        found
    }

    /// Shows `visit` every property, in the tree's order.
    pub fn each(self, visit: impl FnMut(Property)) {
        // A tree that breaks off is read as far as it goes.
        let _ = self.walk(visit);
    }

    fn walk(self, mut visit: impl FnMut(Property)) -> Option<()> {
        let structure = usize::try_from(word(self.bytes, 8)?).ok()?;
        let strings = usize::try_from(word(self.bytes, 12)?).ok()?;
        let mut path = [""; 8];
        let (mut at, mut depth) = (structure, 0_usize);
        loop {
            let token = word(self.bytes, at)?;
            at += 4;
            match token {
                BEGIN_NODE => {
                    let name = self.text(at)?;
                    *path.get_mut(depth)? = name;
                    depth += 1;
                    at = (at + name.len() + 1).next_multiple_of(4);
                }
                END_NODE => depth = depth.checked_sub(1)?,
                PROPERTY => {
                    let length = usize::try_from(word(self.bytes, at)?).ok()?;
                    let name = usize::try_from(word(self.bytes, at + 4)?).ok()?;
                    let parent = depth.checked_sub(2).map_or("", |above| path[above]);
                    visit(Property {
                        parent,
                        node: path.get(depth.checked_sub(1)?)?,
                        name: self.text(strings + name)?,
                        value: self.bytes.get(at + 8..at + 8 + length)?,
                    });
                    at = (at + 8 + length).next_multiple_of(4);
                }
                NOP => {}
                _ => return Some(()),
            }
        }
    }

    fn text(self, at: usize) -> Option<&'static str> {
        let rest = self.bytes.get(at..)?;
        let length = rest.iter().position(|&byte| byte == 0)?;
        str::from_utf8(rest.get(..length)?).ok()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}
