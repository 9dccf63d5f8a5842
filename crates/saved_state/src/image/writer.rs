//! Writing a memory file: pages of zeroes stay holes, checksums are made as data
//! passes by.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use kedge_ids::{u64_from, usize_from};

use super::{CHUNK, is_zero, map::ChecksumsV1, map::MemoryMap};
use crate::{Bytes, MemoryIdentity, Part, Region, Sample, Section, SnapshotId};

/// Pages that a file is known by: reading them must not be felt when a snapshot is
/// loaded.
const SAMPLES: u64 = 8;

/// What a memory file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// All memory: what has no data is zero.
    Full,
    /// What was written since another snapshot.
    Difference {
        /// The other snapshot.
        of: SnapshotId,
    },
}

/// A memory file in the making.
#[derive(Debug)]
pub struct ImageWriter<'f> {
    file: &'f File,
    identity: MemoryIdentity,
    page_size: u32,
    map: MemoryMap,
    checksums: Vec<u32>,
    /// Whether all data passed by here: there are no checksums otherwise.
    has_seen_all: bool,
    /// The checksum of the data in the last chunk so far, which `checksums` lacks.
    chunk: crc32fast::Hasher,
    /// What was offered so far ends here.
    end: u64,
}

/// What a state file says of the memory file that was written.
#[derive(Clone, Debug)]
pub struct WrittenImage {
    pub(crate) identity: MemoryIdentity,
    pub(crate) sections: Vec<Section>,
    data: u64,
}

impl WrittenImage {
    /// The memory file's identity.
    pub fn identity(&self) -> &MemoryIdentity {
        &self.identity
    }

    /// How many bytes of data it has.
    pub fn data_bytes(&self) -> u64 {
        self.data
    }
}

impl<'f> ImageWriter<'f> {
    /// Begins a memory file in `file`, which is empty: that of `regions`, in pages of
    /// `page_size` bytes.
    ///
    /// # Errors
    /// The host cannot make the file that long, or has no random bytes for an id.
    pub fn new(
        file: &'f File,
        contents: Contents,
        regions: &[Region],
        page_size: u32,
    ) -> io::Result<Self> {
        let length = regions.iter().map(|region| region.size).sum();
        file.set_len(length)?;
        let base = match contents {
            Contents::Full => None,
            Contents::Difference { of } => Some(of),
        };
        let id = SnapshotId::random()?;
        let regions = regions.to_vec();
        let identity = MemoryIdentity { id, base, length, regions, samples: Vec::new() };
        let (map, checksums) = (MemoryMap::default(), Vec::new());
        Ok(Self {
            file,
            identity,
            page_size,
            map,
            checksums,
            has_seen_all: true,
            chunk: crc32fast::Hasher::new(),
            end: 0,
        })
    }

    /// Writes `bytes`, whole pages of the memory file from `offset` on, behind all that
    /// was written before. In a full image, pages of zeroes become holes.
    ///
    /// # Errors
    /// The host cannot write, has no room for instance; or the pages are none of the
    /// memory file's, or not behind the others.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let page = u64::from(self.page_size);
        self.advance(offset, u64_from(bytes.len()))?;
        if self.identity.base.is_some() {
            return self.write_run(offset, bytes);
        }
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let zeroes = run(rest, usize_from(page), is_zero);
            at += u64_from(zeroes);
            rest = &rest[zeroes..];
            let data = run(rest, usize_from(page), |page| !is_zero(page));
            self.write_run(at, &rest[..data])?;
            at += u64_from(data);
            rest = &rest[data..];
        }
        Ok(())
    }

    /// The file, for who writes pages to it from where they are and tells by
    /// [`ImageWriter::add`].
    pub fn file(&self) -> &'f File {
        self.file
    }

    /// Takes note of whole pages that were written to [`ImageWriter::file`], behind all
    /// others. Then the image has no checksums: making them costs about as much as a
    /// third of the writing, and [`crate::Image::verify`] is refused.
    ///
    /// # Errors
    /// The pages are none of the memory file's, or not behind the others.
    pub fn add(&mut self, extent: Range<u64>) -> io::Result<()> {
        self.advance(extent.start, extent.end.saturating_sub(extent.start))?;
        self.has_seen_all = false;
        if !extent.is_empty() {
            self.map.push(extent);
        }
        Ok(())
    }

    /// Ends the memory file: what the state file is to say of it.
    ///
    /// # Errors
    /// The host cannot read it.
    pub fn finish(mut self) -> io::Result<WrittenImage> {
        self.end_chunks_before(self.identity.length.div_ceil(CHUNK));
        self.identity.samples = self.samples()?;
        let checksums = self.checksums.iter().flat_map(|checksum| checksum.to_le_bytes());
        let checksums = ChecksumsV1 { chunk: CHUNK, checksums: Bytes(checksums.collect()) };
        let mut sections = vec![Section::required(Part::of(&self.map.to_saved(self.page_size)))];
        if self.has_seen_all {
            sections.push(Section::optional(Part::of(&checksums)));
        }
        Ok(WrittenImage { identity: self.identity, sections, data: self.map.bytes() })
    }

    /// Moves on to behind these pages, if they can come next.
    fn advance(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let page = u64::from(self.page_size);
        let end = offset.checked_add(length).filter(|&end| end <= self.identity.length);
        let whole = offset.is_multiple_of(page) && length.is_multiple_of(page);
        match end {
            Some(end) if whole && offset >= self.end => self.end = end,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }

    fn write_run(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.file.write_all_at(bytes, offset)?;
        let mut extent = offset..offset + u64_from(bytes.len());
        self.map.push(extent.clone());
        let mut rest = bytes;
        while !extent.is_empty() {
            let chunk = extent.start / CHUNK;
            self.end_chunks_before(chunk);
            let end = extent.end.min((chunk + 1) * CHUNK);
            let (first, more) = rest.split_at(usize_from(end - extent.start));
            self.chunk.update(first);
            (rest, extent.start) = (more, end);
        }
        Ok(())
    }

    /// Ends all chunks before `chunk`.
    fn end_chunks_before(&mut self, chunk: u64) {
        while u64_from(self.checksums.len()) < chunk {
            self.checksums.push(std::mem::take(&mut self.chunk).finalize());
        }
    }

    /// Pages from all over the data, others in each image: those that one image has in
    /// common with the next are not always the same.
    fn samples(&self) -> io::Result<Vec<Sample>> {
        let page = u64::from(self.page_size);
        let pages = self.map.bytes() / page;
        let count = pages.min(SAMPLES);
        let mut random = self.identity.id.bits();
        let mut samples = Vec::new();
        let mut bytes = vec![0; usize_from(page)];
        for part in 0..count {
            let Range { start, end } = pages * part / count..pages * (part + 1) / count;
            random = random.rotate_left(8);
            let number = start + u64::try_from(random % u128::from(end - start)).unwrap_or(0);
            let Some(offset) = self.map.data_page(number, page) else { continue };
            self.file.read_exact_at(&mut bytes, offset)?;
            samples.push(Sample { offset, crc: crc32fast::hash(&bytes) });
        }
        Ok(samples)
    }
}

/// How many bytes the pages at the front of `bytes` have that are as `is` says.
fn run(bytes: &[u8], page: usize, is: impl Fn(&[u8]) -> bool) -> usize {
    bytes.chunks(page).take_while(|page| is(page)).map(<[u8]>::len).sum()
}
