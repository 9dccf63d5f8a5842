//! The disk with programs of Debian, mounted on the host, which has no libraries of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::host::Host;
use crate::kedge::SOON;
use crate::tap::run;

/// The host's init does not load what mounts disks: few tests do.
const LOAD: &str =
    "grep -q ext4 /proc/filesystems || for module in /kedge/modules/*.ko; do insmod $module; done";

/// Makes another root at the host's `/mnt`, in mounts that go with the program. It lies over the
/// first one, as a program's root has to whose user namespace is to be another.
const ALONE: &str = "set -e
disk=$1 folder=$2
shift 2
mount -t tmpfs none /mnt
mkdir /mnt/usr /mnt/tmp /mnt/proc /mnt/dev /mnt/etc
mount --bind $disk/usr /mnt/usr
mount --bind $folder /mnt/tmp
mount --bind /dev /mnt/dev
mount -t proc none /mnt/proc
ln -s usr/lib /mnt/lib
cd /mnt
mount -o move . /
exec chroot . \"$@\"";

/// The disk; gone from the host's folders when dropped.
pub(super) struct Programs(TempDir);

impl Programs {
    /// Mounts it.
    ///
    /// # Errors
    /// The host cannot.
    pub(super) fn mount(host: &Host) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        run("sh", &["-c", LOAD])?;
        let (disk, at) = (host.programs(), folder.path().display().to_string());
        run("mount", &["-t", "ext4", "-o", "ro", &disk.display().to_string(), &at])?;
        Ok(Self(folder))
    }

    /// Runs the program at `path` to its end.
    ///
    /// # Errors
    /// It fails.
    pub(super) fn run(&self, path: &str, words: &[&str]) -> anyhow::Result<String> {
        let (linker, words_of_linker) = self.linker(path);
        let all: Vec<_> =
            words_of_linker.iter().map(String::as_str).chain(words.iter().copied()).collect();
        run(&linker.display().to_string(), &all)
    }

    /// Starts the program at `path`.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start(&self, path: &str, words: &[&str]) -> anyhow::Result<Started> {
        let (linker, words_of_linker) = self.linker(path);
        let mut command = Command::new(linker);
        command.args(words_of_linker).args(words).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Started(command.spawn().with_context(|| format!("cannot start {path}"))?))
    }

    /// Starts the program at `path` on the disk in mounts of its own: a root without files
    /// but the disk's programs, and `folder` as `/tmp`. Some leave their root for good,
    /// which nobody can who is on the host's first one.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start_alone(
        &self,
        folder: &Path,
        path: &str,
        words: &[&str],
    ) -> anyhow::Result<Started> {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", ALONE, "sh"]).args([self.0.path(), folder]);
        command.arg(path).args(words).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Started(command.spawn().with_context(|| format!("cannot start {path}"))?))
    }

    /// Its own dynamic linker, and what that is told.
    fn linker(&self, path: &str) -> (PathBuf, [String; 3]) {
        let whole = |path: &str| self.0.path().join(Path::new(path)).display().to_string();
        let libraries = whole("usr/lib/aarch64-linux-gnu");
        let linker = self.0.path().join("usr/lib/ld-linux-aarch64.so.1");
        (linker, ["--library-path".to_owned(), libraries, whole(path)])
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        // What is left is found by the check that follows every test.
        let _ = run("umount", &[&self.0.path().display().to_string()]);
    }
}

/// A program that runs; killed when dropped.
pub(super) struct Started(Child);

/// The flags of a socket that somebody listens at, `__SO_ACCEPTCON`, in `/proc/net/unix`.
const LISTENS: &str = " 00010000 ";

impl Started {
    /// Waits until it listens at the Unix socket `path`. A program that serves one
    /// connection only is not to be called for that.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn listens(&self, path: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + SOON;
        let is_there = |line: &str| line.contains(LISTENS) && line.ends_with(path);
        while !fs::read_to_string("/proc/net/unix")?.lines().any(is_there) {
            let id = self.0.id();
            ensure!(Instant::now() < deadline, "process {id} does not listen at {path}");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
