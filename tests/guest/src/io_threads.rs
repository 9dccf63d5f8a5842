//! Devices on threads of their own: a disk that the host is slow with does not hold up
//! another one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::disks::image;
use crate::host::Host;
use crate::kedge::Kedge;
use crate::linux::BOOT;
use crate::loop_device::Loop;
use crate::suite::{Outcome, Suite, after};

/// Requests that the slow disk's device serves in a second.
const SLOW: u32 = 5;
/// Queues of the other disk, and CPUs that use them.
const QUEUES: u32 = 8;

const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

pub(crate) fn tests(suite: &mut Suite) {
    let name = "io_threads::a_slow_disk_does_not_hold_up_eight_queues_of_another";
    suite.once(name, &[], beside_a_slow_one);
}

/// A control group in which a device is slow; gone when dropped.
struct Slowed(PathBuf);

impl Slowed {
    fn new(device: &Path) -> anyhow::Result<Self> {
        let number = fs::metadata(device)?.rdev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let group = Path::new(CONTROL_GROUPS).join("slow");
        fs::write(Path::new(CONTROL_GROUPS).join("cgroup.subtree_control"), "+io")?;
        fs::create_dir(&group)?;
        let slowed = Self(group);
        let limit = format!("{major}:{minor} wiops={SLOW}");
        fs::write(slowed.0.join("io.max"), limit).context("a limit on a device")?;
        Ok(slowed)
    }

    /// Moves a process into it, all its threads.
    fn take(&self, process: u32) -> Outcome {
        Ok(fs::write(self.0.join("cgroup.procs"), process.to_string())?)
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        // A process that ends just now may still be in it.
        let _ = fs::remove_dir(&self.0);
    }
}

fn beside_a_slow_one(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let slow = Loop::over(&image(folder.path(), "slow")?)?;
    let fast = image(folder.path(), "fast")?;
    let slowed = Slowed::new(Path::new(slow.path()))?;
    let guest = Kedge::run(host.linux()?)
        .flags(&format!("--cpus {QUEUES} --memory 256M --io-threads 2"))
        .with(["--initrd".into(), host.initrd()?])
        .with(["--disk", &format!("path={},direct", slow.path())])
        .with(["--disk", &format!("path={},queues={QUEUES}", fast.display())])
        .cmdline("console=ttyS0 loglevel=1 kedge.run=slow")
        .start()?;
    slowed.take(guest.id())?;
    let ended = guest.finish_within(BOOT)?.with_status(0)?;
    let count = |name: &str| -> anyhow::Result<u32> { Ok(after(&ended.stdout, name)?.parse()?) };
    let (queues, fast, slow) = (count("QUEUES ")?, count("FAST ")?, count("SLOW ")?);
    ensure!(queues == QUEUES && fast == 50 * QUEUES, "{fast} requests on {queues} queues");
    // On one thread, each would wait for its turn behind one of the slow disk's.
    ensure!(slow < fast / 4, "{slow} slow requests were served before {fast} others were done");
    Ok(())
}
