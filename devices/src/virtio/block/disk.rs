//! The host's side of a block device: a raw file or block device, opened with
//! errors that say how to mend them, and the operations on it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kedge_diag::Fix;
use kedge_ids::u64_from;
use rustix::fs::{SeekFrom, ioctl_blksszget, seek};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
};

use super::config::{BlockConfig, Cache};
use super::request::Operation;
use super::{SECTOR, SEG_MAX};
use crate::virtio::buffers::Buffers;

/// Whether the guest may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may.
    ReadWrite,
    /// It may not.
    ReadOnly,
}

/// Why a disk could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is nothing there.
    #[error("disk `{id}`: there is no file {}", path.display())]
    Missing {
        /// The disk's name.
        id: String,
        /// The path.
        path: PathBuf,
    },
    /// The user may not even read it.
    #[error("disk `{id}`: no permission to open {}", path.display())]
    Denied {
        /// The disk's name.
        id: String,
        /// The path.
        path: PathBuf,
    },
    /// The guest shall write, and this cannot be written to.
    #[error("disk `{id}`: {} is read-only", path.display())]
    ReadOnly {
        /// The disk's name.
        id: String,
        /// The path.
        path: PathBuf,
    },
    /// A directory, terminal, socket.
    #[error("disk `{id}`: {} is {what}, not a file or a block device", path.display())]
    NotADisk {
        /// The disk's name.
        id: String,
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Not one sector.
    #[error("disk `{id}`: {} has {bytes} bytes, and a disk at least 512", path.display())]
    TooSmall {
        /// The disk's name.
        id: String,
        /// The path.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Anything else.
    #[error("disk `{id}`: {} cannot be opened", path.display())]
    Io {
        /// The disk's name.
        id: String,
        /// The path.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

impl Fix for OpenError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Missing { path, .. } => {
                Some(format!("correct the path, or make a disk: truncate -s 1G {}", path.display()))
            }
            Self::Denied { path, .. } => Some(format!(
                "give this user access to it, for example: sudo chown $USER {}",
                path.display()
            )),
            Self::ReadOnly { path, .. } => Some(format!(
                "add `readonly` to --disk (`is_read_only` in a configuration file), or make it \
                 writable: chmod u+w {}",
                path.display()
            )),
            Self::NotADisk { .. } => Some("give the path of a disk image".to_owned()),
            Self::TooSmall { path, .. } => {
                Some(format!("make it larger: truncate -s 1G {}", path.display()))
            }
            Self::Io { .. } => None,
        }
    }
}

/// An open disk.
#[derive(Debug)]
pub(super) struct Disk {
    id: String,
    file: File,
    sectors: u64,
    promise: Promise,
    failures: AtomicU64,
}

/// What a guest goes by as long as it lives, besides the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Promise {
    /// The size of a block in bytes.
    pub(super) block_size: u32,
    /// Buffers in a request, besides its header and its status.
    pub(super) seg_max: u32,
    /// The serial number.
    pub(super) serial: [u8; SERIAL],
    /// Whether the guest may write.
    pub(super) access: Access,
    /// Whether the guest can flush.
    pub(super) cache: Cache,
}

/// Bytes in a serial number (5.2.6).
#[expect(clippy::as_conversions, reason = "20, as the specification says, in a const")]
pub(super) const SERIAL: usize = VIRTIO_BLK_ID_BYTES as usize;

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// `VIRTIO_BLK_S_*`.
    pub(super) status: u8,
    /// Bytes written to the driver's buffers.
    pub(super) written: usize,
}

impl Disk {
    /// Opens the disk that `config` describes.
    ///
    /// # Errors
    /// It is missing, no disk, too small, or this user may not do so.
    pub(super) fn open(config: &BlockConfig) -> Result<Self, OpenError> {
        let BlockConfig { id, path, access, cache, .. } = config;
        let (id, access, cache) = (id.clone(), *access, *cache);
        let failed = |source| OpenError::Io { id: id.clone(), path: path.clone(), source };
        let file = open_file(path, access).map_err(|error| explain(&id, path, access, error))?;
        let metadata = file.metadata().map_err(failed)?;
        if let Some(what) = not_a_disk(&metadata.file_type()) {
            return Err(OpenError::NotADisk { id, path: path.clone(), what });
        }
        // A privileged user can write to what nobody may write to. An image is
        // usually marked so because it shall stay as it is.
        let nobody_may_write = metadata.is_file() && metadata.mode() & 0o222 == 0;
        if access == Access::ReadWrite && nobody_may_write {
            return Err(OpenError::ReadOnly { id, path: path.clone() });
        }
        let is_device = metadata.file_type().is_block_device();
        // The size of a block device is where it ends; its metadata say 0.
        let bytes = seek(&file, SeekFrom::End(0)).map_err(|error| failed(error.into()))?;
        let block_size = if is_device { ioctl_blksszget(&file) } else { Ok(512) };
        let block_size = block_size.map_err(|error| failed(error.into()))?;
        let sectors = bytes / SECTOR;
        if sectors == 0 {
            return Err(OpenError::TooSmall { id, path: path.clone(), bytes });
        }
        if bytes % SECTOR != 0 {
            tracing::warn!(
                "disk `{id}`: the guest does not see the last {} bytes of {}, which are no whole \
                 sector of 512",
                bytes % SECTOR,
                path.display()
            );
        }
        let serial = serial(&metadata);
        let promise = Promise { block_size, seg_max: u32::from(SEG_MAX), serial, access, cache };
        Ok(Self { id, file, sectors, promise, failures: AtomicU64::new(0) })
    }

    /// Keeps to `promise` from now on, which a guest was given of a disk like it.
    pub(super) fn promise(&mut self, promise: Promise) {
        self.promise = promise;
    }

    /// What it keeps to.
    pub(super) fn promised(&self) -> Promise {
        self.promise
    }

    /// Its name.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The disk with another file behind it.
    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: File) {
        self.file = file;
    }

    /// Its size in sectors of 512 bytes.
    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// The size of a block in bytes: what the guest should read and write at
    /// least.
    pub(super) fn block_size(&self) -> u32 {
        self.promise.block_size
    }

    /// Buffers in a request, besides its header and its status.
    pub(super) fn seg_max(&self) -> u32 {
        self.promise.seg_max
    }

    /// The serial number.
    pub(super) fn serial(&self) -> &[u8; SERIAL] {
        &self.promise.serial
    }

    /// Whether the guest may write.
    pub(super) fn access(&self) -> Access {
        self.promise.access
    }

    /// Whether the guest can flush.
    pub(super) fn cache(&self) -> Cache {
        self.promise.cache
    }

    /// Does what the driver wants. What the host cannot do is an error for the
    /// guest.
    pub(super) fn execute(&self, operation: Operation<'_>) -> Outcome {
        match operation {
            Operation::In { sector, into } => {
                let written = into.len();
                let done = self.offset(sector, &into).map(|at| into.read_exact_at(&self.file, at));
                self.outcome("read", done, written)
            }
            Operation::Out { .. } if self.access() == Access::ReadOnly => {
                failure(VIRTIO_BLK_S_IOERR)
            }
            Operation::Out { sector, from } => {
                let done = self.offset(sector, &from).map(|at| from.write_all_at(&self.file, at));
                self.outcome("write", done, 0)
            }
            Operation::Flush if self.cache() == Cache::Writeback => {
                self.outcome("flush", Some(self.file.sync_data()), 0)
            }
            Operation::GetId { mut into } if into.len() >= SERIAL => {
                self.outcome("identify", Some(Ok(())), into.copy_from(self.serial()))
            }
            Operation::GetId { .. } => failure(VIRTIO_BLK_S_IOERR),
            Operation::Flush | Operation::Unsupported => failure(VIRTIO_BLK_S_UNSUPP),
        }
    }

    /// Where `data` from `sector` on starts in the file. None where it is not
    /// whole sectors, or not all of it within the disk.
    fn offset(&self, sector: u64, data: &Buffers<'_>) -> Option<u64> {
        let length = u64_from(data.len());
        let end = sector.checked_add(length / SECTOR)?;
        (length.is_multiple_of(SECTOR) && end <= self.sectors)
            .then(|| sector.saturating_mul(SECTOR))
    }

    /// The outcome of an attempt at `verb`, none where the driver asked for what
    /// the disk does not have.
    fn outcome(&self, verb: &str, done: Option<io::Result<()>>, written: usize) -> Outcome {
        match done {
            Some(Ok(())) => Outcome { status: low_byte(VIRTIO_BLK_S_OK), written },
            Some(Err(error)) => {
                self.report(verb, &error);
                failure(VIRTIO_BLK_S_IOERR)
            }
            None => failure(VIRTIO_BLK_S_IOERR),
        }
    }

    /// Says in the log what the host could not do: the first time, the second,
    /// the fourth, the eighth and so on, since a guest tries again and again.
    fn report(&self, verb: &str, error: &io::Error) {
        let times = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if times.is_power_of_two() {
            tracing::warn!(times, "disk `{}`: the host cannot {verb}: {error}", self.id);
        }
    }
}

fn failure(status: u32) -> Outcome {
    Outcome { status: low_byte(status), written: 0 }
}

fn low_byte(status: u32) -> u8 {
    status.to_le_bytes()[0]
}

fn open_file(path: &Path, access: Access) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(access == Access::ReadWrite)
        // Opening a FIFO would wait for its other end.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

/// What the host's refusal means.
fn explain(id: &str, path: &Path, access: Access, error: io::Error) -> OpenError {
    let (id, path) = (id.to_owned(), path.to_owned());
    match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing { id, path },
        io::ErrorKind::IsADirectory => OpenError::NotADisk { id, path, what: "a directory" },
        io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly { id, path },
        io::ErrorKind::PermissionDenied
            if access == Access::ReadWrite && open_file(&path, Access::ReadOnly).is_ok() =>
        {
            OpenError::ReadOnly { id, path }
        }
        io::ErrorKind::PermissionDenied => OpenError::Denied { id, path },
        _ => OpenError::Io { id, path, source: error },
    }
}

fn not_a_disk(kind: &std::fs::FileType) -> Option<&'static str> {
    if kind.is_file() || kind.is_block_device() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_char_device() {
        Some("a character device")
    } else {
        Some("a pipe or a socket")
    }
}

/// What Firecracker's guests find as serial number: the numbers of the file's
/// device, of itself as a device, and of its inode, cut to 20 digits.
fn serial(metadata: &std::fs::Metadata) -> [u8; SERIAL] {
    let digits = format!("{}{}{}", metadata.dev(), metadata.rdev(), metadata.ino());
    let mut serial = [0; SERIAL];
    for (to, from) in serial.iter_mut().zip(digits.bytes()) {
        *to = from;
    }
    serial
}
