//! Unpacking compressed kernels, block by block.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use flate2::bufread::GzDecoder;
use kedge_ids::u64_from;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::KernelError;
use super::content::Part;
use super::legacy_lz4::LegacyLz4;
use crate::layout::RAM_BASE;

/// Bytes read from a file at once.
const READ: usize = 64 << 10;

/// How a kernel is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// LZ4 in its frame format.
    Lz4,
    /// LZ4 in its legacy format, the kernel build's.
    LegacyLz4,
}

impl Compression {
    /// How `head` is compressed, if it is.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Lz4),
            [0x02, 0x21, 0x4c, 0x18, ..] => Some(Self::LegacyLz4),
            _ => None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Lz4 | Self::LegacyLz4 => "lz4",
        })
    }
}

/// The unpacked form of a part of a file.
pub(super) struct Unpacker<'a> {
    compression: Compression,
    decoder: Box<dyn Read + 'a>,
    watch: Rc<Watch>,
    /// The decoder has said that there is no more. It is not asked again: it
    /// might look for another frame.
    ended: bool,
}

impl<'a> Unpacker<'a> {
    pub(super) fn new(compression: Compression, packed: Part<'a>) -> Result<Self, KernelError> {
        let watch = Rc::new(Watch::default());
        let source = Watched { packed, watch: Rc::clone(&watch) };
        let source = BufReader::with_capacity(READ, source);
        let decoder: io::Result<Box<dyn Read + 'a>> = match compression {
            Compression::Gzip => Ok(Box::new(GzDecoder::new(source))),
            Compression::Zstd => Zstd::new(source).map(|zstd| -> Box<dyn Read> { Box::new(zstd) }),
            Compression::Lz4 => Ok(Box::new(Lz4::new(source, Rc::clone(&watch)))),
            Compression::LegacyLz4 => Ok(Box::new(LegacyLz4::new(source))),
        };
        match decoder {
            Ok(decoder) => Ok(Self { compression, decoder, watch, ended: false }),
            Err(source) => Err(watch.explain(compression, source)),
        }
    }

    /// Fills `bytes`, or less where the unpacked form ends: how much.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, KernelError> {
        let mut filled = 0;
        while filled < bytes.len() && !self.ended {
            match self.decoder.read(&mut bytes[filled..]) {
                Ok(0) => self.ended = true,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.watch.explain(self.compression, source)),
            }
        }
        Ok(filled)
    }

    /// All of it, `head` being its beginning, if it is at most `most` bytes.
    pub(super) fn all(mut self, head: Vec<u8>, most: u64) -> Result<Vec<u8>, KernelError> {
        let mut all = head;
        let mut block = vec![0; READ];
        loop {
            let filled = self.fill(&mut block)?;
            all.extend_from_slice(&block[..filled]);
            match u64_from(all.len()) {
                _ if filled == 0 => return Ok(all),
                size if size > most => {
                    return Err(KernelError::TooLarge { end: RAM_BASE + size, memory: most });
                }
                _ => {}
            }
        }
    }
}

/// What happened to the packed bytes, whatever a decoder makes of it.
#[derive(Default)]
struct Watch {
    /// More was asked for than there is.
    ended: Cell<bool>,
    /// The file could not be read.
    failed: RefCell<Option<io::Error>>,
}

impl Watch {
    /// What `source`, a decoder's error, comes from.
    fn explain(&self, compression: Compression, source: io::Error) -> KernelError {
        match self.failed.take() {
            Some(error) => KernelError::Read(error),
            None if self.ended.get() => KernelError::BrokenOff { compression },
            None => KernelError::Damaged { compression, source },
        }
    }
}

struct Watched<'a> {
    packed: Part<'a>,
    watch: Rc<Watch>,
}

impl Read for Watched<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.packed.read(bytes) {
            Ok(0) if !bytes.is_empty() => {
                self.watch.ended.set(true);
                Ok(0)
            }
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let kind = error.kind();
                self.watch.failed.replace(Some(error));
                Err(kind.into())
            }
            other => other,
        }
    }
}

/// Zstandard, with its checksum checked.
struct Zstd<R: Read>(StreamingDecoder<R, FrameDecoder>);

impl<R: Read> Zstd<R> {
    fn new(source: R) -> io::Result<Self> {
        StreamingDecoder::new(source).map(Self).map_err(io::Error::other)
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(bytes)?;
        let decoder = &self.0.decoder;
        let stored = decoder.get_checksum_from_data();
        if read == 0 && stored.is_some() && stored != decoder.get_calculated_checksum() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum is wrong"));
        }
        Ok(read)
    }
}

/// LZ4 frames, their end mark insisted on: the decoder takes a file that breaks
/// off between two blocks for whole.
struct Lz4<R: Read> {
    decoder: lz4_flex::frame::FrameDecoder<R>,
    watch: Rc<Watch>,
}

impl<R: BufRead> Lz4<R> {
    fn new(source: R, watch: Rc<Watch>) -> Self {
        Self { decoder: lz4_flex::frame::FrameDecoder::new(source), watch }
    }
}

impl<R: BufRead> Read for Lz4<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.decoder.read(bytes)? {
            0 if !bytes.is_empty() && self.watch.ended.get() => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            read => Ok(read),
        }
    }
}
