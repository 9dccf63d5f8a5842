//! A small ext4 disk for guests to mount and write to.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::{debian, paths, process, progress};

const SIZE: &str = "16M";
/// Fixed, so that the image is the same wherever and whenever it is made.
const UUID: &str = "6b656467-6500-4000-8000-726f6f743031";
/// Grows whenever what is on the disk changes.
const LAYOUT: u32 = 1;

/// A disk with busybox, the folders of a root, and a journal.
///
/// # Errors
/// e2fsprogs is not installed, or busybox cannot be fetched.
pub(crate) fn root_ext4() -> anyhow::Result<PathBuf> {
    let path = paths::work().join("guests").join(format!("root-v{LAYOUT}.ext4"));
    paths::item(path, |made| {
        progress::step("make the guests' ext4 disk", || {
            let root = tempfile::tempdir()?;
            fill(root.path())?;
            let program = process::find("mke2fs")
                .context("mke2fs is not installed: run `cargo xtask setup` (package e2fsprogs)")?;
            let mut mke2fs = Command::new(program);
            mke2fs.args(["-q", "-F", "-t", "ext4", "-L", "kedge-root", "-U", UUID]);
            mke2fs.args(["-E", &format!("hash_seed={UUID},root_owner=0:0"), "-d"]);
            process::quiet(mke2fs.arg(root.path()).arg(made).arg(SIZE))
        })
    })
}

fn fill(root: &Path) -> anyhow::Result<()> {
    for folder in ["bin", "dev", "etc", "proc", "sys", "tmp", "var"] {
        fs::create_dir(root.join(folder))?;
    }
    fs::copy(debian::busybox()?, root.join("bin/busybox"))?;
    symlink("busybox", root.join("bin/sh"))?;
    fs::write(root.join("etc/hostname"), "kedge-guest\n")?;
    Ok(())
}
