//! What others that run machines on many hosts send to Firecracker, word by word and in their
//! order, answered by kedge: on any host, with the model as its hypervisor. Network cards are
//! left to the commands of the documentation, which have taps.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod waiting;

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use kedge_api::http::{Method, call};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder for one machine.
struct Place(TempDir);

/// kedge in the place of Firecracker. It is killed when dropped.
struct Firecracker(Child);

impl Drop for Firecracker {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.path("vmlinux"), waiting::image()).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A disk of so many bytes.
    fn disk(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.path(name);
        File::create(&path).unwrap().set_len(bytes).unwrap();
        path
    }

    /// A FIFO and its reader, which never waits.
    fn fifo(&self, name: &str) -> (PathBuf, File) {
        let path = self.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
        let reader = OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
        (path, reader)
    }

    fn firecracker(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kedge"));
        command.arg0("/usr/bin/firecracker").args(words).current_dir(self.0.path());
        command.env("KEDGE_MODEL", "6.12").env("XDG_RUNTIME_DIR", self.0.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn start(&self, words: &[&str]) -> Firecracker {
        Firecracker(self.firecracker(words).spawn().unwrap())
    }

    /// Asks until there is an answer that `is_meant`, as they all do.
    fn wait(&self, path: &str, is_meant: impl Fn(&Value) -> bool) {
        let ask = || call(&self.path("socket"), Method::Get, path, None);
        while !ask().is_ok_and(|answer| is_meant(&answer)) {
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn ask(&self, method: Method, path: &str, body: &Value) {
        let answer = call(&self.path("socket"), method, path, Some(body)).unwrap();
        assert_eq!(answer, Value::Null, "{path}");
    }
}

/// What has come through a FIFO so far.
fn read(fifo: &mut File) -> String {
    let mut text = Vec::new();
    // There is nothing more yet.
    let _ = fifo.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

/// Ends it by SIGTERM, as all of them do: its status.
fn terminate(mut machine: Firecracker) -> Option<i32> {
    kill_process(Pid::from_child(&machine.0), Signal::TERM).unwrap();
    machine.0.wait().unwrap().code()
}

/// As Kata Containers 3 writes it (`src/runtime/virtcontainers/fc.go`): a disk that is not the
/// root to Firecracker, and eight empty ones for containers.
fn katas_configuration(place: &Place, log: &Path, metrics: &Path) -> Value {
    let drive = |name: &str, bytes: u64, reads: bool| {
        json!({ "drive_id": name, "is_read_only": reads, "is_root_device": false,
                "path_on_host": place.disk(name, bytes) })
    };
    let pool = (0..8).map(|number| drive(&format!("drive_{number}"), 0, false));
    let drives: Vec<_> = [drive("rootfs", 1 << 20, true)].into_iter().chain(pool).collect();
    json!({
        "boot-source": {
            "kernel_image_path": place.path("vmlinux"),
            "boot_args": "root=/dev/vda1 rootflags=data=ordered,errors=remount-ro ro rootfstype=ext4 pci=off \
                          reboot=k panic=1 iommu=off net.ifnames=0 random.trust_cpu=on acpi=off \
                          8250.nr_uarts=0 agent.log_vport=1025",
        },
        "drives": drives,
        "logger": { "level": "Error", "log_path": log },
        "machine-config": { "mem_size_mib": 64, "smt": false, "vcpu_count": 1 },
        "metrics": { "metrics_path": metrics },
        "vsock": { "guest_cid": 3, "uds_path": place.path("kata.hvsock"), "vsock_id": "root" },
    })
}

#[test]
fn katas_machine_starts_is_given_a_containers_disk_and_ends() {
    let place = Place::new();
    let version = place.firecracker(&["--version"]).stdout(Stdio::piped()).output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let number = version.lines().next().unwrap().split(' ').nth(1).unwrap();
    assert_eq!(number.trim_start_matches('v').split('.').next(), Some("1"), "{version}");

    let ((log, _log), (metrics, mut counted)) = (place.fifo("log"), place.fifo("metrics"));
    let configuration = katas_configuration(&place, &log, &metrics);
    fs::write(place.path("fcConfig.json"), configuration.to_string()).unwrap();
    let machine = place.start(&["--api-sock", "socket", "--config-file", "fcConfig.json"]);
    place.wait("/", |answer| answer["state"] == "Running");
    let sockets = place.path("kata.hvsock");
    fs::set_permissions(&sockets, fs::Permissions::from_mode(0o640)).unwrap();

    let container = place.disk("container", 1 << 20);
    let body = json!({ "drive_id": "drive_0", "path_on_host": container });
    place.ask(Method::Patch, "/drives/drive_0", &body);
    let shown = call(&place.path("socket"), Method::Get, "/vm/config", None).unwrap();
    assert_eq!(shown["drives"][1]["path_on_host"], json!(container));
    let body = json!({ "drive_id": "drive_0", "path_on_host": place.path("drive_0") });
    place.ask(Method::Patch, "/drives/drive_0", &body);

    assert_eq!(terminate(machine), Some(143));
    let lines = read(&mut counted);
    let line: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(line["patch_api_requests"]["drive_fails"], 0);
    assert!(!sockets.exists());
}

#[test]
fn the_go_sdks_machine_starts_is_saved_and_ends() {
    let place = Place::new();
    let ((log, mut logged), (metrics, _counted)) = (place.fifo("log"), place.fifo("metrics"));
    let machine = place.start(&["--api-sock", "socket", "--id", "551e7604-e35c", "--no-seccomp"]);
    place.wait("/machine-config", |answer| answer.is_object());
    let put = |path: &str, body: Value| place.ask(Method::Put, path, &body);
    put(
        "/logger",
        json!({ "level": "Debug", "log_path": log, "show_level": true, "show_log_origin": false }),
    );
    put("/metrics", json!({ "metrics_path": metrics }));
    put("/machine-config", json!({ "mem_size_mib": 64, "smt": false, "vcpu_count": 1 }));
    place.wait("/machine-config", |answer| answer["mem_size_mib"] == 64);
    put(
        "/boot-source",
        json!({ "boot_args": "console=ttyS0 noapic reboot=k panic=1 pci=off nomodules ro",
                "kernel_image_path": place.path("vmlinux") }),
    );
    put(
        "/drives/1",
        json!({ "drive_id": "1", "is_read_only": false, "is_root_device": true,
                "path_on_host": place.disk("rootfs.ext4", 1 << 20) }),
    );
    put("/vsock", json!({ "guest_cid": 3, "uds_path": place.path("v.sock"), "vsock_id": "agent" }));
    put("/actions", json!({ "action_type": "InstanceStart" }));
    place.wait("/", |answer| answer["state"] == "Running");
    assert!(read(&mut logged).contains("[551e7604-e35c"));

    place.ask(Method::Patch, "/vm", &json!({ "state": "Paused" }));
    let files = json!({ "mem_file_path": place.path("mem"), "snapshot_path": place.path("state") });
    put("/snapshot/create", files);
    assert_eq!(terminate(machine), Some(143));

    let again = place.start(&["--api-sock", "socket", "--id", "551e7604-e35c", "--no-seccomp"]);
    place.wait("/machine-config", |answer| answer.is_object());
    put(
        "/snapshot/load",
        json!({ "mem_file_path": place.path("mem"), "resume_vm": true,
                "snapshot_path": place.path("state") }),
    );
    place.wait("/", |answer| answer["state"] == "Running");
    assert_eq!(terminate(again), Some(143));
}
