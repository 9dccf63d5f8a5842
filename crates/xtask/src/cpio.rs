//! Archives in the form the kernel unpacks as its first root: cpio, "newc" (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::Context;

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// An archive under construction. Everything in it belongs to root and has no date, so equal contents are equal bytes.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a folder, and those it lies in; one that is there stays.
    ///
    /// # Errors
    /// The archive would be too large for its form.
    pub(crate) fn folder(&mut self, path: &str) -> anyhow::Result<()> {
        let mut so_far = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if !so_far.is_empty() {
                so_far.push('/');
            }
            so_far.push_str(part);
            if self.folders.insert(so_far.clone()) {
                self.entry(&so_far, FOLDER | 0o755, &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file with these permission bits, and the folders it lies in.
    ///
    /// # Errors
    /// The file is larger than 4 GiB.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        let path = self.in_its_folder(path)?;
        self.entry(&path, FILE | (mode & 0o7777), content)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// The archive would be too large for its form.
    pub(crate) fn link(&mut self, path: &str, to: &str) -> anyhow::Result<()> {
        let path = self.in_its_folder(path)?;
        self.entry(&path, LINK | 0o777, to.as_bytes())
    }

    /// Adds a copy of the file `from`, or of everything in it if it is a folder.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn copy(&mut self, path: &str, from: &Path) -> anyhow::Result<()> {
        let kind = fs::symlink_metadata(from)
            .with_context(|| format!("cannot find {}", from.display()))?;
        if kind.is_symlink() {
            return self.link(path, &fs::read_link(from)?.to_string_lossy());
        }
        if !kind.is_dir() {
            let content =
                fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
            return self.file(path, kind.permissions().mode(), &content);
        }
        self.folder(path)?;
        let mut names: Vec<_> = fs::read_dir(from)?.collect::<Result<_, _>>()?;
        names.sort_by_key(fs::DirEntry::file_name);
        names.iter().try_for_each(|entry| {
            self.copy(&format!("{path}/{}", entry.file_name().to_string_lossy()), &entry.path())
        })
    }

    /// The finished archive.
    ///
    /// # Errors
    /// The archive is too large for its form.
    pub(crate) fn finish(mut self) -> anyhow::Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn in_its_folder(&mut self, path: &str) -> anyhow::Result<String> {
        let path = path.trim_start_matches('/');
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder)?;
        }
        Ok(path.to_owned())
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        let size =
            u32::try_from(content.len()).with_context(|| format!("{path} is larger than 4 GiB"))?;
        let name_size =
            u32::try_from(path.len() + 1).with_context(|| format!("{path} is too long a name"))?;
        self.entries += 1;
        let links = if mode & FOLDER == FOLDER { 2 } else { 1 };
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
        Ok(())
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_header_its_name_and_its_content_each_padded_to_four_bytes() {
        let mut archive = Archive::default();
        archive.file("/init", 0o755, b"hello").unwrap();
        let text = String::from_utf8(archive.finish().unwrap()).unwrap();
        let expected = [
            "070701",
            "00000001000081ed0000000000000000", // ino, mode, uid, gid
            "000000010000000000000005",         // nlink, mtime, filesize
            "00000000000000000000000000000000", // devmajor, devminor, rdevmajor, rdevminor
            "0000000500000000",                 // namesize, check
            "init\0\0hello\0\0\0",
        ];
        assert!(text.starts_with(&expected.concat()), "{text:?}");
        assert_eq!(text.len() % 4, 0);
    }

    #[test]
    fn the_folders_of_a_file_come_before_it_and_once() {
        let mut archive = Archive::default();
        archive.file("/a/b/one", 0o644, b"").unwrap();
        archive.file("/a/b/two", 0o644, b"").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(names(&bytes), ["a", "a/b", "a/b/one", "a/b/two", "TRAILER!!!"]);
    }

    #[test]
    fn a_folder_is_copied_with_its_links_and_modes_in_the_order_of_names() {
        let from = tempfile::tempdir().unwrap();
        fs::write(from.path().join("b"), "x").unwrap();
        std::os::unix::fs::symlink("b", from.path().join("a")).unwrap();
        let mut archive = Archive::default();
        archive.copy("/etc", from.path()).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(names(&bytes), ["etc", "etc/a", "etc/b", "TRAILER!!!"]);
    }

    /// The names in an archive, read as the kernel does.
    fn names(mut bytes: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        while bytes.len() >= 110 {
            let field = |at: usize| {
                let digits = std::str::from_utf8(&bytes[6 + 8 * at..14 + 8 * at]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            let (size, name_size) = (field(6), field(11));
            names.push(String::from_utf8(bytes[110..109 + name_size].to_vec()).unwrap());
            let content = (110 + name_size).next_multiple_of(4);
            bytes = &bytes[(content + size).next_multiple_of(4).min(bytes.len())..];
        }
        names
    }
}
