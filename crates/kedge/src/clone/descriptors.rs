//! What a process that this one starts gets of its open files: nothing but what it is to
//! have.
//!
//! UNSAFETY: rustix has this for a descriptor in somebody's hands, and not for one that a
//! library keeps to itself.
#![expect(unsafe_code)]

use std::fs;
use std::io;

use libc::{F_SETFD, FD_CLOEXEC, STDERR_FILENO, c_int};

/// Has all that is open, but for standard input and output, close where another program is
/// started: what libraries open without a word on it, and what this process was born with.
///
/// # Errors
/// There is no `/proc`.
pub(super) fn keep_to_this_process() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse::<c_int>().ok());
        if let Some(number) = number.filter(|number| *number > STDERR_FILENO) {
            // SAFETY: the call takes a number and touches no memory. What has that number by
            // now, if it is another file than the one that was found, is to close as well.
            // It fails where there is none any more.
            unsafe { libc::fcntl(number, F_SETFD, FD_CLOEXEC) };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

    use super::*;

    #[test]
    fn what_is_open_is_not_for_others() {
        let file = fs::File::open("/dev/null").unwrap();
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        keep_to_this_process().unwrap();
        assert_eq!(fcntl_getfd(&file).unwrap(), FdFlags::CLOEXEC);
        assert_eq!(fcntl_getfd(io::stderr()).unwrap(), FdFlags::empty());
    }
}
