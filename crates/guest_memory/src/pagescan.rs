//! Asking the kernel for pages of one kind: `PAGEMAP_SCAN`, an ioctl of the pagemap since
//! Linux 6.7 (Documentation/admin-guide/mm/pagemap.rst). It answers with ranges, where
//! reading the pagemap is eight bytes for each page.

// UNSAFETY: the ioctl takes a structure with the address of a table that it fills, and
// rustix has no safe form of it.
#![expect(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::ops::Range;
use std::ptr;

use kedge_ids::u64_from;
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

/// What a page is (include/uapi/linux/fs.h, `PAGE_IS_*`): a file's, or shared.
pub(crate) const FILE: u64 = 1 << 2;
/// In memory.
pub(crate) const PRESENT: u64 = 1 << 3;
/// Moved out.
pub(crate) const SWAPPED: u64 = 1 << 4;

/// Which pages are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Those that are any of these,
    pub(crate) any_of: u64,
    /// and none of these.
    pub(crate) none_of: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

const PAGEMAP_SCAN: Opcode = opcode::read_write::<PmScanArg>(b'f', 16);
// The number of the kernel's own headers, on x86-64 and arm64 alike.
const _: () = assert!(PAGEMAP_SCAN == 0xc060_6610 && size_of::<PageRegion>() == 24);

/// Ranges in one answer: as many as the kernel gathers before it hands them over, with pages
/// of 4 KiB.
const RANGES: usize = 512;

/// A request with its answer.
struct Scan {
    arg: PmScanArg,
    table: [PageRegion; RANGES],
}

impl Scan {
    fn new(kind: Kind, addresses: &Range<u64>) -> Self {
        let arg = PmScanArg {
            size: u64_from(size_of::<PmScanArg>()),
            flags: 0,
            start: addresses.start,
            end: addresses.end,
            walk_end: 0,
            // The table's address: once it is where it stays.
            vec: 0,
            vec_len: u64_from(RANGES),
            // Any number.
            max_pages: 0,
            // A page must be all of the mask, and what is inverted of that it must not be.
            category_inverted: kind.none_of,
            category_mask: kind.none_of,
            category_anyof_mask: kind.any_of,
            // Ranges are told apart by this: by nothing.
            return_mask: 0,
        };
        Self { arg, table: [PageRegion::default(); RANGES] }
    }
}

// SAFETY: the opcode is made of the structure that `as_ptr` gives out. The kernel writes to
// it, as `IS_MUTATING` says, and to the table in its bounds, which is borrowed with it for as
// long as the call takes. It returns how many of the table's entries it filled.
unsafe impl Ioctl for &mut Scan {
    type Output = usize;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        PAGEMAP_SCAN
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.arg.vec = u64_from(self.table.as_mut_ptr().expose_provenance());
        ptr::from_mut(&mut self.arg).cast()
    }

    unsafe fn output_from_ptr(filled: IoctlOutput, _: *mut c_void) -> Result<usize, Errno> {
        usize::try_from(filled).map_err(|_| Errno::IO)
    }
}

/// Gives `found` the ranges of `addresses`, from a page's start on, whose pages are of `kind`,
/// in order. Two may touch.
///
/// # Errors
/// The kernel is older, or does not answer.
pub(crate) fn scan(
    pagemap: &File,
    kind: Kind,
    addresses: &Range<u64>,
    mut found: impl FnMut(Range<u64>),
) -> Result<(), Errno> {
    let mut scan = Scan::new(kind, addresses);
    while scan.arg.start < scan.arg.end {
        // SAFETY: the call touches nothing of ours but `scan`, and without flags it changes
        // nothing of the pages.
        let filled = unsafe { ioctl(pagemap, &mut scan) }?;
        scan.table.iter().take(filled).for_each(|range| found(range.start..range.end));
        if scan.arg.walk_end <= scan.arg.start {
            return Err(Errno::IO);
        }
        scan.arg.start = scan.arg.walk_end;
    }
    Ok(())
}
