//! Opening a disk: what it must be, who else may have it, and what its guest will
//! know it by. Errors say how to mend them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kedge_diag::Fix;
use rustix::fs::{SeekFrom, ioctl_blkpbszget, ioctl_blksszget, seek};
use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;

use super::SECTOR;
use super::back_end::{BlockBackEnd, guarded};
use super::config::{BlockConfig, Caching, Format};
use super::lock::{self, Locked};
use super::qcow2::{self, Image};
use super::store::Store;

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
    /// Something, and not one sector.
    #[error("disk `{id}`: {} has {bytes} bytes, and a disk at least 512", path.display())]
    TooSmall {
        /// The disk's name.
        id: String,
        /// The path.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Somebody else writes to it, or reads what the guest is to write to.
    #[error("disk `{id}`: {} is in use by another program", path.display())]
    InUse {
        /// The disk's name.
        id: String,
        /// The path.
        path: PathBuf,
    },
    /// The host caches what is in it, whatever is asked for.
    #[error("disk `{id}`: {} cannot be read and written directly", path.display())]
    NotDirect {
        /// The disk's name.
        id: String,
        /// The path.
        path: PathBuf,
    },
    /// The program around the machine has its data, and has not said so.
    #[error("disk `{id}` is on a back end of a program, {}, and nobody gave one", path.display())]
    NoBackEnd {
        /// The disk's name.
        id: String,
        /// What the program called it.
        path: PathBuf,
    },
    /// A back end without one sector.
    #[error("disk `{id}`: its back end has {bytes} bytes, and a disk at least 512")]
    SmallBackEnd {
        /// The disk's name.
        id: String,
        /// Its size.
        bytes: u64,
    },
    /// The guest shall write to an image that is only read.
    #[error("disk `{id}`: {} is to be a qcow2 image, which guests can only read", path.display())]
    Written {
        /// The disk's name.
        id: String,
        /// The path.
        path: PathBuf,
    },
    /// It is not in its format, or refers to other files.
    #[error("disk `{id}`: {} is no qcow2 image that can be read", path.display())]
    Image {
        /// The disk's name.
        id: String,
        /// The path.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
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
            Self::InUse { .. } => Some(
                "stop the machine that has it (a paused one lets go), give each a copy, or open it \
                 `readonly` everywhere"
                    .to_owned(),
            ),
            Self::NotDirect { .. } => {
                Some("leave `direct` out: its file system has no direct access".to_owned())
            }
            Self::Written { path, .. } => Some(format!(
                "add `readonly` to --disk (`is_read_only` in a configuration file), or make a raw \
                 image of it: qemu-img convert -O raw {} disk.raw",
                path.display()
            )),
            Self::Image { path, .. } => Some(format!(
                "make a raw image of it, which continues in no other file: qemu-img convert -O raw \
                 {} disk.raw; leave `format` out for one that is raw already",
                path.display()
            )),
            Self::NoBackEnd { id, .. } => Some(format!(
                "restore it in the program that has it (`Restoration::replace`), or give a file with \
                 the same content: --disk id={id},path=FILE"
            )),
            Self::SmallBackEnd { .. } | Self::Io { .. } => None,
        }
    }
}

/// Bytes in a serial number (5.2.6).
#[expect(clippy::as_conversions, reason = "20, as the specification says, in a const")]
pub(super) const SERIAL: usize = VIRTIO_BLK_ID_BYTES as usize;

/// What a path turned out to be.
#[derive(Debug)]
pub(super) struct Opened {
    /// Where its data is, locked.
    pub(super) store: Store,
    /// Its size in sectors of 512 bytes.
    pub(super) sectors: u64,
    /// The size of a block in bytes.
    pub(super) block_size: u32,
    /// The size in bytes of what is stored as one.
    pub(super) physical_size: u32,
    /// The serial number.
    pub(super) serial: [u8; SERIAL],
}

impl Opened {
    /// Opens what `config` names.
    ///
    /// # Errors
    /// It is missing, no disk, too small, in use, or this user may not do so.
    pub(super) fn open(config: &BlockConfig) -> Result<Self, OpenError> {
        let &BlockConfig { ref id, ref path, access, caching, format, .. } = config;
        let (id, path) = (id.clone(), path.clone());
        if (format, access) == (Format::Qcow2, Access::ReadWrite) {
            return Err(OpenError::Written { id, path });
        }
        let failed = |source: io::Error| {
            let (id, path) = (id.clone(), path.clone());
            OpenError::Io { id, path, source }
        };
        let file = open_file(&path, access, 0).map_err(|e| explain(&id, &path, access, e))?;
        let metadata = file.metadata().map_err(failed)?;
        if let Some(what) = not_a_disk(&metadata.file_type()) {
            return Err(OpenError::NotADisk { id, path, what });
        }
        // A privileged user can write to what nobody may write to. An image is
        // usually marked so because it shall stay as it is.
        let nobody_may_write = metadata.is_file() && metadata.mode() & 0o222 == 0;
        if access == Access::ReadWrite && nobody_may_write {
            return Err(OpenError::ReadOnly { id, path });
        }
        // The size of a block device is where it ends; its metadata say 0.
        let bytes = seek(&file, SeekFrom::End(0)).map_err(|error| failed(error.into()))?;
        let sectors = bytes / SECTOR;
        if sectors == 0 && bytes != 0 {
            return Err(OpenError::TooSmall { id, path, bytes });
        }
        let (block_size, physical_size) = sizes(&file, &metadata).map_err(failed)?;
        match lock::lock(&file, access).map_err(failed)? {
            Locked::Yes => {}
            Locked::InUse => return Err(OpenError::InUse { id, path }),
        }
        if format == Format::Qcow2 {
            return Self::in_image(config, file, serial(&metadata));
        }
        warn_of_image(&id, &file);
        let direct = match caching {
            Caching::Host => None,
            Caching::Direct => match open_file(&path, access, libc::O_DIRECT) {
                Ok(direct) => Some(direct),
                Err(_) => return Err(OpenError::NotDirect { id, path }),
            },
        };
        if bytes == 0 {
            // Kata Containers has such places for disks that come later.
            tracing::warn!(
                "disk `{id}`: {} is empty, and the guest's disk has no sector until another file is put \
                 there",
                path.display()
            );
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
        let store = Store::Raw { file, direct };
        Ok(Self { store, sectors, block_size, physical_size, serial })
    }

    /// The content of the image in `file`.
    ///
    /// # Errors
    /// It is none, or has not one sector.
    fn in_image(config: &BlockConfig, file: File, serial: [u8; SERIAL]) -> Result<Self, OpenError> {
        match Image::open(file, &config.path, serial) {
            Ok(image) => Self::on_back_end(config, Arc::new(image)),
            Err(source) => {
                let (id, path) = (config.id.clone(), config.path.clone());
                Err(OpenError::Image { id, path, source })
            }
        }
    }

    /// What `config` describes, where `back_end` has the data.
    ///
    /// # Errors
    /// It is too small.
    pub(super) fn on_back_end(
        config: &BlockConfig,
        back_end: Arc<dyn BlockBackEnd>,
    ) -> Result<Self, OpenError> {
        let (id, path) = (config.id.clone(), config.path.clone());
        let asked = guarded(|| Ok((back_end.size(), back_end.serial())));
        let (bytes, serial) = asked.map_err(|source| {
            let (id, path) = (id.clone(), path.clone());
            OpenError::Io { id, path, source }
        })?;
        match bytes / SECTOR {
            0 => Err(OpenError::SmallBackEnd { id, bytes }),
            sectors => {
                let store = Store::BackEnd(back_end);
                Ok(Self { store, sectors, block_size: 512, physical_size: 4096, serial })
            }
        }
    }
}

/// Says in the log what a raw image looks like. It may be so by its guest's doing, who is not
/// to choose which files are opened: so the format is for the user to say.
fn warn_of_image(id: &str, file: &File) {
    let mut magic = [0; qcow2::MAGIC.len()];
    if file.read_exact_at(&mut magic, 0).is_ok() && magic == qcow2::MAGIC {
        tracing::warn!(
            "disk `{id}`: its content looks like a qcow2 image, and is given to the guest as it \
             is; with `format=qcow2,readonly` the guest finds what is in that"
        );
    }
}

/// The size of a block, and of what is stored as one, in bytes.
fn sizes(file: &File, metadata: &std::fs::Metadata) -> io::Result<(u32, u32)> {
    if metadata.file_type().is_block_device() {
        return Ok((ioctl_blksszget(file)?, ioctl_blkpbszget(file)?));
    }
    // What a file system stores as one, where it says something sensible.
    let stored = u32::try_from(metadata.blksize()).unwrap_or(0);
    let is_sensible = stored.is_power_of_two() && (512..=65536).contains(&stored);
    Ok((512, if is_sensible { stored } else { 4096 }))
}

fn open_file(path: &Path, access: Access, flags: libc::c_int) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(access == Access::ReadWrite)
        // Opening a FIFO would wait for its other end.
        .custom_flags(libc::O_NONBLOCK | flags)
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
            if access == Access::ReadWrite && open_file(&path, Access::ReadOnly, 0).is_ok() =>
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
