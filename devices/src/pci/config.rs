//! The configuration space of a function (PCI Local Bus 3.0, 6.1 and 6.2): 256 bytes, of
//! which the guest can change some bits. What it has beyond them in an extended space reads
//! as zeros: no extended capabilities.

use kedge_ids::u64_from;

/// Bytes of the space.
pub(crate) const SIZE: usize = 256;

/// The headers of types 0 (6.1) and 1 (PCI-to-PCI Bridge 1.2, 3.2), as far as they are not
/// zero here: a bridge has no windows for I/O ports and prefetchable memory.
#[rustfmt::skip]
mod reg {
    //         name                 offset           access
    pub(super) const VENDOR_ID:           usize = 0x00; //  ro
    pub(super) const DEVICE_ID:           usize = 0x02; //  ro
    pub(super) const COMMAND:             usize = 0x04; //  rw
    pub(super) const STATUS:              usize = 0x06; //  ro  here: nothing is ever noted
    pub(super) const REVISION:            usize = 0x08; //  ro
    pub(super) const CLASS:               usize = 0x09; //  ro  interface, subclass, class
    pub(super) const HEADER_TYPE:         usize = 0x0e; //  ro
    pub(super) const BAR0:                usize = 0x10; //  rw
    pub(super) const BAR1:                usize = 0x14; //  rw
    pub(super) const BUSES:               usize = 0x18; //  rw  type 1: primary, secondary, last
    pub(super) const WINDOW:              usize = 0x20; //  rw  type 1: first and last address
    pub(super) const SUBSYSTEM_VENDOR_ID: usize = 0x2c; //  ro
    pub(super) const SUBSYSTEM_ID:        usize = 0x2e; //  ro
    pub(super) const CAPABILITIES:        usize = 0x34; //  ro
    pub(super) const INTERRUPT_LINE:      usize = 0x3c; //  rw  means nothing here
    pub(super) const BRIDGE_CONTROL:      usize = 0x3e; //  rw  type 1
    pub(super) const FIRST_CAPABILITY:    usize = 0x40;
}

/// Where the command register is.
pub(crate) const COMMAND: usize = reg::COMMAND;
/// Where a bridge's bus numbers are: the one above it, the one below it, the last one below.
pub(crate) const BUSES: usize = reg::BUSES;
/// Where the bridge control register is.
pub(crate) const BRIDGE_CONTROL: usize = reg::BRIDGE_CONTROL;
/// In it: what is below is held in reset.
pub(crate) const SECONDARY_RESET: u8 = 1 << 6;

/// The command register (6.2.2).
mod command {
    pub(super) const MEMORY: u16 = 1 << 1;
    pub(super) const BUS_MASTER: u16 = 1 << 2;
    pub(super) const NO_INTERRUPT_WIRE: u16 = 1 << 10;
}

/// The status register: there is a list of capabilities (6.2.3).
const HAS_CAPABILITIES: u16 = 1 << 4;
/// A base address register: memory with 64-bit addresses (6.2.5.1).
const MEMORY_64: u8 = 0b100;

/// Who a function is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) revision: u8,
    /// Class, subclass and programming interface.
    pub(crate) class: [u8; 3],
    pub(crate) header: Header,
}

/// What kind of function it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Header {
    /// One that does something.
    Endpoint { subsystem_vendor: u16, subsystem: u16 },
    /// One that leads to another bus, among others of the same device.
    Bridge,
}

/// `Header Type`: a bridge's, of a device with several functions.
const BRIDGE: u8 = 1 | 1 << 7;

/// The space of a function with one range of memory.
#[derive(Clone, Debug)]
pub(crate) struct ConfigSpace {
    bytes: [u8; SIZE],
    /// The bits that the guest can change.
    writable: [u8; SIZE],
    /// The end of the capabilities.
    end: usize,
    /// Where the last capability says which one is next.
    link: usize,
}

impl ConfigSpace {
    /// The space of a function without capabilities, whose memory of `size` bytes, a power
    /// of two, is nowhere yet.
    pub(crate) fn new(identity: &Identity, size: u64) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            end: reg::FIRST_CAPABILITY,
            link: reg::CAPABILITIES,
        };
        space.put(reg::VENDOR_ID, &identity.vendor.to_le_bytes());
        space.put(reg::DEVICE_ID, &identity.device.to_le_bytes());
        space.put(reg::STATUS, &HAS_CAPABILITIES.to_le_bytes());
        space.put(reg::REVISION, &[identity.revision]);
        let [class, subclass, interface] = identity.class;
        space.put(reg::CLASS, &[interface, subclass, class]);
        space.put(reg::BAR0, &[MEMORY_64]);
        match identity.header {
            Header::Endpoint { subsystem_vendor, subsystem } => {
                space.put(reg::SUBSYSTEM_VENDOR_ID, &subsystem_vendor.to_le_bytes());
                space.put(reg::SUBSYSTEM_ID, &subsystem.to_le_bytes());
            }
            Header::Bridge => {
                space.put(reg::HEADER_TYPE, &[BRIDGE]);
                space.allow(reg::BUSES, &[0xff; 3]);
                space.allow(reg::WINDOW, &[0xf0, 0xff, 0xf0, 0xff]);
                space.allow(reg::BRIDGE_CONTROL, &[SECONDARY_RESET]);
            }
        }
        let command = command::MEMORY | command::BUS_MASTER | command::NO_INTERRUPT_WIRE;
        space.allow(reg::COMMAND, &command.to_le_bytes());
        let address = !(size - 1);
        space.allow(reg::BAR0, &address.to_le_bytes());
        space.allow(reg::INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Adds a capability: its number, what follows the link to the next one, and which bits
    /// of that the guest can change. Where it lies.
    pub(crate) fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> usize {
        let at = self.end;
        let place = u8::try_from(at).expect("capabilities fit the space");
        self.put(self.link, &[place]);
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.allow(at + 2, writable);
        self.link = at + 1;
        self.end = (at + 2 + body.len()).next_multiple_of(4);
        at
    }

    /// Loads. Bytes past the space are zeros.
    pub(crate) fn read(&self, offset: usize, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0);
        }
    }

    /// Stores to the bits that the guest can change.
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) {
        for (at, new) in (offset..).zip(data) {
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = *byte & !mask | new & mask;
            }
        }
    }

    /// Changes bytes, whoever may change them.
    pub(crate) fn put(&mut self, offset: usize, data: &[u8]) {
        if let Some(bytes) = self.bytes.get_mut(offset..offset + data.len()) {
            bytes.copy_from_slice(data);
        }
    }

    /// Forgets what the guest has written.
    pub(crate) fn reset(&mut self) {
        self.bytes.iter_mut().zip(&self.writable).for_each(|(byte, mask)| *byte &= !mask);
    }

    /// Lets the guest change these bits.
    fn allow(&mut self, offset: usize, bits: &[u8]) {
        if let Some(writable) = self.writable.get_mut(offset..offset + bits.len()) {
            writable.copy_from_slice(bits);
        }
    }

    /// 16 bits; zeros past the space.
    pub(crate) fn half(&self, offset: usize) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// 32 bits; zeros past the space.
    pub(crate) fn word(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Where the guest has put the memory, and lets it be reached.
    pub(crate) fn memory(&self) -> Option<u64> {
        let command = u32::from(command::MEMORY);
        let reachable = self.word(reg::COMMAND) & command != 0;
        let address = u64::from(self.word(reg::BAR1)) << 32 | u64::from(self.word(reg::BAR0));
        reachable.then_some(address & !0xf)
    }

    /// All of it, to save.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes up what was saved.
    ///
    /// # Errors
    /// The offset of the first byte whose value no guest could have brought about, or the
    /// length where that is another.
    pub(crate) fn restore(&mut self, saved: &[u8]) -> Result<(), u64> {
        if saved.len() != SIZE {
            return Err(u64_from(saved.len()));
        }
        let own = self.bytes.iter().zip(&self.writable);
        if let Some(at) = own.zip(saved).position(|((own, mask), saved)| (own ^ saved) & !mask != 0)
        {
            return Err(u64_from(at));
        }
        self.bytes.copy_from_slice(saved);
        Ok(())
    }
}
