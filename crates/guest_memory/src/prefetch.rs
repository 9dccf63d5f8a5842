//! Pages of a memory file that are put in place before a guest touches them, as private
//! copies, with few system calls and next to no page faults.
//!
//! A page that is written to in a private mapping of a file costs a fault, whoever asks for
//! it and however early: `MAP_POPULATE` and `MADV_POPULATE_WRITE` (Linux 5.14) raise the
//! same faults one after the other. `UFFDIO_COPY` raises none: it puts pages filled already
//! into anonymous memory. So all pages are made in one anonymous mapping, through a buffer
//! that is read into from the file, and then moved to where they belong, a run at a time,
//! by mremap(2), which moves entries of page tables.
//!
//! Where the host does not let this process do that, pages are read straight into the
//! mapping: no dearer than having the guest touch them, and no cheaper.

// UNSAFETY: memory is mapped, filled and moved by its addresses.
#![expect(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::null_mut;

use kedge_ids::usize_from;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap_fixed, munmap};
use vm_memory::GuestMemoryBackend as _;

use crate::faults::{Faults, Piece};
use crate::{GuestMemory, PageSet};

/// Bytes that are read before they are copied to their pages: what a CPU's cache holds, and
/// few pages, since each costs a fault.
const BUFFER: usize = 64 << 10;

/// Puts `pages` of each region of `memory`, which is mapped from a file and not in use yet,
/// in place. How many bytes they are.
///
/// # Errors
/// The file cannot be read, or the host has no room. Part of `memory` may not be mapped
/// any more: it is of no use.
pub fn prefetch(memory: &GuestMemory, pages: &[PageSet]) -> io::Result<u64> {
    let total = pages.iter().map(PageSet::bytes).sum();
    let mut made = Made::begin(usize_from(total))?;
    for (region, pages) in memory.iter().zip(pages) {
        let mapping = region.get_mmap();
        let Some(from) = mapping.file_offset() else { continue };
        for extent in pages.extents() {
            made.read(from.file(), from.start() + extent.start, usize_from(extent.length))?;
        }
    }
    let mut made = made.finish()?;
    for (region, pages) in memory.iter().zip(pages) {
        for extent in pages.extents() {
            let to = region.as_ptr().wrapping_add(usize_from(extent.start));
            // SAFETY: the pages are within a region of `memory`, which nobody uses yet.
            unsafe { made.move_to(to.cast(), usize_from(extent.length)) }?;
        }
    }
    Ok(total)
}

/// A mapping in which pages are made.
struct Made {
    rest: Mapping,
    /// How much of it is filled.
    filled: usize,
    /// What was read, and is no page yet; none where pages are read into.
    buffer: Option<(Faults, Vec<u8>)>,
    /// How much of the buffer is used.
    used: usize,
}

impl Made {
    fn begin(length: usize) -> io::Result<Self> {
        let rest = Mapping::new(length)?;
        let faults = Faults::of_none().and_then(|faults| {
            faults.register(rest.piece(0))?;
            Ok(faults)
        });
        let buffer = faults.ok().map(|faults| (faults, vec![0; BUFFER.min(length)]));
        Ok(Self { rest, filled: 0, buffer, used: 0 })
    }

    /// Makes the next pages of what `file` has from `at` on.
    fn read(&mut self, file: &File, mut at: u64, length: usize) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let count = match &mut self.buffer {
                Some((_, buffer)) => {
                    let count = left.min(buffer.len() - self.used);
                    file.read_exact_at(&mut buffer[self.used..][..count], at)?;
                    self.used += count;
                    count
                }
                None => {
                    file.read_exact_at(self.rest.bytes(self.filled, left), at)?;
                    self.filled += left;
                    left
                }
            };
            (at, left) = (at + kedge_ids::u64_from(count), left - count);
            if self.buffer.as_ref().is_some_and(|(_, buffer)| self.used == buffer.len()) {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some((faults, buffer)) = &self.buffer {
            faults.fill(self.rest.piece(self.filled), &buffer[..self.used])?;
            (self.filled, self.used) = (self.filled + self.used, 0);
        }
        Ok(())
    }

    /// The pages. Nobody fills them any more.
    fn finish(mut self) -> io::Result<Mapping> {
        self.flush()?;
        Ok(self.rest)
    }
}

/// An anonymous mapping, of which pieces are moved away from its beginning.
struct Mapping {
    start: *mut c_void,
    length: usize,
}

impl Mapping {
    fn new(length: usize) -> io::Result<Self> {
        if length == 0 {
            return Ok(Self { start: null_mut(), length });
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses where, so that nothing is mapped there yet.
        let start = unsafe { mmap_anonymous(null_mut(), length, access, flags) }?;
        Ok(Self { start, length })
    }

    /// What is behind `offset`.
    fn piece(&self, offset: usize) -> Piece {
        Piece {
            start: self.start.cast_const().cast::<u8>().wrapping_add(offset),
            length: self.length - offset,
        }
    }

    /// `length` bytes from `offset` on.
    fn bytes(&mut self, offset: usize, length: usize) -> &mut [u8] {
        assert!(offset + length <= self.length, "pages are made for as many as there are");
        let start = self.start.cast::<u8>().wrapping_add(offset);
        // SAFETY: the bytes lie within the mapping, as was just checked; it is zeroes at
        // first, nobody else knows of it, and the borrow keeps it as it is.
        unsafe { std::slice::from_raw_parts_mut(start, length) }
    }

    /// Moves the first `length` bytes, whole pages, to `to`, in place of what is mapped
    /// there.
    ///
    /// # Safety
    /// What is mapped there is nobody's to use while this lasts, has no references into it,
    /// and may be anything afterwards.
    unsafe fn move_to(&mut self, to: *mut c_void, length: usize) -> io::Result<()> {
        assert!(length <= self.length, "as many pages are moved as were made");
        // SAFETY: the pages are ours and mapped, as was just checked; the rest is the
        // caller's promise.
        unsafe { mremap_fixed(self.start, length, length, MremapFlags::MAYMOVE, to) }?;
        self.start = self.start.cast::<u8>().wrapping_add(length).cast();
        self.length -= length;
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: what is left of the mapping is ours alone.
            let unmapped = unsafe { munmap(self.start, self.length) };
            // A range that is mapped can be unmapped.
            let _ = unmapped;
        }
    }
}
