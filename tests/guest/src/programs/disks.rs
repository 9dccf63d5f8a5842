//! Disks of every mode, with file systems on which fio writes, reads back and compares.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::{Boot, go_on, image, work};
use crate::disks::stored;
use crate::kedge::Running;
use crate::loop_device::Loop;
use crate::suite::{Outcome, after, times};
use crate::tap::run;

/// The guest's name of a disk, its options, and what is past the host's cache.
type Mode = (&'static str, &'static str, Through);

/// What a disk is for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Through {
    File,
    /// Files of the tests' folder know no direct access.
    Device,
}

#[rustfmt::skip]
const ON_MMIO: [Mode; 4] = [
    ("vdb", "cache=writeback,queues=1",                           Through::File),
    ("vdc", "cache=writethrough,queues=8,engine=io_uring",        Through::File),
    ("vdd", "cache=writeback,queues=8,engine=io_uring,direct",    Through::Device),
    ("vde", "cache=writethrough,queues=1,direct",                 Through::Device),
];
#[rustfmt::skip]
const ON_PCI: [Mode; 4] = [
    ("vdb", "cache=writeback,queues=8",                           Through::File),
    ("vdc", "cache=writethrough,queues=1,engine=io_uring",        Through::File),
    ("vdd", "cache=writeback,queues=1,engine=io_uring,direct",    Through::Device),
    ("vde", "cache=writethrough,queues=8,direct",                 Through::Device),
];

/// Bytes that fio writes to each disk.
pub(super) fn each() -> u64 {
    u64::from(times(4, 2)) << 20
}

/// The disks that a guest gets.
pub(super) struct Disks(Vec<Disk>);

struct Disk {
    mode: Mode,
    file: PathBuf,
    device: Option<Loop>,
}

/// What was found while the guest ran.
pub(super) struct Found(Vec<OnDisk>);

struct OnDisk {
    mode: Mode,
    /// Bytes that the host stores of it, with fio's files and without.
    stored: (u64, u64),
    /// Of the check when all was over.
    fsck: Result<(), String>,
}

impl Disks {
    /// In `folder`, for a machine with its devices on `transport`.
    ///
    /// # Errors
    /// No room, or no devices.
    pub(super) fn new(folder: &Path, transport: &str) -> anyhow::Result<Self> {
        let modes = if transport == "pci" { ON_PCI } else { ON_MMIO };
        let disk = |mode: Mode| {
            let file = image(folder.join(mode.0), 2 * each() + (16 << 20))?;
            let device = match mode.2 {
                Through::File => None,
                Through::Device => Some(Loop::over(&file)?),
            };
            Ok(Disk { mode, file, device })
        };
        modes.into_iter().map(disk).collect::<anyhow::Result<_>>().map(Self)
    }

    /// What kedge is told of them.
    pub(super) fn flags(&self) -> Vec<String> {
        let flag = |disk: &Disk| {
            let file = disk.file.display().to_string();
            let path = disk.device.as_ref().map_or(file.as_str(), Loop::path);
            ["--disk".to_owned(), format!("path={path},{}", disk.mode.1)]
        };
        self.0.iter().flat_map(flag).collect()
    }

    /// Waits until the guest has used them. What the host stores of each, full and trimmed.
    ///
    /// # Errors
    /// The guest does not come to an end.
    pub(super) fn watch(&self, guest: &mut Running) -> anyhow::Result<Vec<(u64, u64)>> {
        let stored = || self.0.iter().map(|disk| stored(&disk.file)).collect::<Result<Vec<_>, _>>();
        guest.wait_for("=== full", 1, work())?;
        let full = stored()?;
        go_on(guest)?;
        guest.wait_for("=== trimmed", 1, work())?;
        let trimmed = stored()?;
        go_on(guest)?;
        Ok(full.into_iter().zip(trimmed).collect())
    }

    /// Checks their file systems, when the guest has ended.
    pub(super) fn check(self, stored: Vec<(u64, u64)>) -> Found {
        let check = |(disk, stored): (Disk, (u64, u64))| {
            drop(disk.device);
            let fsck = run("e2fsck", &["-fn", &disk.file.display().to_string()]);
            let fsck = fsck.map(drop).map_err(|error| format!("{error:#}"));
            OnDisk { mode: disk.mode, stored, fsck }
        };
        Found(self.0.into_iter().zip(stored).map(check).collect())
    }
}

pub(super) fn fio(boot: &Boot) -> Outcome {
    let disks = boot.said.section("disks")?;
    let said = boot.said.section("fio")?;
    ensure!(said.contains("ended with status 0"), "fio has found faults:\n{said}");
    for OnDisk { mode: (name, options, _), .. } in &boot.disks.0 {
        let cache = if options.contains("writeback") { "write back" } else { "write through" };
        let queues = if options.contains("queues=8") { boot.cpus.min(8) } else { 1 };
        let line = format!("{name} {cache}, {queues} queues\n");
        ensure!(disks.contains(&line), "{name} is not {line}:\n{disks}");
        ensure!(disks.contains(&format!("{name} mounted")), "{name} is not mounted:\n{disks}");
        let words: Vec<_> = after(said, &format!("{name} "))?.split(' ').collect();
        let ["error", error, "read", read, "wrote", wrote] = words[..] else {
            anyhow::bail!("fio says of {name} {words:?}")
        };
        let (read, wrote): (u64, u64) = (read.parse()?, wrote.parse()?);
        ensure!(error == "0" && wrote << 10 == each() && read == wrote, "{name}: {words:?}");
    }
    Ok(())
}

pub(super) fn trimmed(boot: &Boot) -> Outcome {
    for OnDisk { mode: (name, options, _), stored: (full, trimmed), fsck } in &boot.disks.0 {
        let about = || format!("{name}, {options}");
        fsck.as_ref().map_err(|error| anyhow::anyhow!("{error}")).with_context(about)?;
        ensure!(
            *full >= each() && trimmed + each() * 3 / 4 < *full,
            "{}: {full} bytes were stored, and now {trimmed} are",
            about()
        );
    }
    Ok(())
}
