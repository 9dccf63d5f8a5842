//! Calls of the kernel that no library in use has a safe form of.

// UNSAFETY: ioctl(2) trusts its argument to match its number.
#![expect(unsafe_code)]

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;

use crate::tap_ioctl::request;

const KVM_CHECK_EXTENSION: u32 = 0xae03;

/// What KVM says of a capability; 0 where there is no KVM.
pub(crate) fn kvm_capability(number: u32) -> u32 {
    let Ok(kvm) = OpenOptions::new().read(true).write(true).open("/dev/kvm") else { return 0 };
    // SAFETY: the argument is a number.
    let answer = unsafe { libc::ioctl(kvm.as_raw_fd(), request(KVM_CHECK_EXTENSION), number) };
    u32::try_from(answer).unwrap_or(0)
}
