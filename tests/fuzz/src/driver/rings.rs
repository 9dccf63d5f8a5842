//! The driver's rings in RAM: chains as the specification wants them, and anything else.

use arbitrary::{Result, Unstructured};
use kedge_guest_memory::{Bytes, GuestAddress, GuestMemory};

use super::Request;
use crate::front::{Front, Register};

/// Where RAM starts, and its bytes: rings in the first half, buffers in the second.
pub(crate) const RAM: u64 = 0x8000_0000;
pub(super) const RAM_SIZE: u64 = 0x8_0000;
const BUFFERS: u64 = RAM + RAM_SIZE / 2;
/// The longest buffer: two of them do not reach the end of RAM.
const LONGEST: u64 = 0x1_0000;
/// Rings of one queue: descriptors, available and used, and a table for indirect ones, 4 KiB
/// each.
const RINGS: u64 = 0x4000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const INDIRECT: u64 = 0x3000;
/// Entries of a ring that the driver sets up itself.
pub(super) const QUEUE_SIZE: u16 = 16;

/// Flags of a descriptor (Virtio 1.2, 2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const TABLE: u16 = 4;

/// A descriptor without its link: address, length, and whether the device writes.
type Piece = (u64, u32, bool);

/// The rings of all queues.
pub(super) struct Rings {
    memory: GuestMemory,
    /// The next descriptor and the next available entry, by queue.
    next: Vec<(u16, u16)>,
    /// Where the next buffer goes.
    room: u64,
}

impl Rings {
    pub(super) fn new(memory: GuestMemory) -> Self {
        Self { memory, next: Vec::new(), room: BUFFERS }
    }

    /// How many queues are set up.
    pub(super) fn count(&self) -> usize {
        self.next.len()
    }

    pub(super) fn clear(&mut self) {
        self.next.clear();
    }

    /// Sets up the queue that is selected, behind those there are.
    pub(super) fn add(&mut self, front: &impl Front) {
        let rings = RAM + self.next.len() as u64 * RINGS;
        self.next.push((0, 0));
        self.enable(front, rings);
    }

    /// Sets up a queue that is selected once more, if it was.
    pub(super) fn set_up_again(&mut self, front: &impl Front, queue: u32) {
        if let Some(next) = self.next.get_mut(queue as usize) {
            *next = (0, 0);
            self.enable(front, RAM + u64::from(queue) * RINGS);
        }
    }

    fn enable(&self, front: &impl Front, rings: u64) {
        self.put(rings, &[0; RINGS as usize]);
        front.store(Register::QueueSize, QUEUE_SIZE.into());
        let areas =
            [(Register::Descriptors, 0), (Register::Available, AVAILABLE), (Register::Used, USED)];
        for (register, offset) in areas {
            front.store(register, (rings + offset) as u32);
        }
        front.store(Register::QueueReady, 1);
    }

    /// Offers `request`, its bytes and its room each in one to four pieces. Whether the
    /// driver is to ring.
    pub(super) fn offer(
        &mut self,
        queue: usize,
        request: &Request,
        from: &mut Unstructured<'_>,
    ) -> Result<bool> {
        let how: u8 = from.arbitrary()?;
        let mut pieces = Vec::new();
        let readable = self.place(request.readable.len() as u64, how & 8 != 0);
        self.put(readable, &request.readable);
        cut(&mut pieces, (readable, request.readable.len() as u32, false), how, from)?;
        let writable = self.place(request.writable.into(), how & 8 != 0);
        cut(&mut pieces, (writable, request.writable, true), how >> 2, from)?;
        if !pieces.is_empty() {
            self.make_available(queue, &pieces, how & 0x10 != 0);
        }
        Ok(how & 0x60 != 0x60)
    }

    /// Anything: a descriptor, an entry of a ring, an index, bytes of a buffer.
    pub(super) fn anything(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let queue = usize::from(from.arbitrary::<u8>()?) % self.next.len().max(1);
        let rings = RAM + queue as u64 * RINGS;
        let index = u64::from(from.arbitrary::<u8>()? % 32);
        match from.int_in_range(0..=5)? {
            0 => {
                let address = match from.int_in_range(0..=3)? {
                    0 => from.arbitrary()?,
                    1 => RAM + RAM_SIZE - u64::from(from.arbitrary::<u8>()?),
                    _ => BUFFERS + u64::from(from.arbitrary::<u16>()?),
                };
                let length = match from.arbitrary()? {
                    true => u32::from(from.arbitrary::<u16>()?),
                    false => from.arbitrary()?,
                };
                let flags = u16::from(from.arbitrary::<u8>()? & 7);
                let table = rings + if from.arbitrary()? { INDIRECT } else { 0 };
                let link = u16::from(from.arbitrary::<u8>()? % 20);
                self.describe(table, index as u16, (address, length, flags), link);
            }
            1 => self.store(rings + AVAILABLE + 2 * index, from.arbitrary()?),
            // The index of what is available, or what the driver says of notifications.
            2 => self.store(rings + AVAILABLE + 2 * (index & 1), from.arbitrary::<u8>()?.into()),
            // `used_event` behind the ring.
            3 => {
                let behind = AVAILABLE + 4 + 2 * u64::from(QUEUE_SIZE);
                self.store(rings + behind, from.arbitrary::<u8>()?.into());
            }
            4 => {
                let Some((_, available)) = self.next.get_mut(queue) else { return Ok(()) };
                *available = available.wrapping_add(from.arbitrary::<u8>()?.into());
                let available = *available;
                self.store(rings + AVAILABLE + 2, available);
            }
            _ => {
                let at = u64::from(from.arbitrary::<u32>()?) % (RAM_SIZE - 8);
                self.put(RAM + at, &from.arbitrary::<[u8; 8]>()?);
            }
        }
        Ok(())
    }

    /// Room for so many bytes, at a multiple of 512 or not.
    fn place(&mut self, length: u64, is_odd: bool) -> u64 {
        let start = self.room.next_multiple_of(512) + u64::from(is_odd);
        let start = if start + LONGEST > RAM + RAM_SIZE { BUFFERS } else { start };
        self.room = start + length.min(LONGEST);
        start
    }

    fn make_available(&mut self, queue: usize, pieces: &[Piece], indirect: bool) {
        let rings = RAM + queue as u64 * RINGS;
        let (mut next, available) = self.next[queue];
        let head = next % QUEUE_SIZE;
        let flags = |index: usize, writes: bool| {
            u16::from(index + 1 < pieces.len()) * NEXT | u16::from(writes) * WRITE
        };
        for (index, &(address, length, writes)) in pieces.iter().enumerate() {
            let piece = (address, length, flags(index, writes));
            if indirect {
                self.describe(rings + INDIRECT, index as u16, piece, index as u16 + 1);
            } else {
                let own = next % QUEUE_SIZE;
                next = next.wrapping_add(1);
                self.describe(rings, own, piece, next % QUEUE_SIZE);
            }
        }
        if indirect {
            let whole = (rings + INDIRECT, 16 * pieces.len() as u32, TABLE);
            self.describe(rings, head, whole, 0);
            next = next.wrapping_add(1);
        }
        self.store(rings + AVAILABLE + 4 + 2 * u64::from(available % QUEUE_SIZE), head);
        self.store(rings + AVAILABLE + 2, available.wrapping_add(1));
        self.next[queue] = (next, available.wrapping_add(1));
    }

    fn describe(&self, table: u64, index: u16, of: (u64, u32, u16), next: u16) {
        let (address, length, flags) = of;
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.put(table + 16 * u64::from(index), &bytes);
    }

    fn store(&self, address: u64, value: u16) {
        self.put(address, &value.to_le_bytes());
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).expect("it is within RAM");
    }
}

/// Adds a buffer in one to four pieces, as the two lowest bits of `how` say; nothing where
/// it is empty.
fn cut(
    pieces: &mut Vec<Piece>,
    (mut address, mut length, writes): Piece,
    how: u8,
    from: &mut Unstructured<'_>,
) -> Result<()> {
    for _ in 0..how & 3 {
        let front = u32::from(from.arbitrary::<u8>()?).min(length.saturating_sub(1));
        if front > 0 {
            pieces.push((address, front, writes));
            (address, length) = (address + u64::from(front), length - front);
        }
    }
    if length > 0 {
        pieces.push((address, length, writes));
    }
    Ok(())
}
