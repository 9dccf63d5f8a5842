//! A request as the driver wrote it (Virtio 1.2, 5.2.6), taken apart and checked
//! for its form. Whether it can be done is the disk's to say.

use kedge_ids::u64_from;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use crate::virtio::buffers::Buffers;
use crate::virtio::ring::{Chain, Corrupt};

/// What the driver wants.
#[derive(Debug)]
pub(super) enum Operation<'m> {
    /// Data from `sector` on.
    In {
        /// The first sector.
        sector: u64,
        /// Where the data goes.
        into: Buffers<'m>,
    },
    /// Data to `sector` on.
    Out {
        /// The first sector.
        sector: u64,
        /// Where the data is.
        from: Buffers<'m>,
    },
    /// Sectors that the guest does not need any more, or needs to be zeroes.
    Trim {
        /// Which of both.
        trim: Trim,
        /// Where the list of them is.
        from: Buffers<'m>,
    },
    /// What was written shall last.
    Flush,
    /// The disk's serial number.
    GetId {
        /// Where it goes.
        into: Buffers<'m>,
    },
    /// A type of request that we do not have.
    Unsupported,
}

/// What becomes of sectors for which no data comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trim {
    /// Nobody needs what is in them.
    Discard,
    /// They are zeroes.
    WriteZeroes,
}

impl Operation<'_> {
    /// Bytes of data that it moves to or from the disk.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::In { into: data, .. } | Self::Out { from: data, .. } => u64_from(data.len()),
            Self::Trim { .. } | Self::Flush | Self::GetId { .. } | Self::Unsupported => 0,
        }
    }
}

/// A request.
#[derive(Debug)]
pub(super) struct Request<'m> {
    /// What the driver wants.
    pub(super) operation: Operation<'m>,
    /// The byte for the outcome.
    pub(super) status: Buffers<'m>,
    /// Writable bytes before it.
    pub(super) room: usize,
}

/// Takes a request apart: a header of 16 bytes, data, and a byte of status
/// behind all other writable bytes, cut into buffers as the driver pleases
/// (2.7.4.3).
///
/// # Errors
/// There is no whole header, or nowhere to put a status.
pub(super) fn parse(chain: Chain<'_>) -> Result<Request<'_>, Corrupt> {
    let Chain { head, readable: mut from, writable: mut status } = chain;
    let wrong = |what| Corrupt::Request { head, what };
    let mut header = [0; 16];
    if from.copy_to(&mut header) < header.len() {
        return Err(wrong("its header is shorter than 16 bytes"));
    }
    let no_status = "it has no byte for the status";
    let room = status.len().checked_sub(1).ok_or_else(|| wrong(no_status))?;
    let into = status.split_front(room).ok_or_else(|| wrong(no_status))?;

    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
    let sector = u64::from_le_bytes(sector);
    let operation = match u32::from_le_bytes([t0, t1, t2, t3]) {
        VIRTIO_BLK_T_IN => Operation::In { sector, into },
        VIRTIO_BLK_T_OUT => Operation::Out { sector, from },
        VIRTIO_BLK_T_DISCARD => Operation::Trim { trim: Trim::Discard, from },
        VIRTIO_BLK_T_WRITE_ZEROES => Operation::Trim { trim: Trim::WriteZeroes, from },
        VIRTIO_BLK_T_FLUSH => Operation::Flush,
        VIRTIO_BLK_T_GET_ID => Operation::GetId { into },
        _ => Operation::Unsupported,
    };
    Ok(Request { operation, status, room })
}

/// The used length of a request with `written` bytes in `room` before its status. The
/// status is behind all else: it only counts as written from the start where all else
/// was.
pub(super) fn used(written: usize, room: usize) -> u32 {
    let length = if written == room { room.saturating_add(1) } else { written };
    u32::try_from(length).unwrap_or(u32::MAX)
}
