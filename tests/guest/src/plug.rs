//! Devices that come and go while a Linux guest runs: it notices by itself, and lets go of
//! what it is asked for.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kedge_api::http::{Method, call};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::{Kedge, Running, SOON};
use crate::linux::{BOOT, Report};
use crate::suite::{Outcome, Suite, after, ensure_contains};
use crate::tap::Tap;

pub(crate) fn tests(suite: &mut Suite) {
    let needs = &[Need::GicV3, Need::MmuAtFirst];
    let name = "plug::a_disk_and_a_card_come_and_go_in_use_also_after_a_move";
    suite.each_guest(name, needs, plugged);
}

/// A machine by its API's socket.
struct Door(PathBuf);

impl Door {
    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Outcome {
        call(&self.0, method, path, body).with_context(|| format!("{method} {path}")).map(drop)
    }

    fn fault(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<String> {
        let fault = call(&self.0, method, path, body).err();
        Ok(fault.with_context(|| format!("{method} {path} was done"))?.to_string())
    }

    fn wait(&self) -> Outcome {
        let deadline = Instant::now() + SOON;
        while call(&self.0, Method::Get, "/version", None).is_err() {
            ensure!(Instant::now() < deadline, "nobody answers");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// A machine's files.
struct Files(TempDir);

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A guest with one device, which can leave, as Firecracker's users have it.
    fn start(&self, kernel: &Path) -> anyhow::Result<(Running, Door)> {
        let first = self.path("first.img");
        // Nothing is stored, and no guest comes to its end.
        File::create(&first)?.set_len(1 << 40)?;
        let config = json!({
            "boot-source": {
                "kernel_image_path": kernel.join("Image"),
                "initrd_path": kernel.join("initrd.gz"),
                "boot_args": "console=ttyS0 loglevel=1 kedge.run=plug",
            },
            "drives": [{"drive_id": "first", "is_root_device": false, "path_on_host": first}],
            "machine-config": {"vcpu_count": 2, "mem_size_mib": 256},
        });
        let (file, socket) = (self.path("vm.json"), self.path("api"));
        fs::write(&file, config.to_string())?;
        let words = ["--enable-pci", "--removable", "first", "--level", "Error", "--config-file"];
        let kedge =
            Kedge::new(words).with([&file]).with(["--api-sock".as_ref(), socket.as_os_str()]);
        let guest = kedge.start()?;
        let door = Door(socket);
        guest.wait_for("=== waiting", 1, BOOT)?;
        Ok((guest, door))
    }
}

fn disk(path: &Path) -> Value {
    json!({"drive_id": "data", "is_root_device": false, "path_on_host": path})
}

fn plugged(host: &Host, kernel: &Path) -> Outcome {
    let files = Files(TempDir::new()?);
    fs::copy(host.disk(), files.path("data.ext4"))?;
    File::create(files.path("other.img"))?.set_len(1 << 20)?;
    let tap = Tap::new("kedge-h0")?.with_address("10.92.0.1/24")?;
    let card = json!({"iface_id": "eth0", "host_dev_name": tap.name()});

    let (guest, door) = files.start(kernel)?;
    door.ask(Method::Delete, "/drives/first", None)?;
    let nobody = door.fault(Method::Delete, "/drives/data", None)?;
    ensure_contains(&nobody, &["Device not found."])?;
    door.ask(Method::Put, "/drives/data", Some(&disk(&files.path("data.ext4"))))?;
    door.ask(Method::Put, "/network-interfaces/eth0", Some(&card))?;
    let twice = door.fault(Method::Put, "/drives/data", Some(&disk(&files.path("other.img"))))?;
    ensure_contains(&twice, &["Device ID in use."])?;
    guest.wait_for("ROUND", 2, BOOT)?;
    let shown = call(&door.0, Method::Get, "/vm/config", None)?;
    ensure!(shown["drives"][0]["drive_id"] == "data", "{shown}");

    let before = guest.said();
    let (guest, door) = moved(&files, guest, &door)?;
    guest.wait_for("ROUND", 2, BOOT)?;
    // Both are used, and go at once; others are answered meanwhile.
    let gone = thread::scope(|scope| {
        let card = scope.spawn(|| door.ask(Method::Delete, "/network-interfaces/eth0", None));
        door.ask(Method::Delete, "/drives/data", None)?;
        card.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    gone?;
    guest.wait_for("GONE", 1, BOOT)?;
    door.ask(Method::Put, "/drives/data", Some(&disk(&files.path("other.img"))))?;
    let ended = guest.finish_within(BOOT)?.with_status(0)?;
    let said = Report::new(&ended.stdout);
    ensure!(said.section("again")? == "2048\nsame", "{}", said.whole());
    ensure_contains(after(&before, "READS END ")?, &["records out"])?;
    let fault = after(said.whole(), "WRITES END ")?;
    // The file system may have given up before.
    let refused = ["Input/output error", "Read-only file system"];
    ensure!(refused.iter().any(|why| fault.ends_with(why)), "the last write: {fault}");
    ensure!(!said.whole().contains("NEVER"), "{}", said.whole());
    ensure!(!said.whole().contains("GUEST-UP"), "the guest began anew:\n{}", said.whole());
    Ok(())
}

/// The guest in another process.
fn moved(files: &Files, guest: Running, door: &Door) -> anyhow::Result<(Running, Door)> {
    let [state, memory] = ["state", "memory"].map(|name| files.path(name));
    door.ask(Method::Patch, "/vm", Some(&json!({"state": "Paused"})))?;
    let create = json!({"snapshot_path": state, "mem_file_path": memory});
    door.ask(Method::Put, "/snapshot/create", Some(&create))?;
    guest.terminate()?;

    let door = Door(files.path("api-2"));
    let guest = Kedge::new(["--api-sock".as_ref(), door.0.as_os_str()]).start()?;
    door.wait()?;
    let load = json!({"snapshot_path": state, "mem_file_path": memory, "resume_vm": true});
    door.ask(Method::Put, "/snapshot/load", Some(&load))?;
    Ok((guest, door))
}
