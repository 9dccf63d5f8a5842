//! Disks that Debian's `qemu-storage-daemon` has (vhost-user): all over one is written and read
//! before, while and after its machine is saved and loaded beside another daemon; and the daemon
//! of another one is killed under its guest.

use std::path::Path;

use anyhow::ensure;
use rustix::process::Signal;
use tempfile::TempDir;

use super::{go_on, on_host::Programs, on_host::Started, work};
use crate::disks::{checker, image};
use crate::host::{Host, Need};
use crate::kedge::{Kedge, Running, SOON};
use crate::linux::BOOT;
use crate::suite::{Outcome, Suite, after, ensure_contains};

pub(super) fn tests(suite: &mut Suite) {
    let name = "programs::a_disk_of_qemu_storage_daemon_on_";
    suite.each_guest(&format!("{name}mmio"), &[Need::Programs], |host, kernel| {
        disks(host, kernel, "mmio")
    });
    let needs = &[Need::Programs, Need::GicV3];
    suite.each_guest(&format!("{name}pci"), needs, |host, kernel| disks(host, kernel, "pci"));
}

/// The daemon with the disk `name` in `folder`, once it listens at `name.sock` there.
fn daemon(programs: &Programs, folder: &Path, name: &str) -> anyhow::Result<Started> {
    let (image, socket) = (folder.join(name), socket(folder, name));
    let disk = format!(
        "driver=file,node-name=disk,discard=unmap,locking=off,filename={}",
        image.display()
    );
    let export = format!(
        "type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues=2,\
         addr.type=unix,addr.path={socket}"
    );
    let words = ["--blockdev", &disk, "--export", &export];
    let daemon = programs.start("usr/bin/qemu-storage-daemon", &words)?;
    daemon.listens(&socket)?;
    Ok(daemon)
}

fn socket(folder: &Path, name: &str) -> String {
    folder.join(format!("{name}.sock")).display().to_string()
}

fn disks(host: &Host, kernel: &Path, transport: &str) -> Outcome {
    let folder = TempDir::new()?;
    let folder = folder.path();
    let programs = Programs::mount(host)?;
    for name in ["kept", "lost", "own"] {
        image(folder, name)?;
    }
    let kept = daemon(&programs, folder, "kept")?;
    let lost = daemon(&programs, folder, "lost")?;
    let mut guest = Kedge::run(kernel.join("Image"))
        .flags("--id saved --cpus 2 --memory 192M --transport")
        .with([transport])
        .with(["--initrd".into(), kernel.join("initrd.gz")])
        .with(["--disk", &checker(folder)?])
        .with(["--disk", &format!("socket={},id=kept,queues=2", socket(folder, "kept"))])
        .with(["--disk", &format!("socket={},id=lost,queues=2", socket(folder, "lost"))])
        .with(["--disk", &format!("path={}", folder.join("own").display())])
        .cmdline("console=ttyS0 loglevel=1 kedge.run=user_disk")
        .start()?;
    guest.wait_for("=== saving", 1, BOOT)?;
    let before = moved_away(guest, folder)?;
    drop((kept, lost));

    let kept = daemon(&programs, folder, "kept")?;
    let lost = daemon(&programs, folder, "lost")?;
    let load = Kedge::new(["snapshot", "load"]).with([folder.join("state")]);
    guest = load.with(["--memory".into(), folder.join("memory")]).flags("--id loaded").start()?;
    go_on(&mut guest)?;
    guest.wait_for("=== writing", 1, work())?;
    drop(lost);
    go_on(&mut guest)?;
    guest.wait_for("=== beside", 1, work())?;
    for word in ["pause", "resume"] {
        Kedge::new([word, "loaded"]).finish()?.with_status(0)?;
    }
    go_on(&mut guest)?;
    guest.wait_for("=== done", 1, SOON)?;
    // What waits for the disk that is gone keeps the guest from coming to its end.
    let ended = guest.terminate()?;
    drop(kept);
    judge(&[before, ended.stdout].concat(), &ended.stderr)
}

/// Saves `guest` while it stands still, and ends it: what it has said.
fn moved_away(guest: Running, folder: &Path) -> anyhow::Result<String> {
    Kedge::new(["pause", "saved"]).finish()?.with_status(0)?;
    let create = Kedge::new(["snapshot", "create", "saved"]);
    let create = create.with(["--state".into(), folder.join("state")]);
    create.with(["--memory".into(), folder.join("memory")]).finish_within(BOOT)?.with_status(0)?;
    guest.signal(Signal::TERM)?;
    Ok(guest.finish_within(SOON)?.stdout)
}

fn judge(said: &str, complaints: &str) -> Outcome {
    ensure!(!said.contains("WRONG"), "{said}");
    for disk in ["vdb", "vdc"] {
        let about = after(said, &format!("DISK {disk} "))?;
        ensure!(about.starts_with("write back, 2 queues, discards "), "{about}");
        ensure!(!about.contains(" 0"), "it neither discards nor zeroes: {about}");
    }
    for checked in ["BEFORE", "WHILE", "AFTER", "BESIDE"] {
        ensure_contains(said, &[&format!("{checked} CHECKED 1000")])?;
    }
    ensure!(said.matches("BESIDE CHECKED 1000").count() == 2, "{said}");
    ensure!(after(said, "STUCK ")? == "0", "the disk was still written to:\n{said}");
    ensure!(!said.contains("LOST"), "{said}");
    ensure_contains(complaints, &["disk `lost` cannot be used any more: its back end has ended"])
}
