//! An initial RAM disk into guest memory.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};

use kedge_diag::Fix;
use kedge_guest_memory::{
    Bytes as _, GuestAddress, GuestMemory, GuestMemoryError, GuestRange, about_to_fill,
};
use kedge_ids::usize_from;

use super::Loaded;
use crate::Layout;
use crate::size::Size;

/// Where an initrd may start: the largest page of any guest.
const ALIGNMENT: u64 = 64 << 10;
/// The window, aligned to 1 GiB, that has to hold both the kernel and its initrd
/// (Linux, Documentation/arch/arm64/booting.rst, 4).
const WINDOW: u64 = 32 << 30;
const WINDOW_ALIGNMENT: u64 = 1 << 30;

/// Why an initrd is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    /// The file cannot be read.
    #[error("the initrd cannot be read")]
    Read(#[source] io::Error),
    /// There is nothing in the file.
    #[error("the initrd is empty")]
    Empty,
    /// There is no room for it.
    #[error(
        "the initrd takes {}, of the machine's {} of memory the kernel leaves {}",
        Size(*size),
        Size(*memory),
        Size(*left)
    )]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// RAM in bytes.
        memory: u64,
        /// Bytes there are for it.
        left: u64,
    },
    /// The file cannot be read into guest memory, or became shorter meanwhile.
    #[error("the initrd cannot be read into guest memory at {:#x}", address.0)]
    Load {
        /// Where it belongs.
        address: GuestAddress,
        /// What went wrong.
        source: GuestMemoryError,
    },
}

impl Fix for InitrdError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Read(_) => Some("give a regular file that kedge may read".to_owned()),
            Self::Empty => Some("give the initrd that belongs to the kernel, or none".to_owned()),
            Self::TooLarge { size, memory, left } => {
                // Never too little: what is left may have been cut by the window.
                let wanted = memory.saturating_add(size.saturating_sub(*left));
                let mib = wanted.saturating_add(ALIGNMENT).div_ceil(1 << 20);
                Some(format!("give the machine at least {mib} MiB of memory"))
            }
            Self::Load { .. } => Some("leave the file alone while kedge reads it".to_owned()),
        }
    }
}

/// Loads the initrd in `file` into `memory` as high as `kernel` can reach, and
/// says where it is.
///
/// # Errors
/// The file cannot be read, is empty, or does not fit.
pub fn load_initrd(
    file: &File,
    memory: &GuestMemory,
    layout: &Layout,
    kernel: &Loaded,
) -> Result<GuestRange, InitrdError> {
    let mut file = file;
    let size = file.seek(SeekFrom::End(0)).map_err(InitrdError::Read)?;
    if size == 0 {
        return Err(InitrdError::Empty);
    }
    let window = kernel.range.start.0 / WINDOW_ALIGNMENT * WINDOW_ALIGNMENT + WINDOW;
    let top = layout.ram_end().min(window);
    let floor = kernel.range.end().saturating_add(ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    let left = top.saturating_sub(floor);
    if size > left {
        return Err(InitrdError::TooLarge { size, memory: layout.memory(), left });
    }
    let address = GuestAddress((top - size) / ALIGNMENT * ALIGNMENT);
    file.rewind().map_err(InitrdError::Read)?;
    about_to_fill(memory, GuestRange { start: address, size });
    memory
        .read_exact_volatile_from(address, &mut file, usize_from(size))
        .map_err(|source| InitrdError::Load { address, source })?;
    Ok(GuestRange { start: address, size })
}
