//! A function as the root sees it, and where its registers can be.

use kedge_bus::Unsuitable;
use kedge_guest_memory::GuestRange;

/// Where a function is found on its bus: device and function number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionNumber(u8);

impl FunctionNumber {
    /// Function 0 of a device; none past the 32nd.
    pub const fn device(device: u8) -> Option<Self> {
        if device < 32 { Some(Self(device << 3)) } else { None }
    }

    /// Function `function` of the same device; none past the eighth.
    pub const fn beside(self, function: u8) -> Option<Self> {
        if function < 8 { Some(Self(self.0 & !7 | function)) } else { None }
    }

    /// The number in an address of the configuration space: bits 7:3 device, 2:0 function.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Who sends a message: the function on bus 0.
    pub const fn requester(self) -> u32 {
        u32::from_le_bytes([self.0, 0, 0, 0])
    }
}

/// A function of a PCI device with one range of registers in memory. It locks itself: any
/// vCPU may call at any time.
pub trait Function: Send + Sync {
    /// The guest loads 1, 2 or 4 bytes of the configuration space's 4096, all of them in it.
    fn read_config(&self, offset: u16, data: &mut [u8]);

    /// The guest stores 1, 2 or 4 bytes to the configuration space.
    fn write_config(&self, offset: u16, data: &[u8]);

    /// Where its registers start for the time being; none where they are nowhere.
    fn start(&self) -> Option<u64>;

    /// The size of its registers in bytes.
    fn size(&self) -> u64;

    /// It lost its power, or was reset by what leads to it: it is as it was at first.
    fn reset(&self);

    /// The guest loads 1, 2, 4 or 8 bytes of its registers, all of them in it.
    ///
    /// # Errors
    /// The access does not suit the function.
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Unsuitable>;

    /// The guest stores 1, 2, 4 or 8 bytes to its registers.
    ///
    /// # Errors
    /// The access does not suit the function.
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Unsuitable>;
}

/// The ranges of addresses that lead to functions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Windows(Vec<GuestRange>);

impl Windows {
    pub(crate) fn new(ranges: &[GuestRange]) -> Self {
        Self(ranges.to_vec())
    }

    /// Whether all of `size` bytes at `start` are in one of them.
    pub(crate) fn lead_to(&self, start: u64, size: u64) -> bool {
        let end = start.checked_add(size);
        let within =
            |range: &GuestRange, end| start >= range.start.0 && end - range.start.0 <= range.size;
        end.is_some_and(|end| self.0.iter().any(|range| within(range, end)))
    }
}
