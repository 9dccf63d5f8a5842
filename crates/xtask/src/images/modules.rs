//! Kernel modules: what they need (their own `.modinfo` says), and the order to load them in.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Modules that hosts and guests of this project load or may come to load; what these need comes along.
#[rustfmt::skip]
pub(crate) const KEPT: [&str; 29] = [
    "virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "virtio_console", "virtio_balloon",
    "vmw_vsock_virtio_transport", "vhost_vsock", "vhost_net", "virtio_pmem", "nd_pmem", "virtio_mem", "virtiofs",
    "tun", "tap", "veth", "bridge", "ext4", "crc32c_generic", "libcrc32c", "squashfs", "overlay", "loop",
    "rtc_pl031", "vmgenid", "ptp_vmclock", "ptp_kvm", "virtio_rtc",
];

/// A kernel module, uncompressed.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    /// Its name with underscores, as the kernel lists it.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// The names of the modules it needs loaded before it.
    pub needs: Vec<String>,
}

/// The modules in `folder`.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn in_folder(folder: &Path) -> anyhow::Result<Vec<Module>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = name_of(&path) else { continue };
        let needs = needs(&fs::read(&path)?);
        found.push(Module { name, path, needs });
    }
    Ok(found)
}

/// The module's name if `path` is a module's file, compressed or not.
pub(crate) fn name_of(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let name = file.strip_suffix(".xz").unwrap_or(file).strip_suffix(".ko")?;
    Some(name.replace('-', "_"))
}

/// The names of the modules that the module with these bytes needs.
pub(crate) fn needs(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|bytes| bytes == key) else {
        return Vec::new();
    };
    let value =
        module.iter().skip(at + key.len()).take_while(|byte| **byte != 0).copied().collect();
    let names = String::from_utf8(value).unwrap_or_default();
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// `wanted` and all that they need out of `have`, each after what it needs. What `have` lacks is built into the kernel.
pub(crate) fn load_order<'a>(have: &'a [Module], wanted: &[&str]) -> Vec<&'a Module> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in wanted {
        visit(have, name, &mut seen, &mut order);
    }
    order
}

fn visit<'a>(
    have: &'a [Module],
    name: &str,
    seen: &mut BTreeSet<String>,
    order: &mut Vec<&'a Module>,
) {
    // Marked before what it needs is looked at, so that a circle ends.
    if !seen.insert(name.to_owned()) {
        return;
    }
    let Some(module) = have.iter().find(|module| module.name == name) else { return };
    for need in &module.needs {
        visit(have, need, seen, order);
    }
    order.push(module);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, needs: &[&str]) -> Module {
        let needs = needs.iter().map(|&need| need.to_owned()).collect();
        Module { name: name.to_owned(), path: PathBuf::new(), needs }
    }

    fn names(order: &[&Module]) -> Vec<String> {
        order.iter().map(|module| module.name.clone()).collect()
    }

    #[test]
    fn a_module_is_loaded_after_everything_it_needs() {
        let have = [
            module("ext4", &["jbd2", "mbcache", "crc16"]),
            module("jbd2", &["crc32c"]),
            module("mbcache", &[]),
            module("crc32c", &[]),
        ];
        let order = load_order(&have, &["ext4", "mbcache"]);
        assert_eq!(names(&order), ["crc32c", "jbd2", "mbcache", "ext4"]);
    }

    #[test]
    fn modules_that_need_each_other_do_not_hang_the_build() {
        let have = [module("a", &["b"]), module("b", &["a"])];
        assert_eq!(names(&load_order(&have, &["a"])), ["b", "a"]);
    }

    #[test]
    fn what_is_built_in_is_left_out() {
        assert!(load_order(&[], &["virtio_mmio"]).is_empty());
    }

    #[test]
    fn needs_are_read_from_the_module_with_dashes_as_the_kernel_reads_them() {
        let bytes = b"\x7fELF..license=GPL\0depends=rng-core,virtio\0name=virtio_rng\0";
        assert_eq!(needs(bytes), ["rng_core", "virtio"]);
        assert!(needs(b"license=GPL\0depends=\0").is_empty());
    }

    #[test]
    fn a_file_is_a_module_by_its_ending() {
        assert_eq!(name_of(Path::new("/m/rng-core.ko.xz")).unwrap(), "rng_core");
        assert_eq!(name_of(Path::new("/m/tun.ko")).unwrap(), "tun");
        assert_eq!(name_of(Path::new("/m/modules.order")), None);
    }
}
