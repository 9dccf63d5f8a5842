//! MSI-X (PCI Local Bus 3.0, 6.8.2): a table of messages, one for each of a function's
//! vectors, which the guest fills and masks as it likes.
//!
//! A message is sent under the lock of the table: once a store that masks a vector is done,
//! no message of it comes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kedge_bus::{Message, MsiPort};
use kedge_ids::{u64_from, usize_from};

use super::config::ConfigSpace;
use super::saved::MsixVectorV1;

/// The capability's number.
const CAPABILITY: u8 = 0x11;
/// Bytes of an entry of the table.
const ENTRY: u64 = 16;

/// Message Control (6.8.2.3).
mod control {
    pub(super) const FUNCTION_MASK: u16 = 1 << 14;
    pub(super) const ENABLE: u16 = 1 << 15;
}

/// Vector Control of an entry: held back (6.8.2.9).
const MASK: u32 = 1;

/// Where table and pending bits lie, in the range of memory that the function has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MsixBar {
    pub(crate) table: u32,
    pub(crate) pending: u32,
}

/// A vector's entry.
#[derive(Clone, Copy, Debug)]
struct Vector {
    message: Message,
    control: u32,
    pending: bool,
}

#[derive(Debug)]
struct Table {
    enabled: bool,
    masked: bool,
    vectors: Vec<Vector>,
}

/// The vectors of a function.
#[derive(Debug)]
pub(crate) struct Msix {
    table: Mutex<Table>,
    port: MsiPort,
    count: u16,
}

impl Msix {
    /// `count` vectors, all masked, of a function that has not been told to use them.
    pub(crate) fn new(count: u16, port: MsiPort) -> Self {
        let vector = Vector { message: Message::default(), control: MASK, pending: false };
        let vectors = vec![vector; count.into()];
        Self { table: Mutex::new(Table { enabled: false, masked: false, vectors }), port, count }
    }

    /// Vectors there are.
    pub(crate) const fn count(&self) -> u16 {
        self.count
    }

    /// Adds the capability to a function's space. Where it lies.
    pub(crate) fn add_to(&self, space: &mut ConfigSpace, bar: MsixBar) -> usize {
        let mut body = Vec::with_capacity(10);
        body.extend((self.count - 1).to_le_bytes());
        body.extend(bar.table.to_le_bytes());
        body.extend(bar.pending.to_le_bytes());
        let writable = (control::ENABLE | control::FUNCTION_MASK).to_le_bytes();
        space.add_capability(CAPABILITY, &body, &writable)
    }

    /// Takes up what the guest has written to the capability at `at` of `space`.
    pub(crate) fn obey(&self, space: &ConfigSpace, at: usize) {
        let [_, _, low, high] = space.word(at).to_le_bytes();
        let word = u16::from_le_bytes([low, high]);
        let mut table = self.table();
        table.enabled = word & control::ENABLE != 0;
        table.masked = word & control::FUNCTION_MASK != 0;
        table.send_pending(&self.port);
    }

    /// Whether the guest takes messages.
    pub(crate) fn is_enabled(&self) -> bool {
        self.table().enabled
    }

    /// Sends the message of a vector, or notes that it is to be sent. Nothing where there
    /// is no such vector or the guest takes no messages.
    pub(crate) fn notify(&self, vector: u16) {
        let mut table = self.table();
        if !table.enabled {
            return;
        }
        let masked = table.masked;
        let Some(vector) = table.vectors.get_mut(usize::from(vector)) else { return };
        if masked || vector.control & MASK != 0 {
            vector.pending = true;
        } else {
            self.port.send(vector.message);
        }
    }

    /// As it was at first.
    pub(crate) fn reset(&self) {
        let first = || Vector { message: Message::default(), control: MASK, pending: false };
        let mut table = self.table();
        (table.enabled, table.masked) = (false, false);
        table.vectors.fill_with(first);
    }

    /// Forgets what it has held back: the function was reset.
    pub(crate) fn forget_pending(&self) {
        self.table().vectors.iter_mut().for_each(|vector| vector.pending = false);
    }

    /// Loads from the table.
    pub(crate) fn read_table(&self, offset: u64, data: &mut [u8]) {
        let table = self.table();
        for (at, byte) in (offset..).zip(data) {
            let vector = table.vectors.get(usize_from(at / ENTRY));
            *byte = vector.map_or(0, |vector| vector.bytes()[usize_from(at % ENTRY)]);
        }
    }

    /// Stores to the table: 32 or 64 bits, aligned; what else does nothing.
    pub(crate) fn write_table(&self, offset: u64, data: &[u8]) {
        let length = u64_from(data.len());
        if !matches!(length, 4 | 8) || !offset.is_multiple_of(length) {
            return;
        }
        let mut table = self.table();
        let Some(vector) = table.vectors.get_mut(usize_from(offset / ENTRY)) else { return };
        let mut bytes = vector.bytes();
        let at = usize_from(offset % ENTRY);
        bytes[at..at + data.len()].copy_from_slice(data);
        vector.set(bytes);
        table.send_pending(&self.port);
    }

    /// Loads from the pending bits.
    pub(crate) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        let table = self.table();
        for (at, byte) in (offset..).zip(data) {
            let eight = table.vectors.iter().skip(usize_from(at.saturating_mul(8))).take(8);
            let bits = (0..).zip(eight).filter(|(_, vector)| vector.pending);
            *byte = bits.fold(0, |byte, (n, _)| byte | 1_u8 << n);
        }
    }

    /// The entries, to save.
    pub(crate) fn save(&self) -> Vec<MsixVectorV1> {
        let saved = |vector: &Vector| MsixVectorV1 {
            address: vector.message.address,
            data: vector.message.data,
            masked: vector.control & MASK != 0,
            pending: vector.pending,
        };
        self.table().vectors.iter().map(saved).collect()
    }

    /// Takes up saved entries: as many as it has. Sends nothing.
    pub(crate) fn restore(&self, saved: &[MsixVectorV1]) {
        let mut table = self.table();
        for (vector, saved) in table.vectors.iter_mut().zip(saved) {
            let &MsixVectorV1 { address, data, masked, pending } = saved;
            let control = if masked { MASK } else { 0 };
            *vector = Vector { message: Message { address, data }, control, pending };
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic elsewhere leaves the table as some guest could.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Sends what was held back and is not any more.
    fn send_pending(&mut self, port: &MsiPort) {
        if !self.enabled || self.masked {
            return;
        }
        let ready = |vector: &&mut Vector| vector.pending && vector.control & MASK == 0;
        for vector in self.vectors.iter_mut().filter(ready) {
            vector.pending = false;
            port.send(vector.message);
        }
    }
}

impl Vector {
    /// The entry as it lies in memory (6.8.2.6 to 6.8.2.9).
    fn bytes(&self) -> [u8; 16] {
        let low = u128::from(self.message.address);
        let high = u128::from(self.control) << 32 | u128::from(self.message.data);
        (high << 64 | low).to_le_bytes()
    }

    fn set(&mut self, bytes: [u8; 16]) {
        let word = |at: usize| {
            bytes
                .get(at..at + 4)
                .and_then(|word| word.try_into().ok())
                .map_or(0, u32::from_le_bytes)
        };
        // Messages are stores of an aligned 32 bits.
        let address = u64::from(word(4)) << 32 | u64::from(word(0) & !0b11);
        self.message = Message { address, data: word(8) };
        self.control = word(12) & MASK;
    }
}
