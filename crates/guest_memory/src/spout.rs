//! Writing guest RAM to a file by way of a pipe. The pipe holds on to pages rather than
//! copies of them, and the kernel copies them into the file from there: on a tmpfs that is
//! two thirds of the work of writing the same in one call, which looks every page up anew.
//! What takes nothing from a pipe is written to.

// UNSAFETY: to lend the kernel memory that changes under it, as a guest's can, has no safe
// form.
#![expect(unsafe_code)]

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};

use kedge_ids::u64_from;
use libc::iovec;
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use vm_memory::Bytes as _;

use crate::RamSlice;

/// Bytes that a pipe is asked to hold: the most that any user may have (Linux,
/// `proc_sys_fs(5)`, `pipe-max-size`).
const PIPE: usize = 1 << 20;
/// Bytes that are written at once without one.
const PIECE: usize = 256 << 10;

/// A way from memory into files.
pub(crate) struct Spout(Option<Pipe>);

struct Pipe {
    from: OwnedFd,
    to: OwnedFd,
}

impl Spout {
    pub(crate) fn new() -> Self {
        let pipe = pipe_with(PipeFlags::CLOEXEC).ok().map(|(from, to)| {
            // One of the size that it has does, too.
            let _ = fcntl_setpipe_size(&to, PIPE);
            Pipe { from, to }
        });
        Self(pipe)
    }

    /// Writes `pages` to `file` at `offset`. A page that is gone is an error, no signal.
    pub(crate) fn write(
        &mut self,
        file: &File,
        mut offset: u64,
        pages: &RamSlice<'_>,
    ) -> io::Result<()> {
        let mut rest = *pages;
        while !rest.is_empty() {
            let written = match &self.0 {
                Some(pipe) => match pipe.pass_on(file, offset, &rest) {
                    // The file system or the pipe does not do it: what the pipe holds is lent.
                    Err(Errno::INVAL | Errno::NOSYS | Errno::PERM) => {
                        self.0 = None;
                        continue;
                    }
                    passed => passed?,
                },
                None => write(file, offset, &rest)?,
            };
            rest = rest.offset(written).map_err(io::Error::other)?;
            offset += u64_from(written);
        }
        Ok(())
    }
}

impl Pipe {
    /// Lends the pipe as much of `pages` as it holds, and lets the file have it: how many
    /// bytes.
    fn pass_on(&self, file: &File, offset: u64, pages: &RamSlice<'_>) -> Result<usize, Errno> {
        let held = retry_on_intr(|| lend(&self.to, pages))?;
        let (mut at, mut passed) = (offset, 0);
        while passed < held {
            let left = held - passed;
            let to = Some(&mut at);
            passed += match splice(&self.from, None, file, to, left, SpliceFlags::empty()) {
                Ok(0) => return Err(Errno::IO),
                Ok(some) => some,
                Err(Errno::INTR) => 0,
                Err(error) => return Err(error),
            };
        }
        Ok(held)
    }
}

/// Lends `pipe` some of `pages`, as much as it takes: how many bytes.
fn lend(pipe: &OwnedFd, pages: &RamSlice<'_>) -> Result<usize, Errno> {
    let guard = pages.ptr_guard();
    let start = guard.as_ptr().cast_mut().cast();
    let lent = iovec { iov_base: start, iov_len: pages.len().min(PIPE) };
    // SAFETY: the bytes are mapped while `guard` lives, which is as long as the call looks for
    // their pages. From then on the pipe holds the pages themselves, whatever becomes of the
    // mapping. That they could change meanwhile harms nobody: they are copied, once.
    let held = unsafe { libc::vmsplice(pipe.as_raw_fd(), &lent, 1, 0) };
    usize::try_from(held).map_err(|_| last_errno())
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Writes some of `pages`: how many bytes.
fn write(mut file: &File, offset: u64, pages: &RamSlice<'_>) -> io::Result<usize> {
    file.seek(SeekFrom::Start(offset))?;
    let length = pages.len().min(PIECE);
    pages.write_all_volatile_to(0, &mut file, length).map_err(|error| match error {
        vm_memory::VolatileMemoryError::IOError(error) => error,
        error => io::Error::other(error),
    })?;
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use crate::{GuestAddress, GuestMemory, GuestMemoryAccess as _, GuestRange, map_anonymous};

    use super::*;

    const START: u64 = 0x8000_0000;
    const LENGTH: usize = 3 << 20;

    fn filled() -> (GuestMemory, Vec<u8>) {
        let memory = map_anonymous(&[GuestRange::new(START, u64_from(LENGTH))]).unwrap();
        let bytes: Vec<u8> = (0..LENGTH).map(|at| u8::try_from(at % 251).unwrap()).collect();
        memory.write_slice(&bytes, GuestAddress(START)).unwrap();
        (memory, bytes)
    }

    fn slice(memory: &GuestMemory) -> RamSlice<'_> {
        let permissions = vm_memory::Permissions::Read;
        let mut slices = memory.get_slices(GuestAddress(START), LENGTH, permissions).unwrap();
        slices.next().unwrap().unwrap()
    }

    #[test]
    fn all_arrives_where_it_belongs_with_a_pipe_and_without() {
        let (memory, bytes) = filled();
        for mut spout in [Spout::new(), Spout(None)] {
            let mut file = tempfile::tempfile().unwrap();
            spout.write(&file, 0x1000, &slice(&memory)).unwrap();
            let mut found = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut found).unwrap();
            assert!(found[..0x1000].iter().all(|byte| *byte == 0));
            assert!(found[0x1000..] == bytes);
        }
    }

    #[test]
    fn what_is_written_later_does_not_change_the_file() {
        let (memory, bytes) = filled();
        let mut file = tempfile::tempfile().unwrap();
        Spout::new().write(&file, 0, &slice(&memory)).unwrap();
        memory.write_slice(&vec![0xff; LENGTH], GuestAddress(START)).unwrap();
        let mut found = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut found).unwrap();
        assert!(found == bytes);
    }

    #[test]
    fn a_file_that_takes_nothing_from_a_pipe_is_written_to() {
        let (memory, _) = filled();
        let terminal = File::options().write(true).open("/dev/full").unwrap();
        let error = Spout::new().write(&terminal, 0, &slice(&memory)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(Spout::new().write(&File::open("/dev/null").unwrap(), 0, &slice(&memory)).is_err());
    }
}
