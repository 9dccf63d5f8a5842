//! Loads and stores of a chosen width, each by an instruction that a hypervisor
//! can decode from the fault it causes.

// UNSAFETY: the addresses are physical and anybody's.
#![expect(unsafe_code)]

use core::arch::asm;

/// The width of an access in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Width {
    /// A byte.
    W1 = 1,
    /// A half word.
    W2 = 2,
    /// A word.
    W4 = 4,
    /// A double word.
    W8 = 8,
}

impl Width {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::W1, Self::W2, Self::W4, Self::W8];

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::W1 => 1,
            Self::W2 => 2,
            Self::W4 => 4,
            Self::W8 => 8,
        }
    }
}

/// What a load reads. The address must be no Rust object's, and suit the width.
pub fn load(address: u64, width: Width) -> u64 {
    let mut value: u64 = 0;
    // SAFETY: as the function demands: nothing of ours is read behind the
    // compiler's back.
    unsafe {
        match width {
            Width::W1 => asm!("ldrb {0:w}, [{1}]", inout(reg) value, in(reg) address),
            Width::W2 => asm!("ldrh {0:w}, [{1}]", inout(reg) value, in(reg) address),
            Width::W4 => asm!("ldr {0:w}, [{1}]", inout(reg) value, in(reg) address),
            Width::W8 => asm!("ldr {0:x}, [{1}]", inout(reg) value, in(reg) address),
        }
    }
    value
}

/// Stores. The address must be no Rust object's, and suit the width.
pub fn store(address: u64, width: Width, value: u64) {
    // SAFETY: as the function demands: nothing of ours is written behind the
    // compiler's back.
    unsafe {
        match width {
            Width::W1 => asm!("strb {0:w}, [{1}]", in(reg) value, in(reg) address),
            Width::W2 => asm!("strh {0:w}, [{1}]", in(reg) value, in(reg) address),
            Width::W4 => asm!("str {0:w}, [{1}]", in(reg) value, in(reg) address),
            Width::W8 => asm!("str {0:x}, [{1}]", in(reg) value, in(reg) address),
        }
    }
}

/// [`load`] of a word.
#[must_use]
pub fn load32(address: u64) -> u32 {
    // The upper half is zero.
    u32::try_from(load(address, Width::W4)).unwrap_or_default()
}

/// [`store`] of a word.
pub fn store32(address: u64, value: u32) {
    store(address, Width::W4, value.into());
}
