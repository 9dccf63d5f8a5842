//! Disks that are no file: a program that embeds the machine keeps the data itself, in
//! memory, compressed, on a network, and answers for it here.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kedge_ids::{u64_from, usize_from};

use super::free::Span;
use crate::virtio::buffers::Buffers;

/// Where the data of a disk is.
///
/// It is called on the thread on which the disk works, one request at a time. Other devices
/// may share that thread, and a machine that pauses waits for it: what takes long keeps them
/// waiting, unless the machine has threads for its devices (`MachineSpec::io_threads`).
///
/// Every access is within [`BlockBackEnd::size`], as offset and length are whole sectors of
/// 512 bytes; whatever the guest asks for beyond it is refused before. An error is one to the
/// guest (`VIRTIO_BLK_S_IOERR`), counted and told as any disk's, and so is a panic, in a
/// program that unwinds.
pub trait BlockBackEnd: Send + Sync {
    /// The size of the disk in bytes: 512 at least. What exceeds whole sectors of 512 is not
    /// seen. It is asked for when the disk is opened, and stays.
    fn size(&self) -> u64;

    /// Fills all of `into` from byte `offset` on.
    ///
    /// # Errors
    /// It cannot. What is in `into` is then of no meaning.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;

    /// Takes all of `from`, to be at byte `offset` on. A disk that is given to the guest to be
    /// read only is never asked to.
    ///
    /// # Errors
    /// It cannot. What is there is then one or the other, sector by sector.
    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()>;

    /// Returns once all that was taken lasts, whatever becomes of the process or the host.
    ///
    /// # Errors
    /// It does not last.
    fn flush(&self) -> io::Result<()>;

    /// The guest does not need `length` bytes at `offset` any more, whatever it reads there
    /// from now on. Nothing needs to be done.
    ///
    /// # Errors
    /// It was tried, and failed.
    fn discard(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    /// Makes `length` bytes at `offset` zeroes, and need not keep space for them. By default
    /// they are written.
    ///
    /// # Errors
    /// As for [`BlockBackEnd::write_at`].
    fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        fill_with_zeroes(self, Span { offset, length })
    }

    /// What the guest finds as the disk's serial number: up to 20 bytes, and zeroes behind
    /// them (Virtio 1.2, 5.2.6).
    fn serial(&self) -> [u8; 20] {
        [0; 20]
    }
}

/// The most bytes that a back end is asked for at once: it is handed a copy, as a guest may
/// write to its own memory at any time.
const PIECE: usize = 256 << 10;

/// Fills `into` from byte `at` on.
///
/// # Errors
/// The back end's.
pub(super) fn read(disk: &dyn BlockBackEnd, mut into: Buffers<'_>, mut at: u64) -> io::Result<()> {
    let mut piece = vec![0; into.len().min(PIECE)];
    while !into.is_empty() {
        let wanted = into.len().min(piece.len());
        let piece = &mut piece[..wanted];
        guarded(|| disk.read_at(piece, at))?;
        at = at.saturating_add(u64_from(into.copy_from(piece)));
    }
    Ok(())
}

/// Writes `from` to byte `at` on.
///
/// # Errors
/// The back end's.
pub(super) fn write(disk: &dyn BlockBackEnd, mut from: Buffers<'_>, mut at: u64) -> io::Result<()> {
    let mut piece = vec![0; from.len().min(PIECE)];
    while !from.is_empty() {
        let copied = from.copy_to(&mut piece);
        guarded(|| disk.write_at(&piece[..copied], at))?;
        at = at.saturating_add(u64_from(copied));
    }
    Ok(())
}

/// Makes `span` zeroes that keep their space.
///
/// # Errors
/// The back end's.
pub(super) fn fill_with_zeroes(
    disk: &(impl BlockBackEnd + ?Sized),
    Span { offset, length }: Span,
) -> io::Result<()> {
    let zeroes = vec![0; usize_from(length.min(u64_from(PIECE)))];
    let (mut at, end) = (offset, offset.saturating_add(length));
    while at < end {
        let piece = usize_from((end - at).min(u64_from(zeroes.len())));
        disk.write_at(&zeroes[..piece], at)?;
        at = at.saturating_add(u64_from(piece));
    }
    Ok(())
}

/// Has the program's code do something, whose panic must not end the thread of all devices.
///
/// # Errors
/// Its own, or it panicked.
pub(super) fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // What it was at is the program's own: it is shared with it, and behind `&self`.
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(io::Error::other("the disk's back end panicked")))
}
