//! Where a kernel's bytes come from: a part of a file, or memory.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;

use kedge_guest_memory::{Bytes as _, GuestMemory, GuestMemoryError, GuestRange};
use kedge_ids::{u64_from, usize_from};

/// As much of a kernel's beginning as tells what it is.
const HEAD: u64 = 4096;

/// Bytes that can be read from anywhere.
pub(super) trait Content {
    /// How many.
    fn len(&self) -> u64;

    /// Fills `bytes` from `at` on.
    fn read_at(&self, at: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Fills guest memory from `at` on.
    fn load(&self, at: u64, memory: &GuestMemory, to: GuestRange) -> Result<(), GuestMemoryError>;

    /// The first bytes, or all there are.
    fn head(&self) -> io::Result<Vec<u8>> {
        let mut head = vec![0; usize_from(self.len().min(HEAD))];
        self.read_at(0, &mut head)?;
        Ok(head)
    }
}

/// A part of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    file: &'a File,
    start: u64,
    size: u64,
}

impl<'a> Part<'a> {
    /// All of it.
    pub(super) fn whole(file: &'a File) -> io::Result<Self> {
        let mut seekable = file;
        // A block device has its length only here.
        let size = seekable.seek(SeekFrom::End(0))?;
        Ok(Self { file, start: 0, size })
    }

    /// `size` bytes from `at` on, if there are so many.
    pub(super) fn part(self, at: u64, size: u64) -> Option<Self> {
        let inside = at.checked_add(size).is_some_and(|end| end <= self.size);
        inside.then_some(Self { file: self.file, start: self.start + at, size })
    }
}

impl Content for Part<'_> {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_at(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, self.start.saturating_add(at))
    }

    fn load(&self, at: u64, memory: &GuestMemory, to: GuestRange) -> Result<(), GuestMemoryError> {
        let mut file = self.file;
        file.seek(SeekFrom::Start(self.start.saturating_add(at)))
            .map_err(GuestMemoryError::IOError)?;
        // The kernel copies from the page cache into guest memory, once.
        memory.read_exact_volatile_from(to.start, &mut file, usize_from(to.size))
    }
}

/// Reads on from the part's beginning.
impl Read for Part<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = usize_from(self.size.min(u64_from(bytes.len())));
        let read = self.file.read_at(&mut bytes[..most], self.start)?;
        self.start += u64_from(read);
        self.size -= u64_from(read);
        Ok(read)
    }
}

impl Content for &[u8] {
    fn len(&self) -> u64 {
        u64_from((**self).len())
    }

    fn read_at(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        bytes.copy_from_slice(rest.get(..bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn load(&self, at: u64, memory: &GuestMemory, to: GuestRange) -> Result<(), GuestMemoryError> {
        let (at, size) = (usize_from(at), usize_from(to.size));
        let end = at.saturating_add(size);
        let cut = || GuestMemoryError::IOError(io::ErrorKind::UnexpectedEof.into());
        memory.write_slice(self.get(at..end).ok_or_else(cut)?, to.start)
    }
}
