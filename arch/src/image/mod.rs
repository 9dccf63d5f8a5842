//! Loading what a guest boots from: kernels in the forms that arm64 kernels come
//! in, and initial RAM disks.
//!
//! Files are input: whatever they hold, nothing is written outside the guest's
//! RAM above [`Layout::load_floor`], and no more is unpacked than fits there.
//!
//! [`Layout::load_floor`]: crate::Layout::load_floor

mod content;
mod error;
mod header;
mod initrd;
mod kernel;
mod legacy_lz4;
mod ram;
mod sniff;
mod unpack;
mod vmlinux;
mod zboot;

pub use error::KernelError;
pub use header::PageSize;
pub use initrd::{InitrdError, load_initrd};
pub use kernel::{KernelFormat, Loaded, load_kernel};
pub use unpack::Compression;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
