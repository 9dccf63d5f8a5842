//! Reading a memory file: is it the snapshot's, and is it whole?

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use kedge_diag::Fix;
use kedge_ids::{u64_from, usize_from};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::map::{ChecksumsV1, MemoryMap, MemoryMapV1};
use super::{CHUNK, is_zero};
use crate::{FileError, MemoryIdentity, Part, StateError, StateFile, Versioned};

/// Why a memory file cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is not as long as the guest's memory.
    #[error("it has {found} bytes, and the snapshot's memory has {expected}")]
    Length {
        /// The file's length in bytes.
        found: u64,
        /// The memory's length in bytes.
        expected: u64,
    },
    /// A sampled page is not what it was.
    #[error(
        "it is another snapshot's, or was changed since: its page at {offset:#x} is not the one \
         that was saved"
    )]
    Changed {
        /// The page's offset in the file.
        offset: u64,
    },
    /// A chunk's data is not what it was.
    #[error("it is damaged between {start:#x} and {end:#x}: the checksum does not match")]
    Damaged {
        /// The offset of the chunk.
        start: u64,
        /// The offset behind it.
        end: u64,
    },
    /// There is data where none was saved.
    #[error("it has data at {offset:#x}, where the snapshot has none")]
    Stray {
        /// The data's offset in the file.
        offset: u64,
    },
    /// It was saved without checksums.
    #[error("it was saved without checksums")]
    Unchecked,
    /// The state file does not tell where it has data, or its checksums.
    #[error("the state file does not describe it")]
    State(#[from] FileError),
    /// The host cannot read it.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

impl Fix for ImageError {
    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::State(source) => return source.fix(),
            Self::Read(_) => return None,
            Self::Unchecked => "save snapshots that are to be verified with checksums",
            Self::Length { .. } | Self::Changed { .. } => {
                "name the memory file that was saved with the state file; a machine that runs \
                 from a snapshot never changes it, but whatever else does spoils it"
            }
            Self::Damaged { .. } | Self::Stray { .. } => {
                "copy the snapshot anew, or take another: it is damaged"
            }
        };
        Some(text.to_owned())
    }
}

/// A memory file that is the one its state file names, as far as a look at a few of
/// its pages tells; [`Image::verify`] looks at all.
#[derive(Debug)]
pub struct Image {
    file: File,
    identity: MemoryIdentity,
    /// As the state file has it: a load has no use for it, and it can be long.
    map: Part,
    /// As the state file has them, if it has them.
    checksums: Option<Part>,
}

impl Image {
    /// The memory file in `file`, which has to be that of `state`. Reads a few pages,
    /// however large the memory is.
    ///
    /// # Errors
    /// It is another, or the state file does not describe it.
    pub fn open(file: File, state: &StateFile) -> Result<Self, ImageError> {
        let identity = state.header().memory.clone();
        check_identity(&file, &identity, state.header().about.page_size)?;
        let missing = || FileError::Missing { kind: MemoryMapV1::KIND, instance: String::new() };
        let map = state.find(MemoryMapV1::KIND, "").ok_or_else(missing)?.clone();
        if map.version != MemoryMapV1::VERSION {
            let (kind, found) = (map.kind, map.version);
            let known = MemoryMapV1::VERSION;
            return Err(FileError::from(StateError::Version { kind, found, known }).into());
        }
        let checksums = state.find(ChecksumsV1::KIND, "").cloned();
        Ok(Self { file, identity, map, checksums })
    }

    /// The file, to map it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What the state file says of it.
    pub fn identity(&self) -> &MemoryIdentity {
        &self.identity
    }

    /// Where it has data.
    ///
    /// # Errors
    /// The state file's map of it cannot be.
    pub fn map(&self) -> Result<MemoryMap, ImageError> {
        let saved = self.map.read::<MemoryMapV1>();
        let map = saved.and_then(|saved| MemoryMap::from_saved(&saved, self.identity.length));
        Ok(map.map_err(FileError::from)?)
    }

    /// Whether there is nothing but zeroes in `range` of it. Holes are not read.
    ///
    /// # Errors
    /// It ends before, or cannot be read.
    pub fn is_zero(&self, range: Range<u64>) -> Result<bool, ImageError> {
        if range.end > self.identity.length {
            return Err(ImageError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        let (mut at, mut buffer) = (range.start, [0; 4096]);
        while let Some(data) = data_from(&self.file, at, range.end).map_err(ImageError::Read)? {
            at = data.end;
            let mut all = true;
            self.each_piece(data, &mut buffer, |_, bytes| all &= is_zero(bytes))?;
            if !all {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads all of its data and holds it against the checksums.
    ///
    /// # Errors
    /// It is damaged, cannot be read, or was saved without checksums.
    pub fn verify(&self) -> Result<(), ImageError> {
        let saved = self.checksums.as_ref().ok_or(ImageError::Unchecked)?;
        let saved = saved.read::<ChecksumsV1>().map_err(FileError::from)?;
        let expected = checksums(&saved, self.identity.length).map_err(FileError::from)?;
        let map = self.map()?;
        let mut extents = map.extents();
        let mut buffer = vec![0; usize_from(CHUNK)];
        for (start, expected) in (0_u64..).step_by(usize_from(saved.chunk)).zip(expected) {
            let end = start.saturating_add(saved.chunk).min(self.identity.length);
            let mut found = crc32fast::Hasher::new();
            while let [extent, behind @ ..] = extents
                && extent.start < end
            {
                let here = extent.start.max(start)..extent.end.min(end);
                self.each_piece(here, &mut buffer, |_, bytes| found.update(bytes))?;
                if extent.end > end {
                    break;
                }
                extents = behind;
            }
            if found.finalize() != expected {
                return Err(ImageError::Damaged { start, end });
            }
        }
        self.verify_gaps(&map, &mut buffer)
    }

    /// Reads `extent` in pieces that fit in `buffer`.
    pub(super) fn each_piece(
        &self,
        extent: Range<u64>,
        buffer: &mut [u8],
        mut piece: impl FnMut(u64, &[u8]),
    ) -> Result<(), ImageError> {
        let mut at = extent.start;
        while at < extent.end {
            let length = u64_from(buffer.len()).min(extent.end - at);
            let bytes = &mut buffer[..usize_from(length)];
            self.file.read_exact_at(bytes, at).map_err(ImageError::Read)?;
            piece(at, bytes);
            at += length;
        }
        Ok(())
    }

    /// Nothing may be where the snapshot has nothing: a restored guest would read it.
    fn verify_gaps(&self, map: &MemoryMap, buffer: &mut [u8]) -> Result<(), ImageError> {
        for gap in map.gaps(self.identity.length) {
            let mut at = gap.start;
            while let Some(data) = data_from(&self.file, at, gap.end).map_err(ImageError::Read)? {
                at = data.end;
                let mut stray = None;
                self.each_piece(data, buffer, |offset, bytes| {
                    if stray.is_none() && !is_zero(bytes) {
                        let at = bytes.iter().position(|&byte| byte != 0);
                        stray = at.map(|at| offset + u64_from(at));
                    }
                })?;
                if let Some(offset) = stray {
                    return Err(ImageError::Stray { offset });
                }
            }
        }
        Ok(())
    }
}

/// The first extent of `file` between `start` and `end` that is no hole.
fn data_from(file: &File, start: u64, end: u64) -> io::Result<Option<Range<u64>>> {
    let data = match seek(file, SeekFrom::Data(start)) {
        Ok(data) if data < end => data,
        // No data behind `start` (lseek(2)).
        Ok(_) | Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(data..seek(file, SeekFrom::Hole(data))?.min(end)))
}

/// Whether `file` is the memory file of this identity, by its length and a few pages.
pub(crate) fn check_identity(
    file: &File,
    identity: &MemoryIdentity,
    page_size: u32,
) -> Result<(), ImageError> {
    let found = file.metadata().map_err(ImageError::Read)?.len();
    if found != identity.length {
        return Err(ImageError::Length { found, expected: identity.length });
    }
    let mut page = vec![0; usize_from(u64::from(page_size))];
    for sample in &identity.samples {
        file.read_exact_at(&mut page, sample.offset).map_err(ImageError::Read)?;
        if crc32fast::hash(&page) != sample.crc {
            return Err(ImageError::Changed { offset: sample.offset });
        }
    }
    Ok(())
}

/// The saved checksums, if they are those of `length` bytes of memory.
fn checksums(
    saved: &ChecksumsV1,
    length: u64,
) -> Result<impl Iterator<Item = u32> + use<'_>, StateError> {
    let bad = |field: &str, problem| StateError::field::<ChecksumsV1>(field, problem);
    if !saved.chunk.is_power_of_two() || saved.chunk < 0x1_0000 {
        return Err(bad("chunk", format!("is {}, no power of two from 64 KiB on", saved.chunk)));
    }
    let (words, rest) = saved.checksums.0.as_chunks::<4>();
    if u64_from(words.len()) != length.div_ceil(saved.chunk) || !rest.is_empty() {
        let problem = format!("has {} bytes for {length} of memory", saved.checksums.0.len());
        return Err(bad("checksums", problem));
    }
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)))
}
