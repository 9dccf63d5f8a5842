//! Bytes none of which is like its neighbours, sent, sent back and compared piece by piece:
//! of any number of them only a piece is in memory.

use std::io::{self, ErrorKind, Read, Write};

use kedge_ids::u64_from;

/// After so many bytes they begin anew: a number that no buffer's size is a multiple of.
const PERIOD: usize = 251;
/// The most bytes of a piece.
const PIECE: usize = 64 << 10;

/// Sends back all that comes, to the end.
///
/// # Errors
/// The other side is gone.
pub(crate) fn send_back<S>(stream: &S) -> io::Result<()>
where
    for<'s> &'s S: Read + Write,
{
    let (mut from, mut to) = (stream, stream);
    let mut bytes = vec![0; 32 << 10];
    loop {
        let length = from.read(&mut bytes)?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..length])?;
    }
}

/// The bytes.
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    pub(crate) fn new() -> Self {
        Self((0..PIECE + PERIOD).map(|at| (at % PERIOD).to_le_bytes()[0]).collect())
    }

    /// `length` bytes, no more than a piece, from `position` on.
    fn piece(&self, position: u64, length: usize) -> &[u8] {
        let start = usize::try_from(position % u64_from(PERIOD)).unwrap_or(0);
        &self.0[start..start + length]
    }

    /// Sends so many bytes.
    ///
    /// # Errors
    /// The receiver is gone.
    pub(crate) fn send(&self, to: &mut impl Write, bytes: u64) -> io::Result<()> {
        let mut position = 0;
        while position < bytes {
            let length = usize::try_from(bytes - position).unwrap_or(PIECE).min(PIECE);
            to.write_all(self.piece(position, length))?;
            position += u64_from(length);
        }
        Ok(())
    }

    /// Receives to the end: how many bytes came.
    ///
    /// # Errors
    /// The sender is gone, or a byte is another than was sent.
    pub(crate) fn receive(&self, from: &mut impl Read) -> io::Result<u64> {
        let (mut position, mut piece) = (0, vec![0; PIECE]);
        loop {
            let length = from.read(&mut piece)?;
            if length == 0 {
                return Ok(position);
            }
            if piece[..length] != *self.piece(position, length) {
                let fault = format!("not what was sent, within {length} bytes after {position}");
                return Err(io::Error::new(ErrorKind::InvalidData, fault));
            }
            position += u64_from(length);
        }
    }
}
