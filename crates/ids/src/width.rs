//! The two conversions between `usize` and `u64`, which lose nothing because
//! kedge is built for 64-bit hosts only.

const _: () = assert!(usize::BITS == u64::BITS, "kedge needs a 64-bit host");

/// A length or index as a guest-visible number.
#[expect(clippy::as_conversions, reason = "same width, asserted above")]
pub const fn u64_from(n: usize) -> u64 {
    n as u64
}

/// A guest-visible number as a length or index.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "same width, asserted above"
)]
pub const fn usize_from(n: u64) -> usize {
    n as usize
}
