//! Space that a guest gives back, and zeroes that it need not send: the host frees
//! what a file or block device stores there, where it can.

// UNSAFETY: rustix has no call for BLKDISCARD, and takes its number on trust.
#![expect(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// Whether space that is zeroed stays allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zeroes {
    /// It is given back, so that a later write may find the host full.
    Freed,
    /// It is kept.
    Kept,
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The first.
    pub(super) offset: u64,
    /// How many.
    pub(super) length: u64,
}

/// Gives `span` back, whatever is read there afterwards. A host that cannot need not.
///
/// # Errors
/// The host's.
pub(super) fn discard(file: &File, span: Span) -> io::Result<()> {
    let Span { offset, length } = span;
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, hole, offset, length) {
        Err(error) if cannot(error) => match discard_blocks(file, span) {
            Err(error) if cannot(error) => Ok(()),
            done => Ok(done?),
        },
        done => Ok(done?),
    }
}

/// Makes `span` zeroes.
///
/// # Errors
/// The host's.
pub(super) fn zero(file: &File, span: Span, zeroes: Zeroes) -> io::Result<()> {
    let how = match zeroes {
        Zeroes::Freed => FallocateFlags::PUNCH_HOLE,
        Zeroes::Kept => FallocateFlags::ZERO_RANGE,
    };
    match fallocate(file, how | FallocateFlags::KEEP_SIZE, span.offset, span.length) {
        Err(error) if cannot(error) => write_zeroes(file, span),
        done => Ok(done?),
    }
}

/// Whether the host cannot do this kind of thing, or not with this alignment.
fn cannot(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NOTTY | Errno::NODEV)
}

/// `BLKDISCARD`, of a block device only.
fn discard_blocks(file: &File, Span { offset, length }: Span) -> Result<(), Errno> {
    const BLKDISCARD: Opcode = opcode::none(0x12, 119);
    if !file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device()) {
        return Err(Errno::OPNOTSUPP);
    }
    // SAFETY: the number is Linux's, whose argument is the address of two u64.
    let request = unsafe { Setter::<BLKDISCARD, [u64; 2]>::new([offset, length]) };
    // SAFETY: the request only reads its argument and changes no memory.
    unsafe { ioctl(file, request) }
}

fn write_zeroes(file: &File, Span { offset, length }: Span) -> io::Result<()> {
    let zeroes = vec![0; 65536];
    let (mut at, end) = (offset, offset.saturating_add(length));
    while at < end {
        let piece = usize::try_from(end - at).unwrap_or(usize::MAX).min(zeroes.len());
        file.write_all_at(&zeroes[..piece], at)?;
        at = at.saturating_add(kedge_ids::u64_from(piece));
    }
    Ok(())
}
