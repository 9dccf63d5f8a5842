//! Where a memory file has data: its extents, and the checksums of what they hold.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{Bytes, StateError, Versioned};

/// The extents of a memory file that hold data, in order: none overlaps or touches
/// another, and all are whole pages. What lies between is zero in a full image and
/// unchanged in a difference.
///
/// The file's own holes are no such map: a page of zeroes can be a hole or not, and
/// copying a file may dig holes or fill them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryMap {
    extents: Vec<Range<u64>>,
}

impl MemoryMap {
    /// The extents, in bytes.
    pub fn extents(&self) -> &[Range<u64>] {
        &self.extents
    }

    /// How many bytes they are.
    pub fn bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.end - extent.start).sum()
    }

    /// Adds an extent that begins behind all others or where the last one ends.
    pub(super) fn push(&mut self, extent: Range<u64>) {
        match self.extents.last_mut() {
            Some(last) if last.end == extent.start => last.end = extent.end,
            _ => self.extents.push(extent),
        }
    }

    /// What lies between the extents, and before and behind them, in `length` bytes.
    pub(super) fn gaps(&self, length: u64) -> impl Iterator<Item = Range<u64>> {
        let starts = self.extents.iter().map(|extent| extent.start).chain([length]);
        let ends = [0].into_iter().chain(self.extents.iter().map(|extent| extent.end));
        ends.zip(starts).map(|(end, start)| end..start).filter(|gap| !gap.is_empty())
    }

    /// The offset of the data page with this number, counted through all extents.
    pub(super) fn data_page(&self, number: u64, page: u64) -> Option<u64> {
        let mut before = 0;
        self.extents.iter().find_map(|extent| {
            let pages = (extent.end - extent.start) / page;
            let offset = (number < before + pages).then(|| extent.start + (number - before) * page);
            before += pages;
            offset
        })
    }

    pub(super) fn to_saved(&self, page_size: u32) -> MemoryMapV1 {
        let page = u64::from(page_size);
        let mut runs = Vec::new();
        let mut end = 0;
        for extent in &self.extents {
            put_number(&mut runs, (extent.start - end) / page);
            put_number(&mut runs, (extent.end - extent.start) / page);
            end = extent.end;
        }
        MemoryMapV1 { page_size, runs: Bytes(runs) }
    }

    /// The saved map, if it is one of `length` bytes of memory.
    pub(super) fn from_saved(saved: &MemoryMapV1, length: u64) -> Result<Self, StateError> {
        let bad = |field: &str, problem| StateError::field::<MemoryMapV1>(field, problem);
        let page = u64::from(saved.page_size);
        if !saved.page_size.is_power_of_two() {
            return Err(bad("page_size", format!("is {page}, which no host has")));
        }
        let mut map = Self::default();
        let mut runs = saved.runs.0.as_slice();
        let mut end = 0_u64;
        while !runs.is_empty() {
            let cut_short = || bad("runs", "ends within a number".to_owned());
            let gap = take_number(&mut runs).ok_or_else(cut_short)?;
            let pages = take_number(&mut runs).ok_or_else(cut_short)?;
            let at = |from: u64, pages: u64| from.checked_add(pages.checked_mul(page)?);
            let extent = at(end, gap).and_then(|start| Some(start..at(start, pages)?));
            let fits = |extent: &Range<u64>| !extent.is_empty() && extent.end <= length;
            let extent = extent.filter(fits).ok_or_else(|| {
                let problem = format!("has {pages} pages, {gap} pages behind {end:#x}");
                bad("runs", format!("{problem}, of {length} bytes of memory"))
            })?;
            end = extent.end;
            map.push(extent);
        }
        Ok(map)
    }
}

/// A memory map as it is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemoryMapV1 {
    /// In bytes.
    pub(super) page_size: u32,
    /// In turns how many pages have no data and how many have, from the file's start;
    /// each number seven bits to a byte, the lowest first, all but the last with bit 7 set.
    pub(super) runs: Bytes,
}

impl Versioned for MemoryMapV1 {
    const KIND: &'static str = "memory-map";
    const VERSION: u16 = 1;
}

/// The checksums of a memory file's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChecksumsV1 {
    /// How many bytes of the file one checksum is for.
    pub(super) chunk: u64,
    /// A CRC-32 (IEEE 802.3) of the data in each chunk, little-endian; 0 where there
    /// is none.
    pub(super) checksums: Bytes,
}

impl Versioned for ChecksumsV1 {
    const KIND: &'static str = "memory-checksums";
    const VERSION: u16 = 1;
}

fn put_number(to: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        to.push(0x80 | low_bits(number));
        number >>= 7;
    }
    to.push(low_bits(number));
}

fn low_bits(number: u64) -> u8 {
    u8::try_from(number & 0x7f).expect("seven bits fit in eight")
}

fn take_number(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    fn map(extents: &[(u64, u64)]) -> MemoryMap {
        let mut map = MemoryMap::default();
        extents.iter().for_each(|&(start, end)| map.push(start..end));
        map
    }

    fn refused(page_size: u32, runs: &[u8]) -> String {
        let saved = MemoryMapV1 { page_size, runs: Bytes(runs.to_vec()) };
        MemoryMap::from_saved(&saved, 0x10_0000).unwrap_err().to_string()
    }

    #[test]
    fn extents_that_touch_are_one() {
        let map = map(&[(0x1000, 0x2000), (0x2000, 0x5000)]);
        assert_eq!(map.extents(), std::slice::from_ref(&(0x1000..0x5000)));
    }

    #[test]
    fn gaps_are_what_extents_leave() {
        let map = map(&[(0, 0x1000), (0x3000, 0x4000)]);
        assert_eq!(map.gaps(0x5000).collect::<Vec<_>>(), [0x1000..0x3000, 0x4000..0x5000]);
        let none = MemoryMap::default();
        assert_eq!(none.gaps(0x5000).collect::<Vec<_>>(), std::slice::from_ref(&(0..0x5000)));
    }

    #[test]
    fn data_pages_are_counted_through() {
        let map = map(&[(0x1000, 0x3000), (0x8000, 0x9000)]);
        let offsets = [0, 1, 2, 3].map(|number| map.data_page(number, 0x1000));
        assert_eq!(offsets, [Some(0x1000), Some(0x2000), Some(0x8000), None]);
    }

    #[test]
    fn a_map_that_cannot_be_is_refused() {
        let problems = [
            refused(0, &[]),
            refused(4096, &[1]),
            refused(4096, &[1, 0x80]),
            refused(4096, &[1, 0]),
            refused(4096, &[0, 0x81, 2]),
            refused(4096, &[0xff; 10]),
            refused(4096, &[0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1]),
        ];
        expect![[r#"
            the saved `memory-map` is not plausible: `page_size` is 0, which no host has
            the saved `memory-map` is not plausible: `runs` ends within a number
            the saved `memory-map` is not plausible: `runs` ends within a number
            the saved `memory-map` is not plausible: `runs` has 0 pages, 1 pages behind 0x0, of 1048576 bytes of memory
            the saved `memory-map` is not plausible: `runs` has 257 pages, 0 pages behind 0x0, of 1048576 bytes of memory
            the saved `memory-map` is not plausible: `runs` ends within a number
            the saved `memory-map` is not plausible: `runs` has 1 pages, 9223372036854775807 pages behind 0x1000, of 1048576 bytes of memory"#]]
        .assert_eq(&problems.join("\n"));
    }

    proptest! {
        #[test]
        fn a_map_comes_back_as_it_was_saved(
            runs in prop::collection::vec((1_u64..1 << 20, 1_u64..1 << 20), 0..20),
        ) {
            let (mut whole, mut end) = (MemoryMap::default(), 0);
            for (gap, pages) in runs {
                let start = end + gap * 4096;
                end = start + pages * 4096;
                whole.push(start..end);
            }
            prop_assert_eq!(MemoryMap::from_saved(&whole.to_saved(4096), end), Ok(whole));
        }

        #[test]
        fn any_bytes_are_a_map_within_memory_or_refused(
            runs in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let saved = MemoryMapV1 { page_size: 4096, runs: Bytes(runs) };
            if let Ok(map) = MemoryMap::from_saved(&saved, 1 << 30) {
                prop_assert!(map.extents().is_sorted_by(|a, b| a.end < b.start));
                prop_assert!(map.extents().last().is_none_or(|last| last.end <= 1 << 30));
            }
        }
    }
}
