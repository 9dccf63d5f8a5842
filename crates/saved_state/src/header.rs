//! What stands at the head of a state file, and can be read without the rest: who
//! saved the machine where, what it is, which memory file belongs to it, and which
//! sections follow.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::{Contents, Part, SnapshotId};

/// Whose snapshot it is and where it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The release of kedge that saved it. A reader of any format finds it here.
    pub release: String,
    /// The machine's architecture, as Linux names it: "aarch64".
    pub architecture: String,
    /// The size of the host's pages in bytes.
    pub page_size: u32,
    /// The host's kernel, for people: "6.12.38".
    pub kernel: String,
    /// The host CPU's `MIDR_EL1` (Arm ARM DDI 0487, D24.2.122), for people.
    pub cpu: u64,
    /// When it was saved, in seconds since 1970.
    pub saved_at: u64,
    /// The machine's description: JSON.
    pub machine: String,
}

/// The header of a state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Whose snapshot it is.
    pub about: About,
    /// Which memory file belongs to it.
    pub memory: MemoryIdentity,
    /// The sections, in the order of the file.
    pub sections: Vec<Entry>,
}

/// A range of guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// The first address.
    pub start: u64,
    /// The length in bytes.
    pub size: u64,
}

/// One page of a memory file, to know the file by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The page's offset in the file.
    pub offset: u64,
    /// The page's CRC-32 (IEEE 802.3).
    pub crc: u32,
}

/// The memory file that belongs to a state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryIdentity {
    /// The snapshot's id.
    pub id: SnapshotId,
    /// The snapshot whose memory it changes, for a difference: it holds only what was
    /// written since.
    pub base: Option<SnapshotId>,
    /// The file's length in bytes: exactly the guest's memory.
    pub length: u64,
    /// What guest memory the file holds, one region after the other.
    pub regions: Vec<Region>,
    /// Pages of it.
    pub samples: Vec<Sample>,
}

/// Whether a reader can do without a section that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// It cannot: the machine would not be the one that was saved.
    Required,
    /// It can.
    Optional,
}

/// A section, as the header lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// [`Part::kind`].
    pub kind: String,
    /// Which one, where a machine can have several of a kind: a disk's name. Empty
    /// for what there is one of.
    pub instance: String,
    /// [`Part::version`].
    pub version: u16,
    /// Whether a reader has to know it.
    pub need: Need,
    /// Where it begins, in bytes from the header's end.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Its CRC-32 (IEEE 802.3).
    pub checksum: u32,
}

/// A part in its place in a state file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Which one, where a machine can have several of a kind: a disk's name. Empty
    /// for what there is one of.
    pub instance: String,
    /// Whether a reader has to know it.
    pub need: Need,
    /// The state itself.
    pub part: Part,
}

impl Section {
    /// A section that a reader has to know, of what there is one of.
    pub const fn required(part: Part) -> Self {
        Self { instance: String::new(), need: Need::Required, part }
    }

    /// A section that a reader can do without, of what there is one of.
    pub const fn optional(part: Part) -> Self {
        Self { instance: String::new(), need: Need::Optional, part }
    }

    /// The same, named.
    #[must_use]
    pub fn of(self, instance: impl Into<String>) -> Self {
        Self { instance: instance.into(), ..self }
    }
}

/// Architectures' pages: 4, 16 and 64 KiB on arm64.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 0x1000..=0x1_0000;

impl Header {
    /// What the memory file holds.
    pub fn contents(&self) -> Contents {
        self.memory.base.map_or(Contents::Full, |of| Contents::Difference { of })
    }

    /// What is wrong with it, in itself; `behind` is the length in bytes of what
    /// follows it.
    pub(crate) fn check(&self, behind: u64) -> Result<(), String> {
        let page = self.about.page_size;
        if !PAGE_SIZES.contains(&page) || !page.is_power_of_two() {
            return Err(format!("`about.page_size` is {page}, which no host has"));
        }
        self.memory.check(u64::from(page))?;
        let mut names = HashSet::new();
        let mut end = 0_u64;
        for (index, entry) in self.sections.iter().enumerate() {
            if entry.offset != end {
                return Err(format!(
                    "`sections[{index}]` begins at {}, not at {end}",
                    entry.offset
                ));
            }
            end = end.checked_add(entry.length).filter(|&end| end <= behind).ok_or_else(|| {
                format!("`sections[{index}]` of {} bytes ends past the file's end", entry.length)
            })?;
            if !names.insert((&entry.kind, &entry.instance)) {
                return Err(format!("`sections[{index}]` is a second {}", entry.name()));
            }
        }
        match behind - end {
            0 => Ok(()),
            left => Err(format!("{left} bytes follow the last section")),
        }
    }
}

impl Entry {
    /// What a message calls it.
    pub(crate) fn name(&self) -> String {
        let Self { kind, instance, .. } = self;
        if instance.is_empty() { format!("`{kind}`") } else { format!("`{kind}` ({instance})") }
    }
}

impl MemoryIdentity {
    fn check(&self, page: u64) -> Result<(), String> {
        let mut length = 0_u64;
        let mut behind = 0;
        for (index, region) in self.regions.iter().enumerate() {
            let Region { start, size } = *region;
            let whole = start.is_multiple_of(page) && size.is_multiple_of(page) && size > 0;
            let end = start.checked_add(size).filter(|_| whole && start >= behind);
            behind = end.ok_or_else(|| {
                format!("`memory.regions[{index}]` cannot be {size:#x} bytes at {start:#x}")
            })?;
            // No sum of what does not overlap exceeds 64 bits.
            length += size;
        }
        if length != self.length || length > i64::MAX.unsigned_abs() {
            return Err(format!(
                "`memory.length` is {}, and its regions have {length} bytes",
                self.length
            ));
        }
        for (index, sample) in self.samples.iter().enumerate() {
            if !sample.offset.is_multiple_of(page) || sample.offset >= length {
                return Err(format!(
                    "`memory.samples[{index}]` at {:#x} is no page of it",
                    sample.offset
                ));
            }
        }
        Ok(())
    }
}
