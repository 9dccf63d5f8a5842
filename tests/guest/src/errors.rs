//! What goes wrong before a guest runs: each says what is wrong and how to mend
//! it, ends with the right status and leaves nothing behind.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use tempfile::TempDir;

use crate::host::Host;
use crate::kedge::{Ended, Kedge};
use crate::suite::{Outcome, Suite, ensure_contains};
use crate::tap::{Tap, run};
use crate::tap_ioctl;

const KVM: &str = "/dev/kvm";

pub(crate) fn tests(suite: &mut Suite) {
    kernels(suite);
    machines(suite);
    devices(suite);
    hosts(suite);
}

/// Fails unless kedge failed with status 1, these words on stderr, a cure, and not
/// a word of the guest.
fn refused(ended: Ended, words: &[&str]) -> Outcome {
    let Ended { stdout, stderr, .. } = &ended.with_status(1)?;
    ensure!(stderr.starts_with("error: ") && stderr.contains("\n  fix: "), "stderr:\n{stderr}");
    ensure!(stdout.is_empty(), "stdout:\n{stdout}");
    ensure_contains(stderr, words)
}

fn usage(ended: Ended, words: &[&str]) -> Outcome {
    let ended = ended.with_status(2)?;
    ensure!(ended.stderr.contains("\n  fix: "), "stderr:\n{}", ended.stderr);
    ensure_contains(&ended.stderr, words)
}

fn null(host: &Host) -> Kedge {
    Kedge::run(host.payload("null")).flags("--memory 16M")
}

/// A kernel of these bytes.
fn kernel(bytes: &[u8], words: &[&str]) -> Outcome {
    let folder = TempDir::new()?;
    let path = folder.path().join("kernel");
    fs::write(&path, bytes)?;
    refused(Kedge::run(path).finish()?, words)
}

fn kernels(suite: &mut Suite) {
    suite.once("errors::a_missing_kernel", &[], |_| {
        let ended = Kedge::run("/nowhere/Image").finish()?;
        refused(ended, &["/nowhere/Image", "No such file or directory", "exists"])
    });
    suite.once("errors::an_unreadable_kernel", &[], |host| {
        let folder = TempDir::new()?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let path = folder.path().join("Image");
        fs::copy(host.payload("null"), &path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o000))?;
        let ended = with_kvm_for_all(|| Kedge::run(&path).by_nobody().finish())?;
        refused(ended, &["Image`", "Permission denied", "may read"])
    });
    suite.once("errors::a_folder_for_a_kernel", &[], |_| {
        refused(Kedge::run("/tmp").finish()?, &["/tmp", "regular file"])
    });
    suite.once("errors::an_empty_kernel", &[], |_| kernel(&[], &["is empty"]));
    suite.once("errors::a_kernel_of_another_architecture", &[], |_| {
        let mut bzimage = vec![0; 0x1000];
        bzimage.splice(0x1fe..0x206, *b"\x55\xaa\xeb\x6aHdrS");
        kernel(&bzimage, &["x86", "not for arm64", "arm64"])
    });
    suite.once("errors::a_truncated_kernel", &[], |host| {
        let mut begin = Vec::new();
        File::open(host.linux()?)?.take(1 << 20).read_to_end(&mut begin)?;
        kernel(&begin, &["truncated", "holds 1048576 bytes", "get the file again"])
    });
    suite.once("errors::something_that_is_no_kernel", &[], |_| {
        kernel(b"#!/bin/sh\necho hello\n", &["format", "flat"])
    });
    suite.once("errors::a_missing_initrd", &[], |host| {
        let ended = null(host).flags("--initrd /nowhere/initrd").finish()?;
        refused(ended, &["/nowhere/initrd", "exists"])
    });
    suite.once("errors::an_initrd_larger_than_memory", &[], |host| {
        let folder = TempDir::new()?;
        let path = folder.path().join("initrd");
        File::create(&path)?.set_len(64 << 20)?;
        let ended = null(host).with(["--initrd".as_ref(), path.as_os_str()]).finish()?;
        refused(ended, &["initrd", "64 MiB", "memory"])
    });
    suite.once("errors::a_command_line_that_is_too_long", &[], |host| {
        let ended = null(host).cmdline(&"a".repeat(2048)).finish()?;
        refused(ended, &["2048", "2047"])
    });
}

fn machines(suite: &mut Suite) {
    suite.once("errors::no_memory", &[], |host| {
        let ended = Kedge::run(host.payload("null")).flags("--memory 0").finish()?;
        usage(ended, &["--memory", "without memory"])
    });
    suite.once("errors::no_cpus", &[], |host| {
        usage(null(host).flags("--cpus 0").finish()?, &["--cpus", "`0`"])
    });
    suite.once("errors::a_flag_that_does_not_exist", &[], |host| {
        usage(null(host).flags("--cpu 2").finish()?, &["--cpu", "--cpus"])
    });
    suite.once("errors::no_kernel_at_all", &[], |_| {
        usage(Kedge::new(["run"]).finish()?, &["--kernel"])
    });
}

fn devices(suite: &mut Suite) {
    suite.once("errors::a_tap_that_does_not_exist", &[], |host| {
        let ended = null(host).flags("--net tap=kedge-none").finish()?;
        refused(ended, &["`kedge-none` does not exist", "ip tuntap add"])
    });
    suite.once("errors::a_tap_that_is_in_use", &[], |host| {
        let tap = Tap::new("kedge-t3")?;
        let _busy = tap_ioctl::open_tap(tap.name())?;
        let ended = null(host).flags("--net tap=kedge-t3").finish()?;
        refused(ended, &["`kedge-t3` is in use"])
    });
    suite.once("errors::an_interface_that_is_no_tap", &[], |host| {
        refused(null(host).flags("--net tap=lo").finish()?, &["`lo`", "tap"])
    });
    suite.once("errors::a_disk_that_does_not_exist", &[], |host| {
        let ended = null(host).flags("--disk path=/nowhere/disk").finish()?;
        refused(ended, &["no file /nowhere/disk", "correct the path"])
    });
    suite.once("errors::a_read_only_disk_opened_for_writing", &[], read_only_disk);
    suite.once("errors::two_disks_with_one_name", &[], |host| {
        let disk = host.disk().display().to_string();
        let disk = format!("path={disk},readonly,id=same");
        usage(
            null(host).with(["--disk", &disk, "--disk", &disk]).finish()?,
            &["two disks with the name `same`"],
        )
    });
    suite.once("errors::too_many_devices", &[], |host| {
        let disk = format!("path={},readonly", host.disk().display());
        let disks = std::iter::repeat_n(["--disk", &disk], 95).flatten();
        refused(null(host).with(disks).finish()?, &["92 virtio devices"])
    });
}

/// Even root cannot write to a file system that is mounted read-only.
fn read_only_disk(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let path = folder.path().display().to_string();
    run("mount", &["-t", "tmpfs", "tmpfs", &path])?;
    let attempt = || {
        let disk = folder.path().join("disk");
        File::create(&disk)?.set_len(1 << 20)?;
        run("mount", &["-o", "remount,ro", &path])?;
        null(host).with(["--disk", &format!("path={}", disk.display())]).finish()
    };
    let ended = attempt();
    run("umount", &[&path])?;
    refused(ended?, &["/disk is read-only", "add `readonly` to --disk"])
}

fn hosts(suite: &mut Suite) {
    suite.once("errors::a_host_without_kvm", &[], |host| {
        let _away = Away::new(KVM)?;
        refused(null(host).finish()?, &[KVM])
    });
    suite.once("errors::no_permission_on_kvm", &[], |host| {
        let mode = fs::metadata(KVM)?.permissions();
        fs::set_permissions(KVM, Permissions::from_mode(0o600))?;
        let ended = null(host).by_nobody().finish();
        fs::set_permissions(KVM, mode)?;
        refused(ended?, &[KVM, "permission"])
    });
}

/// Calls `attempt` while everybody may use KVM.
fn with_kvm_for_all(attempt: impl FnOnce() -> anyhow::Result<Ended>) -> anyhow::Result<Ended> {
    let mode = fs::metadata(KVM)?.permissions();
    fs::set_permissions(KVM, Permissions::from_mode(0o666))?;
    let ended = attempt();
    fs::set_permissions(KVM, mode)?;
    ended
}

/// A file under another name, until this is dropped.
struct Away {
    path: PathBuf,
    away: PathBuf,
}

impl Away {
    fn new(path: impl AsRef<Path>) -> anyhow::Result<Self> {
        let path = path.as_ref().to_owned();
        let away = path.with_extension("away");
        fs::rename(&path, &away)?;
        Ok(Self { path, away })
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        // Should it fail, every later test says so.
        let _ = fs::rename(&self.away, &self.path);
    }
}
