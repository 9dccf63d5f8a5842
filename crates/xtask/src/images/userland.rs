//! A whole Debian on a disk, for guests: installed by Debian's own `dpkg` in the emulated host, as its recipe says.
//!
//! Maintainer scripts are arm64 programs that want to be root. The emulated host runs them as what they are, and lets
//! whoever builds be any user: a disk is made here and filled there.

use std::{
    collections::VecDeque,
    fs::{self, Permissions},
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::bail;

use super::{
    disk::{self, Format},
    recipe::{self, Recipe},
};
use crate::{
    debian::{self, kernels, stored},
    host::{self, Disk, HostConfig, HostExit, HostJob, Overlay, PageSize, Writes},
    paths, progress,
};

/// The recipe, a folder of `resources/guests`.
const RECIPE: &str = "debian-systemd";
/// Fixed, as far as an image can be that another kernel fills.
const UUID: &str = "6b656467-6500-4000-8000-64656269616e";
/// Where the host has what the script works with.
const SCRIPT: &str = "/kedge/install.sh";
const PACKAGES: &str = "/kedge/packages";
const DISK: &str = "/kedge/disk";
/// Two minutes are usual, more where the machine is busy.
const TIMEOUT: Duration = Duration::from_secs(40 * 60);
const LINES_SHOWN: usize = 15;

/// A disk with the root of a Debian that has systemd. Shared by all clones: not to be written to.
///
/// # Errors
/// Packages cannot be fetched, or the installation fails; the error shows its last lines.
pub(crate) fn debian_ext4() -> anyhow::Result<PathBuf> {
    let folder = recipe::read(RECIPE)?;
    let mut hash = DefaultHasher::new();
    folder.text.hash(&mut hash);
    let prefix = format!("{RECIPE}-");
    let name = format!("{prefix}{:016x}.ext4", hash.finish());
    let path = paths::item(paths::cache()?.join("userlands").join(name), |made| {
        let Recipe { suite, size, packages } = &folder.recipe;
        let packages = progress::step(format_args!("fetch the packages of {RECIPE}"), || {
            let packages = debian::packages(packages, suite)?;
            stored::store_all(packages.path())?;
            Ok(packages)
        })?;
        let what = format!("install {RECIPE} in the emulated host (once; takes minutes)");
        progress::step(what, || {
            disk::format(made, Format { size, uuid: UUID, label: RECIPE }, None)?;
            install(&folder.script, packages.path(), made)?;
            // Nobody writes to what all share.
            Ok(fs::set_permissions(made, Permissions::from_mode(0o444))?)
        })
    })?;
    paths::remove_older(&path, &prefix);
    Ok(path)
}

/// Boots the host to run `script` on the disk in `image`.
fn install(script: &Path, packages: &Path, image: &Path) -> anyhow::Result<()> {
    // dpkg has work for one CPU, and others that wait take the emulator's time.
    let config = HostConfig { smp: 1, ..HostConfig::default() };
    let mut files = vec![
        Overlay::copy(SCRIPT, script.to_owned()),
        Overlay::copy(PACKAGES, packages.to_owned()),
    ];
    let kernel = kernels::kernel(&config.kernel, PageSize::K4)?;
    files.extend(disk::modules(&kernel)?);
    let command = format!("{} && sh {SCRIPT} {DISK} {PACKAGES}", disk::LOAD_MODULES);
    let mut job = HostJob::new(["sh", "-c", &command].map(str::to_owned).to_vec(), files);
    job.timeout = TIMEOUT;
    job.disks = vec![Disk { image: image.to_owned(), path: DISK.to_owned(), writes: Writes::Kept }];
    let mut last = VecDeque::new();
    let exit = host::run(&config, &job, &mut |line| {
        last.push_back(format!("  {line}"));
        if last.len() > LINES_SHOWN {
            last.pop_front();
        }
    })?;
    let how = match exit {
        HostExit::Status(0) => return Ok(()),
        HostExit::Status(status) => format!("ended with status {status}"),
        HostExit::TimedOut => format!("was not done after {} s", TIMEOUT.as_secs()),
        HostExit::Silent(_) | HostExit::Died(_) => "died with its host".to_owned(),
    };
    bail!("the installation {how}:\n{}", Vec::from(last).join("\n"))
}
