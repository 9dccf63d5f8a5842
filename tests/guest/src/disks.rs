//! Disks in every mode under Linux guests: what is written is there, what is given back is
//! free on the host, and what the host changes the guest sees.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use kedge_api::http::{CallError, Method, call};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host::Host;
use crate::kedge::{Kedge, Running, SOON};
use crate::linux::BOOT;
use crate::loop_device::Loop;
use crate::suite::{Outcome, Suite, ensure_contains};
use crate::tap::run;

/// How long a guest may work with all its disks.
const WORK: Duration = Duration::from_secs(10 * 60);

/// Bytes of each disk that is checked all over.
const SIZE: u64 = 8 << 20;

/// A disk that `qemu-img convert -O qcow2 -c -o cluster_size=512` has made of [`letters`].
const LETTERS: &[u8] = include_bytes!("../guest/letters.qcow2");

/// Sectors of one letter each, and 16 KiB of nothing between them.
fn letters() -> Vec<u8> {
    let letters = (b'a'..=b'z').cycle().take(128).enumerate();
    letters.flat_map(|(n, letter)| [if (32..64).contains(&n) { 0 } else { letter }; 512]).collect()
}

pub(crate) fn tests(suite: &mut Suite) {
    suite.any_kernel("disks::what_is_written_is_there_in_every_mode", &[], modes);
    suite.once("disks::another_file_and_size_are_seen_by_the_running_guest", &[], swapped);
    suite.once("disks::a_second_writer_is_refused", &[], second_writer);
}

/// An empty disk.
pub(crate) fn image(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    File::create(&path)?.set_len(SIZE)?;
    Ok(path)
}

/// A disk with the program that checks the others.
pub(crate) fn checker(folder: &Path) -> anyhow::Result<String> {
    let mut disk = fs::read("/kedge/bin/disk_checker").context("the guest's program")?;
    disk.resize(disk.len().next_multiple_of(512), 0);
    let path = folder.join("checker");
    fs::write(&path, disk)?;
    Ok(format!("path={},readonly", path.display()))
}

/// How many disks of process `id` go by `io_uring`.
fn rings(id: u32) -> anyhow::Result<usize> {
    let mut rings = 0;
    for entry in fs::read_dir(format!("/proc/{id}/fd"))? {
        // One that is closed meanwhile is none.
        let leads_to = fs::read_link(entry?.path()).unwrap_or_default();
        rings += usize::from(leads_to.to_string_lossy().contains("io_uring"));
    }
    Ok(rings)
}

/// Bytes that the host stores of a file.
pub(crate) fn stored(path: &Path) -> anyhow::Result<u64> {
    Ok(fs::metadata(path)?.blocks() * 512)
}

fn modes(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let folder = folder.path();
    let (plain, many) = (image(folder, "plain")?, image(folder, "many")?);
    let direct = Loop::over(&image(folder, "direct")?)?;
    let both = Loop::over(&image(folder, "both")?)?;
    let files = folder.join("files");
    fs::copy(host.disk(), &files)?;
    let (qcow2, raw) = (folder.join("letters.qcow2"), folder.join("letters"));
    fs::write(&qcow2, LETTERS)?;
    fs::write(&raw, letters())?;
    let sum = Command::new("md5sum").arg(&raw).output()?.stdout;
    let sum = String::from_utf8(sum)?.split(' ').next().map(str::to_owned).context("a sum")?;
    let mut guest = Kedge::run(host.linux()?)
        .flags("--cpus 2 --memory 192M")
        .with(["--initrd".into(), host.initrd()?])
        .with(["--disk", &checker(folder)?])
        .with(["--disk", &format!("path={}", plain.display())])
        .with(["--disk", &format!("path={},cache=unsafe,direct", direct.path())])
        .with([
            "--disk",
            &format!("path={},cache=writethrough,engine=io_uring,queues=8", many.display()),
        ])
        .with(["--disk", &format!("path={},direct,engine=io_uring,queues=2", both.path())])
        .with(["--disk", &format!("path={},engine=io_uring", files.display())])
        .with(["--disk", &format!("path={},format=qcow2,readonly", qcow2.display())])
        .cmdline("console=ttyS0 loglevel=1 kedge.run=disks")
        .start()?;
    guest.wait_for("=== full", 1, WORK)?;
    ensure!(rings(guest.id())? == 3, "not every disk that is to goes by io_uring");
    let full = stored(&files)?;
    guest.type_in(b"\n")?;
    let ended = guest.finish_within(BOOT)?.with_status(0)?;
    let said = &ended.stdout;
    ensure!(!said.contains("WRONG"), "{said}");
    ensure!(said.matches("CHECKED 1000").count() == 5, "{said}");
    // The host's files are in its memory, by the page.
    let stores = rustix::param::page_size();
    ensure_contains(
        said,
        &[
            &format!("=== vdb write back, 1 queues, discards 536870912, stores {stores}"),
            "=== vdc write through, 1 queues",
            // No more than there are CPUs.
            "=== vdd write through, 2 queues",
            "=== vde write back, 2 queues",
            "=== vdb turned to write through",
            "=== files are whole",
            "=== the file that is left is whole",
            &format!("=== vdg {sum}"),
            "=== done",
        ],
    )?;
    ensure!(!ended.stderr.contains("WARN"), "{}", ended.stderr);
    let trimmed = stored(&files)?;
    ensure!(trimmed + (4 << 20) < full, "{full} bytes were stored, and now {trimmed} are");
    run("e2fsck", &["-fn", &files.display().to_string()]).context("the file system")?;
    Ok(())
}

/// A disk of so many KiB that begins with `word`.
fn named(folder: &Path, word: &str, kib: u64) -> anyhow::Result<PathBuf> {
    let path = folder.join(word);
    fs::write(&path, word)?;
    File::options().write(true).open(&path)?.set_len(kib << 10)?;
    Ok(path)
}

fn with_disk(host: &Host, disk: &Path, socket: &Path) -> anyhow::Result<Running> {
    Kedge::run(host.linux()?)
        .flags("--memory 192M")
        .with(["--initrd".into(), host.initrd()?])
        .with(["--disk", &format!("path={},id=data", disk.display())])
        .with(["--api-sock".as_ref(), socket.as_os_str()])
        .cmdline("console=ttyS0 loglevel=1 kedge.run=swap")
        .start()
}

fn swapped(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let socket = folder.path().join("api");
    let first = named(folder.path(), "first", 1024)?;
    let second = named(folder.path(), "second", 2048)?;
    let mut guest = with_disk(host, &first, &socket)?;
    guest.wait_for("DISK of 2048 begins with first", 1, BOOT)?;
    let patch = |body: Value| -> Result<Value, CallError> {
        call(&socket, Method::Patch, "/drives/data", Some(&body))
    };
    let path = |path: &Path| json!({"drive_id": "data", "path_on_host": path});
    patch(path(&second))?;
    guest.wait_for("DISK of 4096 begins with second", 1, SOON)?;
    File::options().write(true).open(&second)?.set_len(3 << 20)?;
    patch(path(&second))?;
    guest.wait_for("DISK of 6144 begins with second", 1, SOON)?;

    let fault = patch(path(Path::new("/nowhere"))).err().context("it was changed")?.to_string();
    ensure_contains(&fault, &["Unable to patch the block device", "there is no file /nowhere"])?;
    let limit = json!({"ops": {"size": 1, "refill_time": 100}});
    patch(json!({"drive_id": "data", "rate_limiter": limit}))?;

    // While it stands still, too.
    call(&socket, Method::Patch, "/vm", Some(&json!({"state": "Paused"})))?;
    patch(path(&first))?;
    call(&socket, Method::Patch, "/vm", Some(&json!({"state": "Resumed"})))?;
    guest.wait_for("DISK of 2048 begins with first", 2, SOON)?;
    guest.type_in(b"\n")?;
    let ended = guest.finish_within(BOOT)?.with_status(0)?;
    ensure_contains(&ended.stdout, &["=== done"])?;
    ensure!(!ended.stdout.contains("WRONG"), "{}", ended.stdout);
    Ok(())
}

fn second_writer(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let disk = named(folder.path(), "shared", 1024)?;
    let flag = format!("path={}", disk.display());
    let first = Kedge::run(host.payload("counters")).flags("--memory 16M");
    let first = first.with(["--disk", &flag]).start()?;
    first.wait_for("COUNT ", 1, SOON)?;
    for flag in [flag.clone(), format!("{flag},readonly")] {
        let second = Kedge::run(host.payload("null")).flags("--memory 16M");
        let ended = second.with(["--disk", &flag]).finish()?.with_status(1)?;
        ensure_contains(&ended.stderr, &["is in use by another program"])?;
    }
    first.terminate()?;
    let again = Kedge::run(host.payload("null")).flags("--memory 16M");
    again.with(["--disk", &flag]).finish()?.with_status(0)?;
    Ok(())
}
