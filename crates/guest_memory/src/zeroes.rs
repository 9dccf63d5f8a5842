//! Finding pages of zeroes in guest RAM, where they are.

// UNSAFETY: the words are read through pointers, volatile: no reference may exist into
// memory that a guest can write to, and vm-memory reads no faster than word by checked
// word.
#![expect(unsafe_code)]

use std::ops::Range;

use vm_memory::volatile_memory::PtrGuard;

use crate::RamSlice;

const WORD: usize = size_of::<u128>();
/// Words that are read before a look at them: looking costs as much as reading. Most pages
/// that are not zero show it in the first few.
const FIRST: usize = 4;
const BLOCK: usize = 16;

/// Pages of guest RAM, of which some may be zero.
pub(crate) struct Pages {
    guard: PtrGuard,
    /// Words of each page.
    words: usize,
    count: usize,
}

impl Pages {
    /// Those of `memory`, of `page` bytes each. None where they are not as pages are.
    pub(crate) fn of(memory: &RamSlice<'_>, page: usize) -> Option<Self> {
        let guard = memory.ptr_guard();
        let is_aligned = guard.as_ptr().cast::<u128>().is_aligned();
        let words = page / WORD;
        let is_page = words.is_multiple_of(BLOCK) && words > 0;
        (is_aligned && is_page).then(|| Self { guard, words, count: memory.len() / page })
    }

    /// The first pages from `number` on that are not zero, up to the next that is. None:
    /// all others are.
    // Who asks is built to be small, and so would be what becomes a part of it: a fourth more
    // instructions for each page.
    #[inline(never)]
    pub(crate) fn data_from(&self, number: usize) -> Option<Range<usize>> {
        let first = (number..self.count).find(|&number| !self.is_zero(number))?;
        let rest = first + 1..self.count;
        let behind = { rest }.find(|&number| self.is_zero(number)).unwrap_or(self.count);
        Some(first..behind)
    }

    /// Whether all of page `number` is zero. What is not there is not.
    fn is_zero(&self, number: usize) -> bool {
        let start = number * self.words;
        let blocks = (start..start + self.words).step_by(BLOCK);
        number < self.count && self.all_zero(start, FIRST) && { blocks }
            .all(|block| self.all_zero(block, BLOCK))
    }

    /// Whether the words from `first` are zero: they are of a page that is there.
    fn all_zero(&self, first: usize, words: usize) -> bool {
        let start = self.guard.as_ptr().cast::<u128>();
        let all = (first..first + words).fold(0, |all, index| {
            // SAFETY: who asks has a page that is there, and the word is in it: it is mapped
            // while `guard` lives, and aligned, as was checked.
            all | unsafe { start.wrapping_add(index).read_volatile() }
        });
        all == 0
    }
}

#[cfg(test)]
mod tests {
    use crate::{Bytes as _, GuestAddress, GuestMemoryAccess as _, GuestRange, map_anonymous};

    use super::*;

    #[test]
    fn a_byte_anywhere_makes_a_page_of_zeroes_another() {
        let page = rustix::param::page_size();
        let start = 0x8000_0000;
        let memory = map_anonymous(&[GuestRange::new(start, 0x1_0000)]).unwrap();
        let zero = |number| {
            let permissions = vm_memory::Permissions::Read;
            let mut slices = memory.get_slices(GuestAddress(start), 2 * page, permissions).unwrap();
            let slice = slices.next().unwrap().unwrap();
            Pages::of(&slice, page).unwrap().is_zero(number)
        };
        let is_zero = || zero(0);
        assert!(is_zero());
        for at in [0, 15, 16, 255, 256, 2049, page - 1] {
            let at = GuestAddress(start + kedge_ids::u64_from(at));
            memory.write_obj(1_u8, at).unwrap();
            assert!(!is_zero());
            memory.write_obj(0_u8, at).unwrap();
        }
        memory.write_obj(1_u8, GuestAddress(start + kedge_ids::u64_from(page))).unwrap();
        assert!(is_zero() && !zero(1) && !zero(2), "there is no third");
    }

    #[test]
    fn pages_that_are_not_zero_come_in_runs() {
        let page = rustix::param::page_size();
        let start = 0x8000_0000;
        let length = 16 * page;
        let memory = map_anonymous(&[GuestRange::new(start, kedge_ids::u64_from(length))]).unwrap();
        for number in [2, 3, 4, 6, 15] {
            let at = GuestAddress(start + kedge_ids::u64_from(number * page + 77));
            memory.write_obj(1_u8, at).unwrap();
        }
        let permissions = vm_memory::Permissions::Read;
        let mut slices = memory.get_slices(GuestAddress(start), length, permissions).unwrap();
        let pages = Pages::of(&slices.next().unwrap().unwrap(), page).unwrap();
        let from = [0, 2, 4, 5, 7, 15, 16, 17].map(|number| pages.data_from(number));
        let expected = [2..5, 2..5, 4..5, 6..7, 15..16, 15..16].map(Some);
        assert_eq!(from[..6], expected);
        assert_eq!(from[6..], [None, None]);
    }

    #[test]
    fn what_is_no_page_is_none() {
        let memory = map_anonymous(&[GuestRange::new(0x8000_0000, 0x1_0000)]).unwrap();
        let permissions = vm_memory::Permissions::Read;
        let of = |at: u64, page| {
            let mut slices = memory.get_slices(GuestAddress(at), 0x2000, permissions).unwrap();
            Pages::of(&slices.next().unwrap().unwrap(), page).is_some()
        };
        assert!(of(0x8000_0000, 0x1000));
        assert!(!of(0x8000_0001, 0x1000) && !of(0x8000_0000, 24) && !of(0x8000_0000, 0));
    }
}
