//! What hosts and guests boot from: their first root file systems and disks.

pub(crate) mod disk;
mod guest;
mod host;
pub(crate) mod modules;
mod programs;
mod recipe;
mod userland;

pub(crate) use disk::root_ext4;
pub(crate) use guest::initrd;
pub(crate) use host::host_root;
pub(crate) use programs::programs_ext4;
pub(crate) use userland::debian_ext4;

use anyhow::Context;

use crate::{cpio::Archive, debian};

/// Starts a root: busybox, the folders an init mounts things on, and `wanted` modules of `kernel` in `/mod`, whose names
/// in loading order are in `/mod/order`.
fn base(kernel: &debian::kernels::Kernel, wanted: &[&str]) -> anyhow::Result<Archive> {
    let mut archive = Archive::default();
    for folder in ["proc", "sys", "dev", "tmp", "root", "run", "mnt", "bin", "sbin"] {
        archive.folder(folder)?;
    }
    archive.copy("bin/busybox", &debian::busybox()?)?;
    archive.link("bin/sh", "busybox")?;
    add_modules(&mut archive, kernel, "order", wanted)?;
    Ok(archive)
}

/// Adds `wanted` modules of `kernel`, whose names in loading order are in `/mod/` and the name of the `list`.
fn add_modules(
    archive: &mut Archive,
    kernel: &debian::kernels::Kernel,
    list: &str,
    wanted: &[&str],
) -> anyhow::Result<()> {
    let have = kernel.modules()?;
    let mut order = String::new();
    for module in modules::load_order(&have, wanted) {
        let content = std::fs::read(&module.path)
            .with_context(|| format!("cannot read {}", module.path.display()))?;
        archive.file(&format!("mod/{}.ko", module.name), 0o644, &content)?;
        order.push_str(&module.name);
        order.push('\n');
    }
    archive.file(&format!("mod/{list}"), 0o644, order.as_bytes())
}
