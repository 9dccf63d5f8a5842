//! What a guest goes by as long as it lives, besides the size of its disk.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_WRITE_ZEROES,
};

use super::config::{BlockConfig, Cache};
use super::open::{Access, Opened, SERIAL};
use super::{SECTOR, SEG_MAX};

/// The most that one request may discard or fill with zeroes: requests share a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Most {
    /// Sectors of 512 bytes in a segment.
    pub(super) sectors: u32,
    /// Segments in a request.
    pub(super) segments: u32,
}

/// Of discards: 512 MiB each, which file systems free at once.
pub(super) const DISCARD: Most = Most { sectors: 1 << 20, segments: 16 };

/// Of zeroes: 32 MiB, which have to be written where the host cannot do better.
pub(super) const WRITE_ZEROES: Most = Most { sectors: 1 << 16, segments: 1 };

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Promise {
    /// The size of a block in bytes.
    pub(super) block_size: u32,
    /// What is stored as one, as a power of two of blocks.
    pub(super) physical_exp: u8,
    /// Buffers in a request, besides its header and its status.
    pub(super) seg_max: u32,
    /// The serial number.
    pub(super) serial: [u8; SERIAL],
    /// Whether the guest may write.
    pub(super) access: Access,
    /// What becomes of what it writes.
    pub(super) cache: Cache,
    /// How many queues there are.
    pub(super) queues: u16,
}

impl Promise {
    /// What a new guest is promised of an open disk.
    pub(super) fn new(config: &BlockConfig, opened: &Opened) -> Self {
        let &BlockConfig { access, cache, queues, .. } = config;
        let &Opened { block_size, physical_size, serial, .. } = opened;
        let blocks = (physical_size / block_size.max(1)).max(1);
        let physical_exp = u8::try_from(blocks.ilog2().min(7)).unwrap_or(0);
        let seg_max = u32::from(SEG_MAX);
        Self { block_size, physical_exp, seg_max, serial, access, cache, queues }
    }

    /// The features of such a disk.
    pub(super) fn features(&self) -> u64 {
        let is_writable = self.access == Access::ReadWrite;
        let can_flush = self.cache == Cache::Writeback;
        let optional = [
            (VIRTIO_BLK_F_RO, !is_writable),
            (VIRTIO_BLK_F_FLUSH, can_flush),
            (VIRTIO_BLK_F_CONFIG_WCE, can_flush),
            (VIRTIO_BLK_F_MQ, self.queues > 1),
            (VIRTIO_BLK_F_DISCARD, is_writable),
            (VIRTIO_BLK_F_WRITE_ZEROES, is_writable),
        ];
        let always =
            1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | 1 << VIRTIO_BLK_F_TOPOLOGY;
        optional.iter().fold(always, |all, &(bit, on)| all | u64::from(on) << bit)
    }

    /// What is stored as one, in blocks, as far as 16 bits go.
    pub(super) fn min_io_blocks(&self) -> u16 {
        1_u16.checked_shl(self.physical_exp.into()).unwrap_or(1)
    }

    /// What is stored as one, in sectors of 512 bytes.
    pub(super) fn physical_sectors(&self) -> u32 {
        let sector = u32::try_from(SECTOR).unwrap_or(512);
        (self.block_size / sector).saturating_mul(self.min_io_blocks().into())
    }
}
