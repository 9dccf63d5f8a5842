//! Pages that a guest reads registers from without an exit: the host writes them, the guest
//! has them in a memory slot that it cannot store to.
//!
//! A guest maps registers as Device memory. Where the processor cannot force its own
//! attributes on that (FEAT_S2FWB), such a load goes past the caches to the point of
//! coherency: what is written here is cleaned to there before anybody is told of it (Arm
//! ARM, part B2, "Mismatched memory attributes").

// UNSAFETY: cache maintenance is an instruction that Rust has no name for.
#![cfg_attr(target_arch = "aarch64", expect(unsafe_code))]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kedge_ids::usize_from;
use vm_memory::{GuestMemoryRegion as _, VolatileMemory as _};

use crate::{DirtyPages, GuestRange, MapError, MmapRegion, RamRegion, map_anonymous, regions};

/// The registers of one or more devices, zero at first. Clones share them.
#[derive(Clone, Debug)]
pub struct RegisterPages {
    region: Arc<RamRegion>,
    mapping: Arc<MmapRegion<DirtyPages>>,
    start: usize,
    length: usize,
}

impl RegisterPages {
    /// Those at `range` of the guest's addresses.
    ///
    /// # Errors
    /// The host has no memory for them.
    pub fn new(range: GuestRange) -> Result<Self, MapError> {
        let layout = || MapError::Layout { start: range.start.0 };
        let memory = map_anonymous(&[range])?;
        let region = regions(&memory).into_iter().next().ok_or_else(layout)?;
        let (mapping, length) = (region.get_mmap(), usize_from(region.len()));
        Ok(Self { region, mapping, start: 0, length })
    }

    /// The memory, for a memory slot.
    pub fn region(&self) -> &Arc<RamRegion> {
        &self.region
    }

    /// The registers from byte `start` on, `length` bytes of them at most.
    pub fn part(&self, start: u64, length: u64) -> Self {
        let first = self.length.min(usize_from(start));
        let length = (self.length - first).min(usize_from(length));
        Self { start: self.start + first, length, ..self.clone() }
    }

    /// The register at byte `offset`; 0 where there is none.
    pub fn get(&self, offset: u64) -> u32 {
        self.at(offset).map_or(0, |register| u32::from_le(register.load(Ordering::SeqCst)))
    }

    /// Makes the register at byte `offset` read as `value`, if there is one.
    pub fn set(&self, offset: u64, value: u32) {
        let Some(register) = self.at(offset) else { return };
        // A line that is not written need not be cleaned.
        if register.load(Ordering::SeqCst) != value.to_le() {
            register.store(value.to_le(), Ordering::SeqCst);
            clean(register);
        }
    }

    /// Sets `bits` of the register at byte `offset`, whoever changes others of it.
    pub fn set_bits(&self, offset: u64, bits: u32) {
        let Some(register) = self.at(offset) else { return };
        if u32::from_le(register.load(Ordering::SeqCst)) & bits != bits {
            register.fetch_or(bits.to_le(), Ordering::SeqCst);
            clean(register);
        }
    }

    /// Clears `bits` of it.
    pub fn clear_bits(&self, offset: u64, bits: u32) {
        let Some(register) = self.at(offset) else { return };
        register.fetch_and(!bits.to_le(), Ordering::SeqCst);
        clean(register);
    }

    fn at(&self, offset: u64) -> Option<&AtomicU32> {
        let offset = usize::try_from(offset).ok()?;
        let is_within = offset.checked_add(size_of::<u32>())? <= self.length;
        is_within.then(|| self.mapping.get_atomic_ref(self.start + offset))?.ok()
    }
}

/// Cleans the cache line of `register` to the point of coherency, and waits for it.
fn clean(register: &AtomicU32) {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: cleaning a line changes no memory that anybody reads through the caches, and
    // the address is of memory that is mapped, writable, while the reference lives. Linux
    // lets EL0 do it (SCTLR_EL1.UCI).
    unsafe {
        let address = register.as_ptr();
        std::arch::asm!("dc cvac, {}", "dsb sy", in(reg) address, options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    let _ = register;
}

#[cfg(test)]
mod tests {
    use crate::{Bytes as _, MemoryRegionAddress};

    use super::*;

    const RANGE: GuestRange = GuestRange::new(0x4000_3000, 0x2000);

    #[test]
    fn registers_read_as_they_were_set_and_are_little_endian() {
        let pages = RegisterPages::new(RANGE).unwrap();
        pages.set(0x1008, 0x0102_0304);
        let mut bytes = [0; 4];
        pages.region().read_slice(&mut bytes, MemoryRegionAddress(0x1008)).unwrap();
        assert_eq!(bytes, [4, 3, 2, 1]);
        let second = pages.part(0x1000, 0x1000);
        assert_eq!((second.get(8), pages.get(8)), (0x0102_0304, 0));
    }

    #[test]
    fn bits_change_alone() {
        let pages = RegisterPages::new(RANGE).unwrap();
        pages.set(0, 0b100);
        pages.set_bits(0, 0b11);
        assert_eq!(pages.get(0), 0b111);
        pages.clear_bits(0, 0b101);
        assert_eq!(pages.get(0), 0b010);
    }

    #[test]
    fn there_are_no_others() {
        let pages = RegisterPages::new(RANGE).unwrap();
        let last = pages.part(0x1000, u64::MAX);
        for (pages, offset) in
            [(&pages, 0x2000), (&pages, 0x1ffd), (&last, 0x1000), (&last, u64::MAX)]
        {
            pages.set(offset, 1);
            pages.set_bits(offset, 2);
            pages.clear_bits(offset, 1);
            assert_eq!(pages.get(offset), 0);
        }
        assert_eq!(pages.part(0x3000, 1).get(0), 0);
    }
}
