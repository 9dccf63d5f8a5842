//! A disk that `qemu-storage-daemon` has, the back end of many users, under a driver.

use std::os::unix::fs::FileExt;
use std::process::{Child, Command};

use kedge_bus::Stateful;
use kedge_guest_memory::dirty;
use tempfile::TempDir;

use super::super::tests::{FLUSH, IN, OK, OUT, fetch, header, image, send};
use super::tests::{running, sectors};
use super::*;
use crate::virtio::testing::{Driver, RAM, wait_for};

/// The daemon, with an image of 8 sectors, each filled with its number.
struct Daemon {
    process: Child,
    directory: TempDir,
    image: tempfile::NamedTempFile,
}

impl Daemon {
    fn start(writable: &str) -> Self {
        let (directory, image) = (TempDir::new().unwrap(), image());
        let socket = directory.path().join("disk");
        let process = Command::new("qemu-storage-daemon")
            .arg("--blockdev")
            .arg(format!("driver=file,node-name=disk,filename={}", image.path().display()))
            .arg("--export")
            .arg(format!(
                "type=vhost-user-blk,id=export,node-name=disk,writable={writable},num-queues=2,\
                 addr.type=unix,addr.path={}",
                socket.display()
            ))
            .spawn()
            .expect("qemu-storage-daemon, of Debian's qemu-system-common, which xtask installs");
        Self { process, directory, image }
    }

    fn config(&self) -> UserDiskConfig {
        let socket = self.directory.path().join("disk");
        let (id, cache) = ("root".to_owned(), Cache::Writeback);
        UserDiskConfig { id, socket, cache, queues: 1, root: None }
    }

    /// The device, once the daemon listens.
    fn open(&self) -> Box<dyn VirtioDevice> {
        let mut device = None;
        wait_for(|| {
            device = UserBlock::open(&self.config()).ok();
            device.is_some()
        });
        Box::new(device.expect("the daemon does not listen"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn its_disk_is_read_written_flushed_and_noted() {
    let daemon = Daemon::start("on");
    let mut driver = Driver::sharing(daemon.open());
    dirty::track(&driver.memory);
    driver.run(1 << VIRTIO_BLK_F_FLUSH);
    dirty::take(&driver.memory);
    assert_eq!(sectors(&driver), 8);
    assert_eq!(send(&mut driver, OUT, 5, &[0x77; 1024]), OK);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    let mut written = [0; 1024];
    daemon.image.as_file().read_exact_at(&mut written, 5 * 512).unwrap();
    assert_eq!(written, [0x77; 1024]);
    let (offered, _) = driver.request(&[&header(IN, 3)], &[512, 1]).unwrap();
    assert_eq!(driver.bytes(offered.writable[0], 512), [3; 512]);
    assert!(driver.wait_interrupt());

    driver.transport.pause(Instant::now() + std::time::Duration::from_secs(10)).unwrap();
    let noted = dirty::take(&driver.memory);
    let at = offered.writable[0] - RAM;
    assert!(noted.regions()[0].extents().any(|it| it.start <= at && at < it.end()));
    driver.transport.resume().unwrap();
    assert_eq!(fetch(&mut driver, IN, 6, 512), (OK, vec![0x77; 512]));
}

#[test]
fn its_disk_goes_on_in_another_machine() {
    let (daemon, other) = (Daemon::start("on"), Daemon::start("on"));
    let mut driver = running(daemon.open(), 0);
    assert_eq!(send(&mut driver, OUT, 1, &[0x11; 512]), OK);
    let saved = driver.save();
    let mut moved = driver.moved(other.open(), &saved).unwrap();
    moved.transport.resume().unwrap();
    assert_eq!(fetch(&mut moved, IN, 2, 512), (OK, vec![2; 512]));
}

#[test]
fn a_read_only_disk_is_one_to_the_guest() {
    let daemon = Daemon::start("off");
    assert_ne!(daemon.open().features() & 1 << VIRTIO_BLK_F_RO, 0);
}

#[test]
fn the_device_needs_a_reset_when_the_daemon_is_killed() {
    let mut daemon = Daemon::start("on");
    let mut driver = running(daemon.open(), 0);
    assert_eq!(fetch(&mut driver, IN, 3, 512), (OK, vec![3; 512]));
    daemon.process.kill().unwrap();
    assert!(driver.wait_broken());
    assert!(driver.mishaps().iter().any(|mishap| mishap.why == "its back end has ended"));
}
