//! LZ4's legacy format, which `lz4 -l` and so the kernel build make: a magic
//! number, then blocks of up to 8 MiB, each with its compressed size before it,
//! to the end of the file (LZ4 frame format description, "Legacy frame"). The
//! kernel build may append the unpacked size in four bytes.

use std::io::{self, BufRead, Read};

use kedge_ids::u64_from;
use lz4_flex::block::decompress_into;

const MAGIC: u32 = 0x184c_2102;
/// Bytes of a whole block, unpacked.
const BLOCK: usize = 8 << 20;
/// Bytes that a block has at most when packed: nothing in it could be.
const PACKED: usize = BLOCK + BLOCK / 255 + 16;

/// The unpacked form of what `R` reads.
pub(super) struct LegacyLz4<R> {
    source: R,
    packed: Vec<u8>,
    block: Vec<u8>,
    /// What of `block` has not been read.
    unread: std::ops::Range<usize>,
    /// Bytes unpacked so far.
    total: u64,
}

impl<R: BufRead> LegacyLz4<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, packed: Vec::new(), block: Vec::new(), unread: 0..0, total: 0 }
    }

    /// The next block's packed size, `None` at the end.
    fn next_size(&mut self) -> io::Result<Option<usize>> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(None);
            }
            let mut word = [0; 4];
            self.source.read_exact(&mut word)?;
            let word = u32::from_le_bytes(word);
            if word == MAGIC {
                continue;
            }
            if self.source.fill_buf()?.is_empty() {
                // The unpacked size, modulo 2^32; or a block that is not there.
                let whole = u64::from(word) == self.total & u64::from(u32::MAX);
                return if whole { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            return match usize::try_from(word) {
                Ok(size) if size <= PACKED => Ok(Some(size)),
                _ => Err(damaged("a block is too large")),
            };
        }
    }
}

impl<R: BufRead> Read for LegacyLz4<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.unread.is_empty() {
            let Some(size) = self.next_size()? else { return Ok(0) };
            self.packed.resize(size, 0);
            self.source.read_exact(&mut self.packed)?;
            self.block.resize(BLOCK, 0);
            let unpacked = decompress_into(&self.packed, &mut self.block)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.unread = 0..unpacked;
            self.total = self.total.wrapping_add(u64_from(unpacked));
        }
        let most = self.unread.len().min(bytes.len());
        let from = self.unread.start;
        bytes[..most].copy_from_slice(&self.block[from..from + most]);
        self.unread.start += most;
        Ok(most)
    }
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
