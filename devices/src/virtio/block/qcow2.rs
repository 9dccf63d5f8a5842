//! Disk images in QEMU's format qcow2, to be read: as distributions publish them, and as
//! `qemu-img` makes them.
//!
//! An image says itself which other files it continues in, and where they are. That is for
//! whoever starts the machine to say, and not for a file that came from somewhere: an image
//! which refers to another is refused.

use std::fs;
use std::io;
use std::path::Path;

use imago::file::File;
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, StorageOpenOptions};

use super::back_end::BlockBackEnd;
use super::open::SERIAL;

/// How an image begins (QEMU, docs/interop/qcow2.rst, "Header").
pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// An image that was opened.
pub(super) struct Image {
    content: FormatAccess<File>,
    serial: [u8; SERIAL],
}

impl Image {
    /// The image in `file`, which was opened at `path` to be read, and whose lock stays with
    /// it; its guest goes by `serial`.
    ///
    /// # Errors
    /// It is none, is damaged, or refers to other files.
    pub(super) fn open(file: fs::File, path: &Path, serial: [u8; SERIAL]) -> io::Result<Self> {
        let options = StorageOpenOptions::new().filename(path).write(false);
        let file = File::from_open_file(file, options)?;
        let image: Qcow2<File> = Qcow2::builder(file).open(DenyImplicitOpenGate::default())?;
        Ok(Self { content: FormatAccess::new(image), serial })
    }
}

impl BlockBackEnd for Image {
    fn size(&self) -> u64 {
        self.content.size()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.content.read(into, offset)
    }

    fn write_at(&self, _from: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn serial(&self) -> [u8; SERIAL] {
        self.serial
    }
}
