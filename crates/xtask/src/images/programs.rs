//! A disk with programs of Debian that hold devices to their word, for guests to mount and hosts to run: fio, iperf3 and
//! the like, with the libraries they need.

use std::{
    fs::{self, Permissions},
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::disk::{self, Format};
use crate::{debian, paths, progress};

/// Fixed, so that the image is the same wherever and whenever it is made of the same packages.
const UUID: &str = "6b656467-6500-4000-8000-70726f677301";
/// Grows whenever what is on the disk changes.
const LAYOUT: u32 = 1;
/// Of the image. Holes take no room.
const SIZE: &str = "256M";

const PACKAGES: [&str; 8] =
    ["curl", "e2fsprogs", "ethtool", "fio", "iperf3", "passt", "qemu-utils", "rng-tools5"];
/// What is kept of them and of what they depend on.
const KEPT: [&str; 11] = [
    "etc/mke2fs.conf",
    "usr/bin/curl",
    "usr/bin/fio",
    "usr/bin/iperf3",
    "usr/bin/passt",
    "usr/bin/qemu-storage-daemon",
    "usr/bin/rngtest",
    "usr/sbin/ethtool",
    "usr/sbin/mke2fs",
    "usr/lib/ld-linux-aarch64.so.1",
    LIBRARIES,
];
const LIBRARIES: &str = "usr/lib/aarch64-linux-gnu";
/// Libraries that these programs load by name only, and do not.
const LEFT_OUT: [&str; 2] = ["gconv", "security"];

/// The disk. Shared by all clones: not to be written to.
///
/// # Errors
/// e2fsprogs is not installed, or packages cannot be fetched.
pub(crate) fn programs_ext4() -> anyhow::Result<PathBuf> {
    let mut hash = DefaultHasher::new();
    (LAYOUT, SIZE, PACKAGES, KEPT, LEFT_OUT).hash(&mut hash);
    let prefix = "programs-";
    let name = format!("{prefix}{:016x}.ext4", hash.finish());
    let path = paths::item(paths::cache()?.join("userlands").join(name), |made| {
        progress::step("fetch fio, iperf3 and other programs for guests", || {
            let unpacked = tempfile::tempdir()?;
            debian::extract(&PACKAGES, unpacked.path())?;
            let root = tempfile::tempdir()?;
            fill(unpacked.path(), root.path())?;
            let format = Format { size: SIZE, uuid: UUID, label: "kedge-programs" };
            disk::format(made, format, Some(root.path()))?;
            // Nobody writes to what all share.
            Ok(fs::set_permissions(made, Permissions::from_mode(0o444))?)
        })
    })?;
    paths::remove_older(&path, prefix);
    Ok(path)
}

/// Moves what is kept from `unpacked` to `root`.
fn fill(unpacked: &Path, root: &Path) -> anyhow::Result<()> {
    for name in LEFT_OUT {
        let folder = unpacked.join(LIBRARIES).join(name);
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    for name in KEPT {
        let to = root.join(name);
        fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
        fs::rename(unpacked.join(name), to)
            .with_context(|| format!("the packages hold no {name}, or it cannot be moved"))?;
    }
    // The paths by which programs ask for their linker.
    Ok(symlink("usr/lib", root.join("lib"))?)
}
