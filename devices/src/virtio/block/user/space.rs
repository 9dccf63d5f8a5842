//! The configuration space of a disk that another process has: its bytes as they came,
//! which the guest reads and kedge hardly does.

use super::super::space::{LENGTH as OWN_LENGTH, field};
use crate::virtio::vhost::answers::Nonsense;

/// Bytes that are asked for, and that a guest finds.
pub(super) const LENGTH: usize = OWN_LENGTH;

/// A configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space([u8; LENGTH]);

impl Space {
    /// The one that a back end has sent, for a disk with so many `queues`.
    ///
    /// # Errors
    /// It is of another length, or describes no disk.
    pub(super) fn read(sent: &[u8], queues: u16) -> Result<Self, Nonsense> {
        let mut bytes: [u8; LENGTH] =
            sent.try_into().map_err(|_| Nonsense::Config("it has another length"))?;
        // The back end may have more of them.
        bytes[field::NUM_QUEUES].copy_from_slice(&queues.to_le_bytes());
        // A driver could not change it: that is not offered.
        bytes[field::WRITEBACK] = 0;
        let space = Self(bytes);
        // More bytes than 64 bits can count.
        if space.sectors().leading_zeros() < 9 {
            return Err(Nonsense::Config("no disk is that large"));
        }
        Ok(space)
    }

    /// All of it.
    pub(super) fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// The disk's size in sectors of 512 bytes.
    pub(super) fn sectors(&self) -> u64 {
        let mut sectors = [0; 8];
        sectors.copy_from_slice(&self.0[field::CAPACITY]);
        u64::from_le_bytes(sectors)
    }

    /// Loads from it; bytes that it does not have stay as they are.
    pub(super) fn load(&self, offset: u64, data: &mut [u8]) {
        let from = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..));
        for (to, from) in data.iter_mut().zip(from.unwrap_or_default()) {
            *to = *from;
        }
    }
}
