//! Where a disk's data is: in a raw file or block device of the host's, or with a back end
//! of the program around the machine.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use super::back_end::{self, BlockBackEnd, guarded};
use super::free::{self, Span, Zeroes};
use super::lock::{self, Locked};
use super::open::Access;
use crate::virtio::buffers::Buffers;

/// What direct access wants of addresses and lengths, on most hosts. Those that want
/// more say so, and are then asked by way of the cache.
const ALIGNMENT: usize = 512;

/// Where the data is.
pub(super) enum Store {
    /// In a file of the host's.
    Raw {
        /// By way of the host's cache.
        file: File,
        /// The same past the host's cache, where it is to be used.
        direct: Option<File>,
    },
    /// With the program around the machine.
    BackEnd(Arc<dyn BlockBackEnd>),
}

impl Store {
    /// Fills `into` from byte `at` on.
    ///
    /// # Errors
    /// The host's, or the program's.
    pub(super) fn read(&self, into: Buffers<'_>, at: u64) -> io::Result<()> {
        let file = match self {
            Self::Raw { file, .. } => file,
            Self::BackEnd(disk) => return back_end::read(disk.as_ref(), into, at),
        };
        if let Some(direct) = self.direct_for(&into) {
            match into.clone().read_exact_at(direct, at) {
                Err(error) if wants_more(&error) => {}
                done => return done,
            }
        }
        into.read_exact_at(file, at)
    }

    /// Writes `from` to byte `at` on.
    ///
    /// # Errors
    /// The host's, or the program's.
    pub(super) fn write(&self, from: Buffers<'_>, at: u64) -> io::Result<()> {
        let file = match self {
            Self::Raw { file, .. } => file,
            Self::BackEnd(disk) => return back_end::write(disk.as_ref(), from, at),
        };
        if let Some(direct) = self.direct_for(&from) {
            match from.clone().write_all_at(direct, at) {
                Err(error) if wants_more(&error) => {}
                done => return done,
            }
        }
        from.write_all_at(file, at)
    }

    /// Makes what was written last.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Self::Raw { file, .. } => file.sync_data(),
            Self::BackEnd(disk) => guarded(|| disk.flush()),
        }
    }

    /// Gives `span` back, whatever is read there afterwards.
    ///
    /// # Errors
    /// The host's, or the program's.
    pub(super) fn discard(&self, span: Span) -> io::Result<()> {
        match self {
            Self::Raw { file, .. } => free::discard(file, span),
            Self::BackEnd(disk) => guarded(|| disk.discard(span.offset, span.length)),
        }
    }

    /// Makes `span` zeroes.
    ///
    /// # Errors
    /// The host's, or the program's.
    pub(super) fn zero(&self, span: Span, zeroes: Zeroes) -> io::Result<()> {
        match (self, zeroes) {
            (Self::Raw { file, .. }, _) => free::zero(file, span, zeroes),
            (Self::BackEnd(disk), Zeroes::Freed) => {
                guarded(|| disk.write_zeroes(span.offset, span.length))
            }
            (Self::BackEnd(disk), Zeroes::Kept) => {
                guarded(|| back_end::fill_with_zeroes(disk.as_ref(), span))
            }
        }
    }

    /// Locks it against others. Who may have a back end is the program's to say.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn lock(&self, access: Access) -> io::Result<Locked> {
        match self {
            Self::Raw { file, .. } => lock::lock(file, access),
            Self::BackEnd(_) => Ok(Locked::Yes),
        }
    }

    /// Lets go of the lock.
    pub(super) fn unlock(&self) {
        if let Self::Raw { file, .. } = self {
            lock::unlock(file);
        }
    }

    /// Whether the kernel can be asked for the data.
    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::Raw { .. })
    }

    /// The descriptor to ask the kernel by, past the host's cache or not. One that it
    /// refuses, where there is none.
    pub(super) fn descriptor(&self, is_direct: bool) -> RawFd {
        match self {
            Self::Raw { direct: Some(direct), .. } if is_direct => direct.as_raw_fd(),
            Self::Raw { file, .. } => file.as_raw_fd(),
            Self::BackEnd(_) => -1,
        }
    }

    /// The file past the host's cache, if it is to be used and `data` fit for it. The
    /// host keeps its cache in step where some of the data goes by way of that.
    pub(super) fn direct_for(&self, data: &Buffers<'_>) -> Option<&File> {
        match self {
            Self::Raw { direct, .. } => direct.as_ref().filter(|_| data.are_aligned(ALIGNMENT)),
            Self::BackEnd(_) => None,
        }
    }
}

/// Whether direct access is refused for want of alignment.
pub(super) fn wants_more(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

/// Others may have it at once: closing the file is not enough while a child that was
/// forked meanwhile, and has not called `execve` yet, has a copy of the descriptor.
impl Drop for Store {
    fn drop(&mut self) {
        self.unlock();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw { file, direct } => {
                f.debug_struct("Raw").field("file", file).field("direct", direct).finish()
            }
            Self::BackEnd(_) => f.write_str("BackEnd"),
        }
    }
}
