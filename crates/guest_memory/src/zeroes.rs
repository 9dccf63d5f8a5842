//! Finding pages of zeroes in guest RAM, where they are.

// UNSAFETY: the words are read through pointers, volatile: no reference may exist into
// memory that a guest can write to, and vm-memory reads no faster than word by checked
// word.
#![expect(unsafe_code)]

use crate::RamSlice;

/// Words that are read before a look at them: most pages that are not zero show it in
/// the first block, and looking costs as much as reading.
const BLOCK: usize = 16;
const WORD: usize = size_of::<u128>();

/// Whether all of `page`, which is whole pages, is zero.
pub(crate) fn is_zero(page: &RamSlice<'_>) -> bool {
    let guard = page.ptr_guard();
    let words = guard.as_ptr().cast::<u128>();
    let count = page.len() / WORD;
    if !words.is_aligned() || !count.is_multiple_of(BLOCK) {
        return false;
    }
    (0..count).step_by(BLOCK).all(|block| {
        let all = (block..block + BLOCK).fold(0, |all, index| {
            // SAFETY: `index` is less than `count`, so the word lies within `page`, which
            // stays mapped while `guard` lives; its address is aligned, as was checked.
            all | unsafe { words.wrapping_add(index).read_volatile() }
        });
        all == 0
    })
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
        let is_zero = || {
            let permissions = vm_memory::Permissions::Read;
            let mut slices = memory.get_slices(GuestAddress(start), page, permissions).unwrap();
            is_zero(&slices.next().unwrap().unwrap())
        };
        assert!(is_zero());
        for at in [0, 15, 16, 255, 256, 2049, page - 1] {
            let at = GuestAddress(start + kedge_ids::u64_from(at));
            memory.write_obj(1_u8, at).unwrap();
            assert!(!is_zero());
            memory.write_obj(0_u8, at).unwrap();
        }
        memory.write_obj(1_u8, GuestAddress(start + kedge_ids::u64_from(page))).unwrap();
        assert!(is_zero());
    }
}
