//! `struct vmclock_abi` (Linux, include/uapi/linux/vmclock-abi.h; UAPI.13), of which
//! only the markers are in use: it tells that time was disrupted, not what time it
//! is. All numbers are little-endian.

/// Offsets of the fields, in bytes.
#[rustfmt::skip]
pub(crate) mod field {
    //                 name                        offset      bits
    pub(crate) const MAGIC:                   usize = 0x00; // 32
    pub(crate) const SIZE:                    usize = 0x04; // 32  of the whole region
    pub(crate) const VERSION:                 usize = 0x08; // 16
    pub(crate) const COUNTER_ID:              usize = 0x0a; //  8
    pub(crate) const SEQ_COUNT:               usize = 0x0c; // 32  odd while fields change
    pub(crate) const DISRUPTION_MARKER:       usize = 0x10; // 64
    pub(crate) const FLAGS:                   usize = 0x18; // 64
    pub(crate) const VM_GENERATION_COUNTER:   usize = 0x68; // 64
    pub(crate) const END:                     usize = 0x70;
}

/// `VMCLOCK_MAGIC`.
const MAGIC: u32 = u32::from_le_bytes(*b"VCLK");
const VERSION: u16 = 1;
/// `VMCLOCK_COUNTER_INVALID`: no counter is related to real time.
const COUNTER_INVALID: u8 = 0xff;
/// `VMCLOCK_FLAG_VM_GEN_COUNTER_PRESENT`, as Linux has it; the table in UAPI.13 is
/// one off from here on.
const GENERATION_PRESENT: u64 = 1 << 8;
/// `VMCLOCK_FLAG_NOTIFICATION_PRESENT`.
const NOTIFICATION_PRESENT: u64 = 1 << 9;

/// The structure in a region of `size` bytes, with its markers 0. Zero everywhere
/// else is right: the clock's status is unknown.
pub(super) fn structure(size: u32) -> [u8; field::END] {
    let mut bytes = [0; field::END];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(field::MAGIC, &MAGIC.to_le_bytes());
    put(field::SIZE, &size.to_le_bytes());
    put(field::VERSION, &VERSION.to_le_bytes());
    put(field::COUNTER_ID, &[COUNTER_INVALID]);
    put(field::FLAGS, &(GENERATION_PRESENT | NOTIFICATION_PRESENT).to_le_bytes());
    bytes
}
