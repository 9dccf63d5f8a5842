//! A disk of a program's own: what is in a file, and on top of it what the guest has written,
//! in memory. The file stays as it is.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kedge_vmm::disk::BlockBackEnd;

/// Bytes that are kept as one: those of a sector, which every request is whole ones of.
const SECTOR: usize = 512;

type Sector = [u8; SECTOR];

/// The disk.
pub(crate) struct Overlay {
    base: File,
    size: u64,
    /// The sectors that the guest has written, by their offsets.
    written: Mutex<HashMap<u64, Sector>>,
}

impl Overlay {
    /// A disk on top of the file `base`.
    pub(crate) fn new(base: &Path) -> io::Result<Self> {
        let base = File::open(base)?;
        let size = base.metadata()?.len();
        Ok(Self { base, size, written: Mutex::default() })
    }

    /// How many sectors the guest has written.
    pub(crate) fn sectors(&self) -> usize {
        self.written().len()
    }

    fn written(&self) -> MutexGuard<'_, HashMap<u64, Sector>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The offset of each sector from `offset` on.
fn sectors_from(offset: u64) -> impl Iterator<Item = u64> {
    (offset..).step_by(SECTOR)
}

impl BlockBackEnd for Overlay {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.base.read_exact_at(into, offset)?;
        let written = self.written();
        for (at, sector) in sectors_from(offset).zip(into.chunks_exact_mut(SECTOR)) {
            if let Some(newer) = written.get(&at) {
                sector.copy_from_slice(newer);
            }
        }
        Ok(())
    }

    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        let (sectors, _) = from.as_chunks::<SECTOR>();
        self.written().extend(sectors_from(offset).zip(sectors.iter().copied()));
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        // Nothing of it is to last longer than the program.
        Ok(())
    }
}
