//! A disk whose data the program around the machine has, which may not be had at times.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use kedge_devices::virtio::block::BlockBackEnd;

/// The program's side of it.
#[derive(Default)]
pub(super) struct Program {
    bytes: Mutex<Vec<u8>>,
    size: u64,
    fails: AtomicBool,
}

impl Program {
    /// One with a disk of `size` bytes.
    pub(super) fn new(size: u64) -> Self {
        Self { bytes: Mutex::new(vec![0; size as usize]), size, ..Self::default() }
    }

    /// Has it fail from now on, or not any more.
    pub(super) fn turn(&self) {
        self.fails.fetch_xor(true, Ordering::SeqCst);
    }

    /// Does something to `length` bytes from `offset` on, which are all there.
    fn at(&self, offset: u64, length: usize, act: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let end = offset.checked_add(length as u64).expect("it was checked");
        assert!(end <= self.size, "{length} bytes at {offset} are not on the disk");
        if self.fails.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut bytes = self.bytes.lock().expect("nobody panicked");
        act(&mut bytes[offset as usize..][..length]);
        Ok(())
    }
}

impl BlockBackEnd for Program {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.at(offset, into.len(), |bytes| into.copy_from_slice(bytes))
    }

    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        self.at(offset, from.len(), |bytes| bytes.copy_from_slice(from))
    }

    fn flush(&self) -> io::Result<()> {
        self.at(0, 0, |_| {})
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.at(offset, length as usize, |_| {})
    }
}
