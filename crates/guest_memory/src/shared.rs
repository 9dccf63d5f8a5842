//! Guest RAM that other processes map as well: the back ends of vhost-user devices are
//! given its files. And the log in which such a back end, or the kernel, notes the pages
//! that it writes.

use std::fs::File;
use std::io;
use std::sync::Arc;

use kedge_ids::{u64_from, usize_from};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vm_memory::bitmap::Bitmap as _;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes as _, FileOffset, GuestMemoryBackend as _, GuestMemoryRegion as _, MemoryRegionAddress,
    MmapRegion, VolatileMemory as _,
};

use crate::pagemap::backed_by;
use crate::{GuestMemory, GuestRange, MapError, RamRegion, collect};

/// Maps shared memory for each of `ranges`, a file in memory (memfd) each. Nothing is
/// reserved before somebody touches it, and nobody can make a file shorter.
///
/// # Errors
/// The host refuses a file or a mapping, or the ranges overlap.
pub fn map_shared(ranges: &[GuestRange]) -> Result<GuestMemory, MapError> {
    let region = |range: &GuestRange| {
        let (start, size) = (range.start.0, range.size);
        let length = usize::try_from(size).map_err(|_| MapError::Layout { start })?;
        let mapping = map(c"kedge guest memory", length).map_err(|source| MapError::Map {
            start,
            size,
            source,
        })?;
        let region = RamRegion::new(mapping, range.start).ok_or(MapError::Layout { start })?;
        Ok(Arc::new(region))
    };
    collect(ranges, ranges.iter().map(region).collect::<Result<_, MapError>>()?)
}

/// Whether other processes can map `memory`.
pub fn is_shared(memory: &GuestMemory) -> bool {
    memory.iter().all(|region| region.get_mmap().flags() & libc::MAP_SHARED != 0)
}

/// Reads a memory file into `memory`, one region after the other: what is a hole stays
/// untouched.
///
/// # Errors
/// The file is shorter than the memory, or cannot be read.
pub fn fill_from(file: &File, memory: &GuestMemory) -> Result<(), MapError> {
    let length = file.metadata().map_err(MapError::File)?.len();
    let needed = memory.iter().map(|region| region.len()).sum();
    if length < needed {
        return Err(MapError::Short { length, needed });
    }
    let mut start = 0;
    for region in memory.iter() {
        fill_region(file, start, region).map_err(MapError::File)?;
        start += region.len();
    }
    Ok(())
}

fn fill_region(file: &File, start: u64, region: &RamRegion) -> io::Result<()> {
    for extent in backed_by(file, start, region.len())?.extents() {
        rustix::fs::seek(file, rustix::fs::SeekFrom::Start(start + extent.start))?;
        let length = usize_from(extent.length);
        let at = MemoryRegionAddress(extent.start);
        let mut from = file;
        region.read_exact_volatile_from(at, &mut from, length).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Bytes that a bit of a [`WriteLog`] stands for, whatever the host's pages are
/// (`VHOST_PAGE_SIZE` of the kernel's, `VHOST_LOG_PAGE` of vhost-user).
const LOGGED: u64 = 4096;

/// A log of writes that somebody else keeps: bit `n` of byte `m` stands for the 4096 bytes
/// of guest memory from address 4096 * (8 * m + n) on.
#[derive(Debug)]
pub struct WriteLog {
    bits: MmapRegion<()>,
}

impl WriteLog {
    /// An empty one, for all of `memory`.
    ///
    /// # Errors
    /// The host has no file descriptor or no room.
    pub fn new(memory: &GuestMemory) -> io::Result<Self> {
        let bytes = memory.last_addr().0 / LOGGED / 8 + 1;
        Ok(Self { bits: map(c"kedge write log", usize_from(bytes).next_multiple_of(PIECE))? })
    }

    /// Its file, for another process: as long as [`WriteLog::length`].
    pub fn file(&self) -> Option<&File> {
        self.bits.file_offset().map(FileOffset::file)
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        u64_from(self.bits.size())
    }

    /// Where this process has it, for the kernel.
    pub fn address(&self) -> u64 {
        u64_from(self.bits.as_ptr().expose_provenance())
    }

    /// Records what was logged as written to `memory` ([`crate::dirty`]). Who keeps the log
    /// has been stopped.
    pub fn add_to(&self, memory: &GuestMemory) {
        let bits = self.bits.as_volatile_slice();
        let mut piece = [0_u8; PIECE];
        for at in (0..self.bits.size()).step_by(PIECE) {
            // It is within: the log is whole pieces long.
            let Ok(slice) = bits.subslice(at, PIECE) else { return };
            slice.copy_to(&mut piece);
            for (byte, logged) in (at..).zip(piece).filter(|&(_, logged)| logged != 0) {
                let set = (0..8).filter(|bit| logged >> bit & 1 != 0);
                set.for_each(|bit| mark(memory, (8 * u64_from(byte) + bit) * LOGGED));
            }
        }
    }
}

/// Bytes of a log that are looked at together.
const PIECE: usize = 4096;

/// Records the logged page at `address` as written, where it is memory at all.
fn mark(memory: &GuestMemory, address: u64) {
    if let Some((region, at)) = memory.to_region_addr(vm_memory::GuestAddress(address)) {
        region.get_mmap().bitmap().mark_dirty(usize_from(at.0), usize_from(LOGGED));
    }
}

/// A new file in memory of `length` bytes, mapped. It keeps its length: who shares it could
/// otherwise take pages away, and kill who touches them next.
fn map<B: vm_memory::bitmap::NewBitmap>(
    name: &std::ffi::CStr,
    length: usize,
) -> io::Result<MmapRegion<B>> {
    let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    ftruncate(&file, u64_from(length))?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    MmapRegionBuilder::new_with_bitmap(length, B::with_len(length))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
        .with_file_offset(FileOffset::new(file, 0))
        .build()
        .map_err(crate::os_error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::GuestAddress;

    use crate::{Extent, Pagemap, dirty, read_all};

    use super::*;

    const RAM: u64 = 0x8000_0000;
    const SIZE: u64 = 0x10_0000;

    fn memory() -> GuestMemory {
        map_shared(&[GuestRange::new(RAM, SIZE), GuestRange::new(2 * RAM, SIZE)]).unwrap()
    }

    fn file_of(memory: &GuestMemory, region: usize) -> File {
        let region = memory.iter().nth(region).unwrap();
        region.get_mmap().file_offset().unwrap().file().try_clone().unwrap()
    }

    #[test]
    fn what_another_process_writes_is_in_memory_and_is_saved() {
        let memory = memory();
        assert!(is_shared(&memory));
        file_of(&memory, 1).write_all_at(b"theirs", 0x8000).unwrap();
        memory.write_slice(b"ours", GuestAddress(RAM + 0x4_0000)).unwrap();
        let mut found = [0; 6];
        memory.read_slice(&mut found, GuestAddress(2 * RAM + 0x8000)).unwrap();
        assert_eq!(&found, b"theirs");
        for pagemap in [None, Some(Pagemap::open().unwrap())] {
            let mut image = vec![0; usize_from(2 * SIZE)];
            let sink = |at, bytes: &[u8]| {
                image[usize_from(at)..][..bytes.len()].copy_from_slice(bytes);
                Ok(())
            };
            read_all(&memory, pagemap.as_ref(), sink).unwrap();
            assert_eq!(&image[0x4_0000..][..4], b"ours");
            assert_eq!(&image[usize_from(SIZE) + 0x8000..][..6], b"theirs");
        }
    }

    #[test]
    fn nobody_makes_it_shorter() {
        let file = file_of(&memory(), 0);
        assert_eq!(file.set_len(0).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn it_is_filled_from_a_memory_file_and_holes_stay_holes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * SIZE).unwrap();
        file.write_all_at(b"first", 0x1_0000).unwrap();
        file.write_all_at(b"second", SIZE + 0x2_0000).unwrap();
        let memory = memory();
        fill_from(&file, &memory).unwrap();
        let mut found = [0; 6];
        memory.read_slice(&mut found, GuestAddress(2 * RAM + 0x2_0000)).unwrap();
        assert_eq!(&found, b"second");
        let touched = backed_by(&file_of(&memory, 0), 0, SIZE).unwrap();
        assert!(touched.bytes() < SIZE / 2);

        file.set_len(2 * SIZE - 1).unwrap();
        assert!(matches!(fill_from(&file, &memory), Err(MapError::Short { .. })));
    }

    #[test]
    fn what_a_log_says_was_written_is_recorded_in_its_region() {
        let memory = memory();
        dirty::track(&memory);
        let log = WriteLog::new(&memory).unwrap();
        let page = u64_from(rustix::param::page_size());
        let log_page = |address: u64| {
            let number = address / LOGGED;
            let bit = 1_u8 << (number % 8);
            log.file().unwrap().write_all_at(&[bit], number / 8).unwrap();
        };
        log_page(RAM + 4 * page);
        log_page(2 * RAM + SIZE - 1);
        // No memory there: whoever keeps the log may write anything.
        log_page(RAM - 1);
        log.add_to(&memory);
        let dirty = dirty::take(&memory);
        let extents = |region: usize| dirty.regions()[region].extents().collect::<Vec<_>>();
        assert_eq!(extents(0), [Extent::new(4 * page, page)]);
        assert_eq!(extents(1), [Extent::new(SIZE - page, page)]);
    }
}
