//! Disks with an ext4 file system; and a small one for guests to mount and write to.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use super::modules as kernel_modules;
use crate::{
    debian::{self, kernels::Kernel},
    host::Overlay,
    paths, process, progress,
};

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
            format(made, Format { size: SIZE, uuid: UUID, label: "kedge-root" }, Some(root.path()))
        })
    })
}

/// A shell's command by which a host that has [`modules`] can mount disks.
pub(crate) const LOAD_MODULES: &str = "for module in /kedge/modules/*.ko; do insmod $module; done";

/// The modules with which a host mounts ext4 disks, named in the order to load them in.
///
/// # Errors
/// The kernel's modules cannot be read.
pub(crate) fn modules(kernel: &Kernel) -> anyhow::Result<Vec<Overlay>> {
    let have = kernel.modules()?;
    let order = kernel_modules::load_order(&have, &["crc32c_generic", "libcrc32c", "ext4"]);
    let file = |(module, number): (&kernel_modules::Module, u32)| {
        let path = format!("/kedge/modules/{number}-{}.ko", module.name);
        Overlay::copy(&path, module.path.clone())
    };
    Ok(order.into_iter().zip(10..).map(file).collect())
}

/// Makes the file `image`: an empty disk of this size, as `mke2fs` takes it.
///
/// # Errors
/// e2fsprogs is not installed, or there is no room.
pub(crate) fn empty_ext4(image: &Path, size: &str) -> anyhow::Result<()> {
    format(image, Format { size, uuid: UUID, label: "kedge-carried" }, None)
}

/// A file system to be made.
#[derive(Clone, Copy)]
pub(super) struct Format<'a> {
    /// As `mke2fs` takes it: `512M`.
    pub size: &'a str,
    /// Fixed, for images that do not differ from one making to the next.
    pub uuid: &'a str,
    /// At most 16 bytes.
    pub label: &'a str,
}

/// Makes the file `image`: an ext4 file system with a copy of the folder `content`, if given. The root is root's.
///
/// # Errors
/// e2fsprogs is not installed, or there is no room.
pub(super) fn format(image: &Path, format: Format, content: Option<&Path>) -> anyhow::Result<()> {
    let Format { size, uuid, label } = format;
    let program = process::find("mke2fs")
        .context("mke2fs is not installed: run `cargo xtask setup` (package e2fsprogs)")?;
    let mut mke2fs = Command::new(program);
    mke2fs.args(["-q", "-F", "-t", "ext4", "-L", label, "-U", uuid]);
    mke2fs.args(["-E", &format!("hash_seed={uuid},root_owner=0:0")]);
    if let Some(content) = content {
        mke2fs.arg("-d").arg(content);
    }
    process::quiet(mke2fs.arg(image).arg(size))
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
