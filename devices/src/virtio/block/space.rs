//! The configuration space: `struct virtio_blk_config` (5.2.4), up to the last field
//! that we have.

use std::ops::Range;

use super::config::Cache;
use super::disk::Disk;
use super::promise::{DISCARD, WRITE_ZEROES};

/// Bytes up to the last field.
pub(super) const LENGTH: usize = 60;

/// Where fields are.
#[rustfmt::skip]
pub(super) mod field {
    use super::Range;

    pub(in crate::virtio::block) const CAPACITY:                Range<usize> = 0..8;
    pub(in crate::virtio::block) const SEG_MAX:                 Range<usize> = 12..16;
    pub(in crate::virtio::block) const BLK_SIZE:                Range<usize> = 20..24;
    pub(in crate::virtio::block) const PHYSICAL_BLOCK_EXP:      usize        = 24;
    pub(in crate::virtio::block) const MIN_IO_SIZE:             Range<usize> = 26..28;
    pub(in crate::virtio::block) const WRITEBACK:               usize        = 32;
    pub(in crate::virtio::block) const NUM_QUEUES:              Range<usize> = 34..36;
    pub(in crate::virtio::block) const MAX_DISCARD_SECTORS:     Range<usize> = 36..40;
    pub(in crate::virtio::block) const MAX_DISCARD_SEG:         Range<usize> = 40..44;
    pub(in crate::virtio::block) const DISCARD_ALIGNMENT:       Range<usize> = 44..48;
    pub(in crate::virtio::block) const MAX_WRITE_ZEROES:        Range<usize> = 48..52;
    pub(in crate::virtio::block) const MAX_WRITE_ZEROES_SEG:    Range<usize> = 52..56;
    pub(in crate::virtio::block) const WRITE_ZEROES_MAY_UNMAP:  usize        = 56;
}

/// What the driver finds of `disk`.
pub(super) fn space(disk: &Disk) -> [u8; LENGTH] {
    let promise = disk.promise();
    let writeback = promise.cache == Cache::Writeback && !disk.is_through();
    let mut space = [0; LENGTH];
    let mut put = |at: Range<usize>, bytes: &[u8]| space[at].copy_from_slice(bytes);
    put(field::CAPACITY, &disk.sectors().to_le_bytes());
    put(field::SEG_MAX, &promise.seg_max.to_le_bytes());
    put(field::BLK_SIZE, &promise.block_size.to_le_bytes());
    put(field::MIN_IO_SIZE, &promise.min_io_blocks().to_le_bytes());
    put(field::NUM_QUEUES, &promise.queues.to_le_bytes());
    put(field::MAX_DISCARD_SECTORS, &DISCARD.sectors.to_le_bytes());
    put(field::MAX_DISCARD_SEG, &DISCARD.segments.to_le_bytes());
    put(field::DISCARD_ALIGNMENT, &promise.physical_sectors().to_le_bytes());
    put(field::MAX_WRITE_ZEROES, &WRITE_ZEROES.sectors.to_le_bytes());
    put(field::MAX_WRITE_ZEROES_SEG, &WRITE_ZEROES.segments.to_le_bytes());
    space[field::PHYSICAL_BLOCK_EXP] = promise.physical_exp;
    space[field::WRITEBACK] = writeback.into();
    space[field::WRITE_ZEROES_MAY_UNMAP] = 1;
    space
}

/// What a store of `data` at `offset` makes of `writeback`; none where it is not that
/// field, the only one that a driver may write to.
pub(super) fn stored_writeback(offset: u64, data: &[u8]) -> Option<u8> {
    let at = usize::try_from(offset).ok()?;
    let index = field::WRITEBACK.checked_sub(at)?;
    data.get(index).copied()
}
