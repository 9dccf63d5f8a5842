//! A kedge of this machine's own build, which runs machines on any host with the model as its hypervisor.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{build, paths, process};

/// The kernel that the model runs on.
const RELEASE: &str = "6.12";
/// A network of its own, in which it is root.
const APART: [&str; 3] = ["--user", "--map-root-user", "--net"];

/// Builds it, as unit tests have it; its path.
///
/// # Errors
/// It does not build.
pub(super) fn program() -> anyhow::Result<PathBuf> {
    let mut build = build::cargo();
    // What unit tests were built from is there already.
    build.args(["test", "--no-run", "--locked", "--workspace", "--test", "api"]);
    process::quiet(build.args(build::WITH_MODEL))?;
    Ok(paths::work().with_file_name("debug").join("kedge"))
}

/// A program whose network interfaces are its own, and in whose environment a kedge runs on the model, with its runtime files
/// below `folder`.
pub(super) fn apart(folder: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(APART).env("KEDGE_MODEL", RELEASE).env("XDG_RUNTIME_DIR", folder);
    command
}

/// The smallest arm64 Image (Linux, Documentation/arch/arm64/booting.rst): a header, and one page behind it.
pub(super) fn image() -> Vec<u8> {
    const SIZE: u64 = 4096;
    let mut image = vec![0; 4096];
    image[16..24].copy_from_slice(&SIZE.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}
