//! A disk as a guest was promised it, on a file or block device that must be able
//! to keep the promise.

use kedge_diag::{Fix, Trouble};
use kedge_saved_state::{Bytes, StateError};

use super::disk::Disk;
use super::open::SERIAL;
use super::promise::Promise;
use super::saved::BlockV1;
use super::{Access, Cache, SEG_MAX};
use crate::virtio::limits::Limits;

/// The sizes of a block, in bytes: those of real disks.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=65536;

/// What is stored as one is 64 KiB at most, in blocks of 512 bytes.
const MOST_EXP: u8 = 7;

/// Why a disk is not the one that the guest knows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskChanged {
    /// It has grown or shrunk.
    #[error("the disk had {promised} sectors of 512 bytes and now has {found}")]
    Size {
        /// As the guest knows it.
        promised: u64,
        /// As it is.
        found: u64,
    },
    /// The guest writes to it, and now may not.
    #[error("the guest was given a disk to write to, and this one is opened to be read only")]
    ReadOnly,
}

impl Fix for DiskChanged {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Size { .. } => {
                "give the disk that belongs to the snapshot, or a copy of it".to_owned()
            }
            Self::ReadOnly => "give a disk that can be written to".to_owned(),
        })
    }
}

/// What the guest knows of `disk`, and what is left of its `limits`.
pub(super) fn save(disk: &Disk, limits: &Limits) -> BlockV1 {
    // How many queues there are is the transport's to save.
    let &Promise { block_size, physical_exp, seg_max, serial, access, cache, queues: _ } =
        disk.promise();
    BlockV1 {
        sectors: disk.sectors(),
        block_size,
        seg_max,
        serial: Bytes(serial.to_vec()),
        read_only: access == Access::ReadOnly,
        flush: cache == Cache::Writeback,
        physical_exp: Some(physical_exp),
        write_through: cache == Cache::Writethrough || disk.is_through(),
        limits: limits.save(),
    }
}

/// Makes `disk` what the guest knows.
///
/// # Errors
/// `saved` is damaged, or the disk is another.
pub(super) fn restore(disk: &mut Disk, saved: &BlockV1) -> Result<(), Trouble> {
    let serial = check(saved).map_err(Trouble::new)?;
    let &BlockV1 { sectors, block_size, seg_max, serial: _, read_only, flush, .. } = saved;
    let &BlockV1 { physical_exp, write_through, limits: _, .. } = saved;
    if sectors != disk.sectors() {
        let changed = DiskChanged::Size { promised: sectors, found: disk.sectors() };
        return Err(Trouble::new(changed));
    }
    if !read_only && disk.access() == Access::ReadOnly {
        return Err(Trouble::new(DiskChanged::ReadOnly));
    }
    let own = disk.promise();
    let promise = Promise {
        block_size,
        physical_exp: physical_exp.unwrap_or(own.physical_exp),
        seg_max,
        serial,
        access: if read_only { Access::ReadOnly } else { Access::ReadWrite },
        cache: match (flush, write_through) {
            (true, _) => Cache::Writeback,
            (false, true) => Cache::Writethrough,
            (false, false) => Cache::Unsafe,
        },
        queues: own.queues,
    };
    disk.keep(promise);
    disk.set_through(write_through);
    Ok(())
}

fn check(saved: &BlockV1) -> Result<[u8; SERIAL], StateError> {
    let size = saved.block_size;
    if !size.is_power_of_two() || !BLOCK_SIZES.contains(&size) {
        let problem = format!("is {size}, and not a power of two from 512 to 65536");
        return Err(bad("block_size", problem));
    }
    let most = u32::from(SEG_MAX);
    if saved.seg_max == 0 || saved.seg_max > most {
        return Err(bad("seg_max", format!("is {}, and not 1 to {most}", saved.seg_max)));
    }
    if saved.physical_exp.is_some_and(|exp| exp > MOST_EXP) {
        return Err(bad("physical_exp", format!("is above {MOST_EXP}")));
    }
    let serial = &saved.serial.0;
    let length = serial.len();
    let serial = serial.as_slice().try_into();
    serial.map_err(|_| bad("serial", format!("is {length} bytes long, and not {SERIAL}")))
}

fn bad(field: &str, problem: impl Into<String>) -> StateError {
    StateError::field::<BlockV1>(field, problem)
}
