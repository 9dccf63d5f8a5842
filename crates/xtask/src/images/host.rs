//! The root of the emulated host.

use crate::{cpio::Archive, debian::kernels::Kernel};

const INIT: &str = include_str!("host_init.sh");
const MODULES: [&str; 5] = ["virtio_pci", "virtio_blk", "tun", "vhost_net", "loop"];

/// An archive with all of the host's root but `/kedge`.
///
/// # Errors
/// The cache cannot be read, or busybox not be fetched.
pub(crate) fn host_root(kernel: &Kernel) -> anyhow::Result<Archive> {
    let mut archive = super::base(kernel, &MODULES)?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    Ok(archive)
}
