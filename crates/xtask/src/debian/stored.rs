//! Packages that are stored without compression: natively that is undone in a moment, in an emulated machine in minutes.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

/// How an archive begins (ar(5)).
const MAGIC: &[u8] = b"!<arch>\n";

/// Stores each package in `folder` without compression, with everything else as it was.
///
/// # Errors
/// A file that is no package, or no room.
pub(crate) fn store_all(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let deb = entry?.path();
        if deb.extension() == Some(OsStr::new("deb")) {
            store(&deb).with_context(|| format!("cannot rewrite {}", deb.display()))?;
        }
    }
    Ok(())
}

/// A package is an archive of its format's version, its scripts and its files (deb(5)).
fn store(deb: &Path) -> anyhow::Result<()> {
    let stored = PathBuf::from(format!("{}.stored", deb.display()));
    let mut archive = File::create(&stored)?;
    archive.write_all(MAGIC)?;
    member(&mut archive, "debian-binary", |into| into.write_all(b"2.0\n"))?;
    for (name, what) in [("control.tar", "--ctrl-tarfile"), ("data.tar", "--fsys-tarfile")] {
        let mut dpkg_deb = Command::new("dpkg-deb");
        dpkg_deb.arg(what).arg(deb).stdout(Stdio::piped());
        let mut dpkg_deb = dpkg_deb.spawn().context("cannot start dpkg-deb")?;
        let mut tar = dpkg_deb.stdout.take().context("dpkg-deb has an output")?;
        member(&mut archive, name, |into| io::copy(&mut tar, into).map(drop))?;
        drop(tar);
        ensure!(dpkg_deb.wait()?.success(), "dpkg-deb cannot read it");
    }
    Ok(fs::rename(stored, deb)?)
}

/// Appends a member, whose size is known when it is there.
fn member(
    archive: &mut File,
    name: &str,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let start = archive.stream_position()?;
    archive.write_all(&header(name, 0))?;
    let content = archive.stream_position()?;
    write(archive)?;
    let size = archive.stream_position()? - content;
    if size % 2 != 0 {
        archive.write_all(b"\n")?;
    }
    archive.seek(SeekFrom::Start(start))?;
    archive.write_all(&header(name, size))?;
    archive.seek(SeekFrom::End(0)).map(drop)
}

/// Name, time, owner, group, mode and size, in columns.
fn header(name: &str, size: u64) -> Vec<u8> {
    format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 100_644).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package of one file, as `dpkg-deb` makes it.
    fn package(folder: &Path) -> PathBuf {
        let (tree, deb) = (folder.join("tree"), folder.join("some.deb"));
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        let control = "Package: some\nVersion: 1\nArchitecture: all\nMaintainer: nobody <a@b.c>\n\
                       Description: something\n";
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        fs::write(tree.join("file"), "content\n".repeat(1000)).unwrap();
        let built = Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build"])
            .args([&tree, &deb])
            .stdout(Stdio::null())
            .status();
        assert!(built.unwrap().success());
        deb
    }

    fn said(arguments: &[&str], deb: &Path) -> Vec<u8> {
        let output = Command::new("dpkg-deb").args(arguments).arg(deb).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    #[test]
    fn a_stored_package_is_the_same_without_compression() {
        let folder = tempfile::tempdir().unwrap();
        let deb = package(folder.path());
        let before =
            ["--field", "--fsys-tarfile", "--ctrl-tarfile"].map(|what| said(&[what], &deb));
        store_all(folder.path()).unwrap();
        let after = ["--field", "--fsys-tarfile", "--ctrl-tarfile"].map(|what| said(&[what], &deb));
        assert!(before == after);
        let bytes = fs::read(&deb).unwrap();
        assert!(bytes.windows(16).any(|window| window == b"content\ncontent\n"));
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn what_is_no_package_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("other.deb"), "something else").unwrap();
        let error = store_all(folder.path()).unwrap_err();
        assert!(format!("{error:#}").contains("other.deb"), "{error:#}");
    }
}
