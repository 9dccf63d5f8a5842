//! The part of guest memory that a kernel may fill.

use kedge_guest_memory::{Bytes as _, GuestMemory, GuestRange, about_to_fill};
use kedge_ids::u64_from;

use super::KernelError;
use super::content::Content;
use crate::Layout;
use crate::layout::RAM_BASE;

/// Kernels start at a multiple of this and their text offset (Linux,
/// Documentation/arch/arm64/booting.rst, 4).
const ALIGNMENT: u64 = 2 << 20;

/// Guest RAM while a kernel is loaded into it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ram<'a> {
    memory: &'a GuestMemory,
    layout: &'a Layout,
}

impl<'a> Ram<'a> {
    pub(super) const fn new(memory: &'a GuestMemory, layout: &'a Layout) -> Self {
        Self { memory, layout }
    }

    /// Where a flat binary goes.
    pub(super) const fn floor(&self) -> u64 {
        self.layout.load_floor()
    }

    /// Bytes of RAM, the most that any unpacked file may have.
    pub(super) const fn size(&self) -> u64 {
        self.layout.memory()
    }

    /// The lowest address at `offset` from a multiple of 2 MiB.
    pub(super) const fn lowest(&self, offset: u64) -> u64 {
        let address = RAM_BASE.saturating_add(offset);
        if address >= self.floor() { address } else { address.saturating_add(ALIGNMENT) }
    }

    /// How far `address` is from the multiple of 2 MiB before it.
    pub(super) const fn offset(address: u64) -> u64 {
        address % ALIGNMENT
    }

    /// The range of `size` bytes at `start`, if a kernel may be there.
    pub(super) fn range(&self, start: u64, size: u64) -> Result<GuestRange, KernelError> {
        let range = GuestRange::new(start, size);
        match range.end() {
            _ if start < self.floor() => Err(KernelError::TooLow { start, floor: self.floor() }),
            end if end > self.layout.ram_end() => {
                Err(KernelError::TooLarge { end, memory: self.size() })
            }
            _ => Ok(range),
        }
    }

    /// Fills `to` from `at` bytes into `content` on.
    pub(super) fn fill(
        &self,
        to: GuestRange,
        content: &impl Content,
        at: u64,
    ) -> Result<(), KernelError> {
        let to = self.range(to.start.0, to.size)?;
        about_to_fill(self.memory, to);
        content
            .load(at, self.memory, to)
            .map_err(|source| KernelError::Load { address: to.start, source })
    }

    /// Writes `bytes` to `address`.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), KernelError> {
        let GuestRange { start: address, .. } = self.range(address, u64_from(bytes.len()))?;
        self.memory
            .write_slice(bytes, address)
            .map_err(|source| KernelError::Load { address, source })
    }
}
