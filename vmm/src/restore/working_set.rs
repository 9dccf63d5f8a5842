//! The pages that a guest needs first when it goes on from a snapshot, in a file: recorded
//! once, and in place before the guest asks for them at later restores.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `KEDGE-WS` |
//! | 4 | the format, 1 |
//! | 4 | the size of pages in bytes |
//! | 16 | the snapshot's id |
//! | 4 | how many runs follow |
//! | 8 each | a run: its first page's number in the memory file, and how many pages it has |
//! | 4 | CRC-32 (IEEE 802.3) of all before |
//!
//! All numbers are little-endian. The contents of the pages are the memory file's.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use kedge_diag::Fix;
use kedge_guest_memory::{
    Extent, GuestMemory, GuestMemoryBackend as _, GuestMemoryRegion as _, PageSet, Pagemap,
    prefetch,
};
use kedge_ids::u64_from;
use kedge_saved_state::SnapshotId;
use tracing::{info, warn};

use crate::save::describe::page_size;

const MAGIC: &[u8; 8] = b"KEDGE-WS";
const FORMAT: u32 = 1;
const HEAD: usize = 36;
const RUN: usize = 8;
const TAIL: usize = 4;
/// No guest needs as many: a mapping each, of which a process has some 65,000.
const MOST_RUNS: usize = 16_384;

/// Why a working set is of no use.
#[derive(Debug, thiserror::Error)]
pub enum WorkingSetError {
    /// It cannot be read.
    #[error("the working set {} cannot be read", path.display())]
    Read {
        /// Its file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// It is no working set, or damaged.
    #[error("{} is no working set, or is damaged: {problem}", path.display())]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It is of another snapshot.
    #[error("the working set {} is of the snapshot {found}, and this one is {here}", path.display())]
    Other {
        /// Its file.
        path: PathBuf,
        /// The snapshot it is of.
        found: SnapshotId,
        /// The snapshot that is loaded.
        here: SnapshotId,
    },
    /// The pages cannot be put in place.
    #[error("the pages of the working set {} cannot be put in place", path.display())]
    Place {
        /// Its file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// Who has the memory decides what comes first.
    #[error("a guest whose memory a page server has cannot have a working set")]
    Served,
}

impl Fix for WorkingSetError {
    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::Read { .. } => {
                "name a file that this user may read, or one that is not there yet"
            }
            Self::Damaged { .. } | Self::Other { .. } => {
                "name another file, or remove this one: it is written anew"
            }
            Self::Place { .. } => "load the snapshot without it",
            Self::Served => "have the page server fill such pages first",
        };
        Some(text.to_owned())
    }
}

/// The file of a working set that is to be written.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    snapshot: SnapshotId,
    pagemap: Pagemap,
}

/// Puts the pages of the file `path` in place in `memory`, which is that of `snapshot` and
/// not in use yet. Where there is no such file: who is to write it.
///
/// # Errors
/// It is none, or another snapshot's, or the host cannot.
pub(crate) fn begin(
    path: &Path,
    snapshot: SnapshotId,
    memory: &GuestMemory,
) -> Result<Option<Recorder>, WorkingSetError> {
    let place = |source| WorkingSetError::Place { path: path.to_owned(), source };
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let pagemap = Pagemap::open().map_err(place)?;
            return Ok(Some(Recorder { path: path.to_owned(), snapshot, pagemap }));
        }
        Err(source) => return Err(WorkingSetError::Read { path: path.to_owned(), source }),
    };
    let (found, runs) = decode(&bytes)
        .map_err(|problem| WorkingSetError::Damaged { path: path.to_owned(), problem })?;
    if found != snapshot {
        return Err(WorkingSetError::Other { path: path.to_owned(), found, here: snapshot });
    }
    prefetch(memory, &split(&runs, memory)).map_err(place)?;
    Ok(None)
}

/// The bytes of a file that is no longer than any working set.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let longest = u64_from(HEAD + MOST_RUNS * RUN + TAIL);
    let mut bytes = Vec::new();
    File::open(path)?.take(longest).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Recorder {
    /// Writes the file: the pages of `memory` that are in use. What goes wrong is told in
    /// the log: the guest is none the worse for it.
    pub(crate) fn record(self, memory: &GuestMemory) {
        match self.write(memory) {
            Ok(pages) => info!(pages, path = %self.path.display(), "wrote the working set"),
            Err(error) => {
                warn!(%error, path = %self.path.display(), "the working set cannot be written");
            }
        }
    }

    fn write(&self, memory: &GuestMemory) -> io::Result<u64> {
        let mut runs = Vec::new();
        let mut offset = 0;
        for region in memory.iter() {
            let pages = self.pagemap.resident(region)?;
            let here = |extent: Extent| Extent::new(offset + extent.start, extent.length);
            runs.extend(pages.extents().map(here));
            offset += region.len();
        }
        let bytes = encode(self.snapshot, &runs)?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let new = self.path.with_file_name(format!(".{name}.{}", std::process::id()));
        let written = File::create_new(&new)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| fs::rename(&new, &self.path));
        if written.is_err() {
            // It may not be there.
            let _ = fs::remove_file(&new);
        }
        written.map(|()| runs.iter().map(|run| run.length).sum::<u64>() / u64::from(page_size()))
    }
}

/// A working set's file.
fn encode(snapshot: SnapshotId, runs: &[Extent]) -> io::Result<Vec<u8>> {
    let too_many = || io::Error::other("the guest uses too much of its memory, page by page");
    if runs.len() > MOST_RUNS {
        return Err(too_many());
    }
    let number = |bytes: u64| u32::try_from(bytes / u64::from(page_size())).map_err(|_| too_many());
    let mut bytes = Vec::with_capacity(HEAD + runs.len() * RUN + TAIL);
    bytes.extend(MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend(page_size().to_le_bytes());
    bytes.extend(snapshot.bits().to_le_bytes());
    bytes.extend(u32::try_from(runs.len()).map_err(|_| too_many())?.to_le_bytes());
    for run in runs {
        bytes.extend(number(run.start)?.to_le_bytes());
        bytes.extend(number(run.length)?.to_le_bytes());
    }
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    Ok(bytes)
}

/// What a working set's file says, or what is wrong with it.
fn decode(bytes: &[u8]) -> Result<(SnapshotId, Vec<Extent>), &'static str> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it begins with something else")?;
    let (all, checksum) = bytes.split_last_chunk::<TAIL>().ok_or("it is cut short")?;
    if crc32fast::hash(all) != u32::from_le_bytes(*checksum) {
        return Err("its checksum does not match");
    }
    let (format, rest) = rest.split_first_chunk().ok_or("it is cut short")?;
    let (size, rest) = rest.split_first_chunk().ok_or("it is cut short")?;
    let (snapshot, rest) = rest.split_first_chunk().ok_or("it is cut short")?;
    if u32::from_le_bytes(*format) != FORMAT {
        return Err("its format is another release's");
    }
    if u32::from_le_bytes(*size) != page_size() {
        return Err("its pages are of another size than the host's");
    }
    let (count, rest) = rest.split_first_chunk().ok_or("it is cut short")?;
    let (runs, tail) = rest.as_chunks::<RUN>();
    if tail.len() != TAIL || u32::try_from(runs.len()) != Ok(u32::from_le_bytes(*count)) {
        return Err("it has not as many runs as it says");
    }
    let runs = runs.iter().map(|run| {
        let [a, b, c, d, e, f, g, h] = *run;
        let bytes = |pages: [u8; 4]| u64::from(u32::from_le_bytes(pages)) * u64::from(page_size());
        Extent::new(bytes([a, b, c, d]), bytes([e, f, g, h]))
    });
    Ok((SnapshotId::new(u128::from_le_bytes(*snapshot)), runs.collect()))
}

/// The pages of each region of `memory` that runs of its memory file are. What is behind
/// its end counts for nothing.
fn split(runs: &[Extent], memory: &GuestMemory) -> Vec<PageSet> {
    let mut offset = 0;
    let regions = memory.iter().map(|region| {
        let (start, end) = (offset, offset + region.len());
        offset = end;
        let mut pages = PageSet::new(region.len());
        for run in runs {
            let (first, behind) = (run.start.max(start), run.end().min(end));
            if first < behind {
                pages.add(Extent::new(first - start, behind - first));
            }
        }
        pages
    });
    regions.collect()
}

#[cfg(test)]
mod tests {
    use kedge_guest_memory::{GuestRange, map_anonymous};

    use super::*;

    const ID: SnapshotId = SnapshotId::new(0x1234);

    fn page() -> u64 {
        u64::from(page_size())
    }

    fn runs() -> Vec<Extent> {
        vec![Extent::new(0, 3 * page()), Extent::new(7 * page(), 10 * page())]
    }

    #[test]
    fn a_working_set_is_read_as_it_was_written() {
        assert_eq!(decode(&encode(ID, &runs()).unwrap()).unwrap(), (ID, runs()));
        assert_eq!(decode(&encode(ID, &[]).unwrap()).unwrap(), (ID, vec![]));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let whole = encode(ID, &runs()).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            decode(&bytes).unwrap_err();
        }
    }

    #[test]
    fn a_missing_end_is_noticed_wherever_it_begins() {
        let whole = encode(ID, &runs()).unwrap();
        for length in 0..whole.len() {
            decode(&whole[..length]).unwrap_err();
        }
    }

    #[test]
    fn a_run_over_two_regions_is_split() {
        let ranges = [GuestRange::new(0, 8 * page()), GuestRange::new(1 << 30, 4 * page())];
        let memory = map_anonymous(&ranges).unwrap();
        let sets = split(&runs(), &memory);
        let found: Vec<Vec<_>> = sets.iter().map(|set| set.extents().collect()).collect();
        assert_eq!(
            found,
            [
                vec![Extent::new(0, 3 * page()), Extent::new(7 * page(), page())],
                vec![Extent::new(0, 4 * page())],
            ]
        );
    }
}
