//! A device as the address map sees it.

use kedge_ids::Ring;
use vmm_sys_util::eventfd::EventFd;

use crate::Node;

/// An access that does not suit the device: a width or alignment its registers
/// do not have. The guest reads ones; a store does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device has no register for an access of {length} bytes at offset {offset:#x}")]
pub struct Unsuitable {
    /// Bytes from the start of the device's range.
    pub offset: u64,
    /// Bytes accessed.
    pub length: usize,
}

/// A register whose writes of one value go straight to the event that a device waits
/// for.
#[derive(Debug)]
pub struct Doorbell {
    /// Bytes from the start of the device's range.
    pub offset: u64,
    /// The store that rings it.
    pub ring: Ring,
    /// What it rings.
    pub event: EventFd,
}

/// Where doorbells of a device are hung up that the guest moves around. One that is not
/// hung up rings, too, when the device answers the store, only slower.
pub trait DoorbellPost: Send + Sync {
    /// Hangs up `bell` of a device that starts at `address`. Whether it hangs there.
    fn hang(&self, address: u64, bell: &Doorbell) -> bool;

    /// Takes down what was hung up.
    fn take_down(&self, address: u64, bell: &Doorbell);
}

/// A device with registers in the guest's address space. It locks itself: any
/// vCPU may call at any time.
pub trait MmioDevice: Send + Sync {
    /// The size of its registers in bytes.
    fn size(&self) -> u64;

    /// The guest loads 1, 2, 4 or 8 bytes at `offset`. Whatever the guest does
    /// wrong beyond the access itself is answered as hardware would.
    ///
    /// # Errors
    /// The access does not suit the device.
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Unsuitable>;

    /// The guest stores 1, 2, 4 or 8 bytes at `offset`.
    ///
    /// # Errors
    /// The access does not suit the device.
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Unsuitable>;

    /// How the device tree describes it. `reg` and `interrupts` are added by
    /// whoever knows them.
    fn node(&self) -> Node;

    /// The doorbells to hang up before the guest runs.
    fn doorbells(&self) -> Vec<Doorbell> {
        Vec::new()
    }
}
