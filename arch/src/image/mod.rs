//! Loading what a guest boots from: kernels in the forms that arm64 kernels come
//! in, and initial RAM disks.
//!
//! Files are input: whatever they hold, nothing is written outside the guest's
//! RAM above [`Layout::load_floor`], and no more is unpacked than fits there.

mod initrd;
mod kernel;

pub use initrd::{InitrdError, load_initrd};
pub use kernel::{KernelError, KernelFormat, Loaded, PageSize, load_kernel};
