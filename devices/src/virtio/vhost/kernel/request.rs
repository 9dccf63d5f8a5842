//! The one request of vhost-net's that the crate `vhost` makes only of files that it opened
//! itself.

// UNSAFETY: the request has no safe form.
#![expect(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vhost::vhost_kern::vhost_binding::{VHOST_NET_SET_BACKEND, vhost_vring_file};
use vmm_sys_util::ioctl::ioctl_with_ref;

/// Serves the queue `index` of `device`, 0 to receive and 1 to send, from `tap` on; or leaves it
/// alone, when all that was taken from it is given back.
///
/// # Errors
/// The host's: `device` is not one of vhost-net's, or `tap` not a tap's.
pub(super) fn set_backend(
    device: &File,
    index: u16,
    tap: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    const NONE: i32 = -1;
    let fd = tap.map_or(NONE, |tap| tap.as_raw_fd());
    let file = vhost_vring_file { index: index.into(), fd };
    // SAFETY: the request reads that structure and nothing else of this process. What the kernel
    // works on from then on is guest memory, to which nobody has references, and a log that is
    // mapped until it was told to leave its queues alone, or is gone.
    let result = unsafe { ioctl_with_ref(device, VHOST_NET_SET_BACKEND(), &file) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
