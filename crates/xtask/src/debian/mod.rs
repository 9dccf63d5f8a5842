//! Debian's arm64 packages, for the emulated host and its guests.
//!
//! Everything goes through a private apt configuration in the cache: the user's system is only asked where its mirror is.

mod apt;
pub(crate) mod kernels;
mod mirror;
mod release;
pub(crate) mod stored;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::{paths, process, progress};
use apt::Apt;

/// The suite that user-space programs come from.
const SUITE: &str = "trixie";

/// A folder with the arm64 `packages` of `suite` and everything they depend on, as `.deb` files; gone when dropped.
///
/// A package is named as `apt-get install` takes it; patterns (`?essential`) work too.
///
/// # Errors
/// No mirror, no network, no such package, or not all dependencies.
pub(crate) fn packages(packages: &[String], suite: &str) -> anyhow::Result<TempDir> {
    Apt::open(suite)?.with_dependencies(packages)
}

/// Extracts exactly the arm64 `packages` of `suite` into the folder `into`.
///
/// # Errors
/// No mirror, no network, or no such package.
fn extract_alone(packages: &[&str], suite: &str, into: &Path) -> anyhow::Result<()> {
    let debs = Apt::open(suite)?.alone(packages)?;
    unpack(debs.path(), into)
}

/// Extracts the arm64 `packages` and everything they depend on into the folder `into`.
///
/// # Errors
/// As for [`packages`].
pub(crate) fn extract(packages: &[&str], into: &Path) -> anyhow::Result<()> {
    let packages: Vec<_> = packages.iter().map(|&package| package.to_owned()).collect();
    unpack(self::packages(&packages, SUITE)?.path(), into)
}

/// A static arm64 busybox.
///
/// # Errors
/// As for [`packages`].
pub(crate) fn busybox() -> anyhow::Result<PathBuf> {
    program("busybox-static", "busybox")
}

/// A static arm64 e2fsck.
///
/// # Errors
/// As for [`packages`].
pub(crate) fn e2fsck() -> anyhow::Result<PathBuf> {
    program("e2fsck-static", "e2fsck.static")
}

/// The file `name` out of `package`, in the cache.
fn program(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    paths::item(paths::cache()?.join("programs").join(name), |made| {
        progress::step(format_args!("fetch {package}"), || {
            let unpacked = tempfile::tempdir()?;
            extract_alone(&[package], SUITE, unpacked.path())?;
            let found = ["usr/bin", "bin", "usr/sbin", "sbin"]
                .map(|folder| unpacked.path().join(folder).join(name))
                .into_iter()
                .find(|path| path.is_file())
                .with_context(|| format!("there is no {name} in the package {package}"))?;
            fs::copy(found, made)?;
            Ok(())
        })
    })
}

/// Unpacks each package in the folder `debs`.
fn unpack(debs: &Path, into: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(into)?;
    let mut files: Vec<PathBuf> = fs::read_dir(debs)?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<Vec<_>>>()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "deb"))
        .collect();
    // base-files has the links (/bin to /usr/bin and so on) that other packages' files go through.
    let is_base = |path: &Path| path.to_string_lossy().contains("/base-files_");
    files.sort_by_key(|path| (!is_base(path), path.clone()));
    files.iter().try_for_each(|deb| unpack_one(deb, into))
}

fn unpack_one(deb: &Path, into: &Path) -> anyhow::Result<()> {
    let mut data = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let tar = data.stdout.take().context("dpkg-deb has an output")?;
    let unpacked = Command::new("tar")
        .args(["--extract", "--keep-directory-symlink", "--directory"])
        .arg(into)
        .stdin(tar)
        .status()
        .context("cannot start tar")?;
    if !data.wait()?.success() || !unpacked.success() {
        bail!("cannot unpack {}", deb.display());
    }
    Ok(())
}

/// The apt program `name` without a terminal and in plain English.
fn apt_program(name: &str) -> Command {
    let mut command = Command::new(process::find(name).unwrap_or_else(|| name.into()));
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    command
}
