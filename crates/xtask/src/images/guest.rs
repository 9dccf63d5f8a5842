//! The root of a guest: busybox, virtio drivers, and the scripts of `tests/guest/guest`.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    path::PathBuf,
};

use flate2::{Compression, write::GzEncoder};

use crate::{debian::kernels::Kernel, paths};

const INIT: &str = include_str!("guest_init.sh");
/// Loads modules that nobody has asked for yet.
const MODPROBE: &str = include_str!("guest_modprobe.sh");
/// Loaded before anything else.
const MODULES: [&str; 5] = ["virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "virtio_rng"];
/// Loaded where a guest has something of the kind: the name of their list, and they.
const OTHERS: [(&str, &[&str]); 2] = [
    ("ext4", &["crc32c_generic", "libcrc32c", "ext4"]),
    ("vsock", &["vmw_vsock_virtio_transport"]),
];

/// The gzip-compressed initrd of a guest with this kernel.
///
/// # Errors
/// The cache cannot be read, or busybox not be fetched.
pub(crate) fn initrd(kernel: &Kernel) -> anyhow::Result<PathBuf> {
    let mut archive = super::base(kernel, &MODULES)?;
    for (list, modules) in OTHERS {
        super::add_modules(&mut archive, kernel, list, modules)?;
    }
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("sbin/modprobe", 0o755, MODPROBE.as_bytes())?;
    archive.folder("tests")?;
    for (name, script) in scripts()? {
        archive.file(&format!("tests/{name}"), 0o755, &script)?;
    }
    let archive = archive.finish()?;
    let mut hash = DefaultHasher::new();
    archive.hash(&mut hash);
    // Ends with what is in no name: `6.12` and `6.12-16k` are two kernels.
    let prefix = format!("initrd-{}.", kernel.name);
    let path = paths::work().join("guests").join(format!("{prefix}{:016x}.gz", hash.finish()));
    let path = paths::item(path, |made| {
        let mut encoder = GzEncoder::new(File::create(made)?, Compression::fast());
        encoder.write_all(&archive)?;
        encoder.finish()?;
        Ok(())
    })?;
    paths::remove_older(&path, &prefix);
    Ok(path)
}

/// The guest's side of the guest tests: name and text of each script.
fn scripts() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let Ok(entries) = fs::read_dir(paths::workspace().join("tests/guest/guest")) else {
        return Ok(Vec::new());
    };
    let mut scripts = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "sh") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            scripts.push((name, fs::read(&path)?));
        }
    }
    scripts.sort();
    Ok(scripts)
}
