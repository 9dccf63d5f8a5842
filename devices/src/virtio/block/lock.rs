//! Who may have a disk: one who writes, or any number who read. The lock is the open
//! file's own (`F_OFD_SETLK`, fcntl(2)), as other machine monitors take it, and goes
//! when all descriptors of the file are closed, those of forked processes too.

// UNSAFETY: neither std nor rustix has these locks.
#![expect(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::open::Access;

/// Whether a lock could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locked {
    /// It is ours; or the file system has no locks, and then nobody can have it.
    Yes,
    /// Another open file has one that excludes it.
    InUse,
}

/// Locks `file` against whoever would write to what is read, or read what is written.
/// Nothing where it is locked by itself already.
///
/// # Errors
/// The host's.
pub(super) fn lock(file: &File, access: Access) -> io::Result<Locked> {
    let kind = match access {
        Access::ReadWrite => libc::F_WRLCK,
        Access::ReadOnly => libc::F_RDLCK,
    };
    let Err(error) = set(file, kind) else { return Ok(Locked::Yes) };
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(Locked::InUse),
        Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => {
            tracing::debug!(%error, "the host cannot lock a disk");
            Ok(Locked::Yes)
        }
        _ => Err(error),
    }
}

/// Lets go of the lock.
pub(super) fn unlock(file: &File) {
    if let Err(error) = set(file, libc::F_UNLCK) {
        tracing::debug!(%error, "the host cannot unlock a disk");
    }
}

/// Sets the lock of all of `file`, whatever its length becomes.
fn set(file: &File, kind: libc::c_int) -> io::Result<()> {
    let lock = libc::flock {
        l_type: libc::c_short::try_from(kind).expect("the kinds are 0 to 2"),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the command reads the one structure it is
    // given, which lives as long as the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
