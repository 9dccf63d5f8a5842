//! Sets of pages of one region, and the extents they form.

use std::ops::Range;

use kedge_ids::{u64_from, usize_from};

/// A run of bytes in a region or an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// The offset of its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
}

impl Extent {
    /// The extent of `length` bytes from `start`.
    pub const fn new(start: u64, length: u64) -> Self {
        Self { start, length }
    }

    /// The offset behind its last byte.
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

/// A set of pages of one region: a bit for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageSet {
    words: Vec<u64>,
    /// The region's pages.
    pages: u64,
    page_size: u64,
}

const BITS: u64 = 64;

impl PageSet {
    /// None of the pages of a region of `length` bytes.
    pub fn new(length: u64) -> Self {
        let page_size = u64_from(rustix::param::page_size());
        let pages = length.div_ceil(page_size);
        Self { words: vec![0; usize_from(pages.div_ceil(BITS))], pages, page_size }
    }

    /// Adds the pages whose bits are set in `words`; bits past the region's end count
    /// for nothing.
    pub fn add_words(&mut self, words: &[u64]) {
        for (word, more) in self.words.iter_mut().zip(words) {
            *word |= more;
        }
        let tail = self.pages % BITS;
        if let (Some(last), 1..) = (self.words.last_mut(), tail) {
            *last &= (1 << tail) - 1;
        }
    }

    /// Adds the pages that `extent` has bytes of, within the region.
    pub fn add(&mut self, extent: Extent) {
        self.each_word(extent, |word, mask| *word |= mask);
    }

    /// Removes the pages that `extent` has bytes of.
    pub fn remove(&mut self, extent: Extent) {
        self.each_word(extent, |word, mask| *word &= !mask);
    }

    fn each_word(&mut self, extent: Extent, change: impl Fn(&mut u64, u64)) {
        let mut page = extent.start / self.page_size;
        let end = extent.end().div_ceil(self.page_size).min(self.pages);
        while page < end {
            let first = page % BITS;
            let count = (BITS - first).min(end - page);
            let mask = (u64::MAX >> (BITS - count)) << first;
            if let Some(word) = self.words.get_mut(usize_from(page / BITS)) {
                change(word, mask);
            }
            page += count;
        }
    }

    /// How many bytes the pages are.
    pub fn bytes(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>() * self.page_size
    }

    /// Whether there is no page in it.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Its runs of pages, in order.
    pub fn extents(&self) -> impl Iterator<Item = Extent> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let run = self.run_from(from)?;
            from = run.end;
            Some(Extent::new(run.start * self.page_size, (run.end - run.start) * self.page_size))
        })
    }

    /// The first run of pages that begins at `page` or behind it.
    fn run_from(&self, page: u64) -> Option<Range<u64>> {
        let start = self.find(page, |word| word)?;
        let end = self.find(start, |word| !word).unwrap_or(self.pages).min(self.pages);
        Some(start..end)
    }

    /// The first page from `page` on whose bit is set in what `look` makes of its word.
    fn find(&self, page: u64, look: impl Fn(u64) -> u64) -> Option<u64> {
        let mut index = page / BITS;
        let mut mask = u64::MAX << (page % BITS);
        while let Some(&word) = self.words.get(usize_from(index)) {
            let found = look(word) & mask;
            if found != 0 {
                return Some(index * BITS + u64::from(found.trailing_zeros()));
            }
            (index, mask) = (index + 1, u64::MAX);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> u64 {
        u64_from(rustix::param::page_size())
    }

    fn set(pages: u64, runs: &[(u64, u64)]) -> PageSet {
        let mut set = PageSet::new(pages * page());
        for &(start, count) in runs {
            set.add(Extent::new(start * page(), count * page()));
        }
        set
    }

    fn runs(set: &PageSet) -> Vec<(u64, u64)> {
        set.extents().map(|extent| (extent.start / page(), extent.length / page())).collect()
    }

    #[test]
    fn runs_come_back_as_extents() {
        let given = [(0, 1), (2, 63), (66, 128), (199, 1)];
        assert_eq!(runs(&set(200, &given)), given);
    }

    #[test]
    fn runs_that_touch_are_one() {
        assert_eq!(runs(&set(200, &[(5, 60), (65, 70)])), [(5, 130)]);
    }

    #[test]
    fn a_byte_of_a_page_is_the_page() {
        let mut set = PageSet::new(4 * page());
        set.add(Extent::new(page() + 5, page()));
        assert_eq!(runs(&set), [(1, 2)]);
    }

    #[test]
    fn what_is_removed_splits_a_run() {
        let mut set = set(200, &[(0, 200)]);
        set.remove(Extent::new(60 * page(), 80 * page()));
        assert_eq!(runs(&set), [(0, 60), (140, 60)]);
        assert_eq!(set.bytes(), 120 * page());
    }

    #[test]
    fn nothing_is_past_the_end_of_the_region() {
        let mut set = set(70, &[(60, 100)]);
        set.add_words(&[0, u64::MAX, u64::MAX]);
        assert_eq!(runs(&set), [(60, 10)]);
    }

    #[test]
    fn an_empty_set_has_no_extents() {
        let set = set(64, &[]);
        assert!(set.is_empty());
        assert_eq!(runs(&set), []);
    }
}
