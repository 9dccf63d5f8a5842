//! Buffers of guest RAM, as a descriptor chain lists them: cut, copied, and
//! handed to system calls without a copy between.
//!
//! The guest may write to them at any time, so no reference into them is ever
//! made: copies are volatile, and the kernel gets addresses.

// UNSAFETY: readv, writev, preadv and pwritev take addresses; their safe forms
// take references, which must not exist into memory a guest writes to.
#![expect(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use kedge_guest_memory::{BitmapSlice, DirtySlice};
use kedge_ids::u64_from;
use vm_memory::VolatileSlice;

/// Bytes of guest RAM in pieces. Whatever is written to them is recorded where
/// somebody asked for it ([`kedge_guest_memory::dirty::track`]).
#[derive(Clone)]
pub struct Buffers<'m, B = DirtySlice<'m>> {
    slices: Vec<VolatileSlice<'m, B>>,
    length: usize,
}

impl<B> Default for Buffers<'_, B> {
    fn default() -> Self {
        Self { slices: Vec::new(), length: 0 }
    }
}

impl<'m, B: BitmapSlice> Buffers<'m, B> {
    /// Adds a piece at the end.
    pub fn push(&mut self, slice: VolatileSlice<'m, B>) {
        // 64 bits do not overflow with pieces of memory that exists, each at
        // most 4 GiB and at most 65535 of them.
        self.length = self.length.saturating_add(slice.len());
        self.slices.push(slice);
    }

    /// The length of all pieces in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is not a byte.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether every piece starts at a multiple of `alignment`, a power of two, and is
    /// as long as one.
    pub fn are_aligned(&self, alignment: usize) -> bool {
        self.slices.iter().all(|slice| {
            let start = slice.ptr_guard().as_ptr().addr();
            (start | slice.len()).is_multiple_of(alignment)
        })
    }

    /// Takes the first `count` bytes off. None, and nothing taken, where there
    /// are fewer.
    pub fn split_front(&mut self, count: usize) -> Option<Self> {
        let rest = self.length.checked_sub(count)?;
        let (mut whole, mut missing) = (0, count);
        while let Some(left) =
            self.slices.get(whole).and_then(|slice| missing.checked_sub(slice.len()))
        {
            missing = left;
            whole += 1;
        }
        let behind = self.slices.split_off(whole);
        let mut front = Self { slices: std::mem::replace(&mut self.slices, behind), length: count };
        if missing > 0 {
            let cut = self.slices.first_mut()?;
            front.slices.push(cut.subslice(0, missing).ok()?);
            *cut = cut.offset(missing).ok()?;
        }
        self.length = rest;
        Some(front)
    }

    /// Copies bytes from the front to `to`, and leaves them there: as many as both
    /// have.
    pub fn peek(&self, to: &mut [u8]) -> usize {
        let mut copied = 0;
        for slice in &self.slices {
            if copied == to.len() {
                break;
            }
            copied += slice.copy_to(&mut to[copied..]);
        }
        copied
    }

    /// Takes bytes off the front into `to`: as many as both have.
    pub fn copy_to(&mut self, to: &mut [u8]) -> usize {
        let Some(front) = self.split_front(to.len().min(self.length)) else { return 0 };
        let mut copied = 0;
        for slice in &front.slices {
            copied += slice.copy_to(&mut to[copied..]);
        }
        copied
    }

    /// Takes bytes off the front, after writing `from` to them: as many as both
    /// have.
    pub fn copy_from(&mut self, from: &[u8]) -> usize {
        let Some(front) = self.split_front(from.len().min(self.length)) else { return 0 };
        let mut copied = 0;
        for slice in &front.slices {
            slice.copy_from(&from[copied..copied + slice.len()]);
            copied += slice.len();
        }
        copied
    }

    /// Fills all of them from `file`, from byte `offset` on.
    ///
    /// # Errors
    /// The host's, or `UnexpectedEof` where the file ends before.
    pub fn read_exact_at(self, file: impl AsFd, offset: u64) -> io::Result<()> {
        let file = file.as_fd();
        self.move_all(offset, Written::Yes, |iovecs, offset| {
            // SAFETY: each address is of guest RAM that stays mapped, and valid
            // for the length with it, for 'm (the promise of `VolatileSlice`).
            unsafe { libc::preadv(file.as_raw_fd(), iovecs.as_ptr(), count(iovecs), offset) }
        })
    }

    /// Writes all of them to `file`, from byte `offset` on.
    ///
    /// # Errors
    /// The host's, or `UnexpectedEof` where the file takes no more.
    pub fn write_all_at(self, file: impl AsFd, offset: u64) -> io::Result<()> {
        let file = file.as_fd();
        self.move_all(offset, Written::No, |iovecs, offset| {
            // SAFETY: as in `read_exact_at`.
            unsafe { libc::pwritev(file.as_raw_fd(), iovecs.as_ptr(), count(iovecs), offset) }
        })
    }

    /// Fills them, as far as it goes in one call, from a stream or datagram.
    /// Bytes filled.
    ///
    /// # Errors
    /// The host's.
    pub fn read_from(&self, stream: impl AsFd) -> io::Result<usize> {
        let iovecs = self.iovecs();
        let fd = stream.as_fd().as_raw_fd();
        // SAFETY: as in `read_exact_at`.
        let filled = moved(unsafe { libc::readv(fd, iovecs.as_ptr(), count(&iovecs)) })?;
        self.mark_written(filled);
        Ok(filled)
    }

    /// Writes them, as far as it goes in one call, as a stream or datagram.
    /// Bytes written.
    ///
    /// # Errors
    /// The host's.
    pub fn write_to(&self, stream: impl AsFd) -> io::Result<usize> {
        let iovecs = self.iovecs();
        let fd = stream.as_fd().as_raw_fd();
        // SAFETY: as in `read_exact_at`.
        moved(unsafe { libc::writev(fd, iovecs.as_ptr(), count(&iovecs)) })
    }

    /// Sends the first piece, as far as it goes in one call, to whoever reads from `socket`.
    /// Bytes sent.
    ///
    /// # Errors
    /// The host's. Where nobody reads any more it is an error as any other, and not the
    /// signal that `write_to` may bring, which ends a program that does not ignore it.
    pub fn send_first(&self, socket: impl AsFd) -> io::Result<usize> {
        let Some(first) = self.slices.first() else { return Ok(0) };
        let (piece, fd) = (first.ptr_guard(), socket.as_fd().as_raw_fd());
        // SAFETY: as in `read_exact_at`.
        moved(unsafe { libc::send(fd, piece.as_ptr().cast(), first.len(), libc::MSG_NOSIGNAL) })
    }

    fn move_all(
        mut self,
        mut offset: u64,
        written: Written,
        call: impl Fn(&[libc::iovec], libc::off_t) -> isize,
    ) -> io::Result<()> {
        while !self.is_empty() {
            let at = libc::off_t::try_from(offset)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            match moved(call(&self.iovecs(), at)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    if let (Some(front), Written::Yes) = (self.split_front(count), written) {
                        front.mark_written(count);
                    }
                    offset = offset.saturating_add(u64_from(count));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Records the first `count` bytes as written: the kernel does not.
    pub fn mark_written(&self, mut count: usize) {
        for slice in &self.slices {
            slice.bitmap().mark_dirty(0, count.min(slice.len()));
            count = count.saturating_sub(slice.len());
            if count == 0 {
                break;
            }
        }
    }

    /// The pieces as the kernel takes them; the first 1024 (`UIO_MAXIOV`).
    pub fn iovecs(&self) -> Vec<libc::iovec> {
        const MOST: usize = 1024;
        let slices = self.slices.iter().take(MOST);
        slices
            .map(|slice| libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            })
            .collect()
    }
}

/// Whether a call writes to the buffers.
#[derive(Clone, Copy)]
enum Written {
    Yes,
    No,
}

fn count(iovecs: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(iovecs.len()).unwrap_or(libc::c_int::MAX)
}

fn moved(returned: isize) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

impl<B> fmt::Debug for Buffers<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in {} pieces", self.length, self.slices.len())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use kedge_guest_memory::{
        GuestAddress, GuestMemoryAccess as _, GuestRange, dirty, map_anonymous,
    };
    use vm_memory::Permissions;

    use super::*;

    fn in_pieces<'m>(memory: &'m mut [u8], lengths: &[usize]) -> Buffers<'m, ()> {
        let all = VolatileSlice::from(memory);
        let mut buffers = Buffers::default();
        let mut at = 0;
        for &length in lengths {
            buffers.push(all.subslice(at, length).unwrap());
            at += length;
        }
        buffers
    }

    #[test]
    fn what_is_filled_is_recorded_as_written() {
        let ranges = [GuestRange::new(0x1000, 0x4_0000), GuestRange::new(0x10_0000, 0x1_0000)];
        let memory = map_anonymous(&ranges).unwrap();
        dirty::track(&memory);
        let mut buffers = Buffers::default();
        for (start, length) in [(0x1000, 0x8000), (0x10_0000, 0x100)] {
            let slices = memory.get_slices(GuestAddress(start), length, Permissions::Write);
            slices.unwrap().for_each(|slice| buffers.push(slice.unwrap()));
        }
        let source = tempfile::tempfile().unwrap();
        source.set_len(0x8100).unwrap();
        buffers.clone().write_all_at(&source, 0).unwrap();
        assert_eq!(dirty::take(&memory).bytes(), 0);

        buffers.clone().read_exact_at(&source, 0).unwrap();
        let page = u64_from(rustix::param::page_size());
        assert_eq!(dirty::take(&memory).bytes(), 0x8000_u64.next_multiple_of(page) + page);

        let mut source = source;
        source.seek(io::SeekFrom::Start(0x8100 - 0x10)).unwrap();
        buffers.read_from(&source).unwrap();
        assert_eq!(dirty::take(&memory).bytes(), page);
    }

    #[test]
    fn a_front_is_cut_at_any_byte() {
        let mut memory = *b"kedges";
        let mut buffers = in_pieces(&mut memory, &[2, 3, 1]);
        let mut front = buffers.split_front(3).unwrap();
        let (mut first, mut last) = ([0; 8], [0; 8]);
        assert_eq!((front.copy_to(&mut first), buffers.copy_to(&mut last)), (3, 3));
        assert_eq!((&first[..3], &last[..3]), (&b"ked"[..], &b"ges"[..]));
        assert!(buffers.is_empty());
    }

    #[test]
    fn what_is_peeked_at_stays() {
        let mut memory = *b"kedges";
        let mut buffers = in_pieces(&mut memory, &[2, 3, 1]);
        let (mut first, mut all) = ([0; 3], [0; 8]);
        assert_eq!((buffers.peek(&mut first), buffers.peek(&mut all)), (3, 6));
        assert_eq!((&first, &all), (b"ked", b"kedges\0\0"));
        assert_eq!(buffers.copy_to(&mut all), 6);
    }

    #[test]
    fn more_than_there_is_cannot_be_cut_off() {
        let mut memory = [0; 4];
        let mut buffers = in_pieces(&mut memory, &[4]);
        assert!(buffers.split_front(5).is_none());
        assert_eq!(buffers.len(), 4);
    }

    #[test]
    fn a_copy_stops_where_the_buffers_end() {
        let mut memory = [0; 4];
        let mut buffers = in_pieces(&mut memory, &[1, 3]);
        assert_eq!(buffers.copy_from(b"anchor"), 4);
        drop(buffers);
        assert_eq!(&memory, b"anch");
    }

    #[test]
    fn a_file_is_read_and_written_at_an_offset() {
        let mut file = tempfile::tempfile().unwrap();
        let mut memory = *b"anchor";
        in_pieces(&mut memory, &[2, 4]).write_all_at(&file, 3).unwrap();
        let mut content = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(content, b"\0\0\0anchor");

        let mut memory = [0; 3];
        in_pieces(&mut memory, &[1, 2]).read_exact_at(&file, 5).unwrap();
        assert_eq!(&memory, b"cho");
    }

    #[test]
    fn pieces_are_sent_one_at_a_time_until_nobody_reads() {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut memory = *b"kedges";
        let mut buffers = in_pieces(&mut memory, &[2, 4]);
        while !buffers.is_empty() {
            let sent = buffers.send_first(&ours).unwrap();
            buffers.split_front(sent).unwrap();
        }
        let mut read = [0; 6];
        theirs.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"kedges");
        drop(theirs);
        let error = in_pieces(&mut memory, &[2]).send_first(&ours).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"short").unwrap();
        let mut memory = [0; 8];
        let error = in_pieces(&mut memory, &[8]).read_exact_at(&file, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn more_pieces_than_one_call_takes_are_moved_all_the_same() {
        let file = tempfile::tempfile().unwrap();
        let mut memory = [7; 3000];
        in_pieces(&mut memory, &[1; 3000]).write_all_at(&file, 0).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3000);
    }
}
