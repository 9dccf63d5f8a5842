//! A machine that clients describe and start, as Firecracker's do.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kedge_api::http::{CallError, Method, call};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host::Host;
use crate::kedge::{Kedge, Running, SOON};
use crate::linux::{BOOT, Report};
use crate::suite::{Outcome, Suite, after, ensure_contains};
use crate::tap::Tap;

pub(super) fn tests(suite: &mut Suite) {
    suite.once("door::linux_boots_by_the_api_alone", &[], linux);
    suite.every_kernel("door::a_machine_is_described_started_saved_and_loaded", &[], life);
    suite.once("door::a_start_that_fails_can_be_mended_and_tried_again", &[], mended);
    suite.once("door::what_starts_by_the_api_resets_as_the_command_line_says", &[], reset);
}

/// A process that waits for its machine to be described.
struct Waiting {
    folder: TempDir,
    guest: Running,
}

impl Waiting {
    fn start(words: &[&str]) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let socket = folder.path().join("api");
        let guest = Kedge::new(["--api-sock".as_ref(), socket.as_os_str()]).with(words).start()?;
        let deadline = Instant::now() + SOON;
        while UnixStream::connect(&socket).is_err() {
            ensure!(Instant::now() < deadline, "nobody answers");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { folder, guest })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value, CallError> {
        call(&self.path("api"), method, path, Some(body))
    }

    fn put(&self, path: &str, body: &Value) -> Outcome {
        let answer = self.ask(Method::Put, path, body).with_context(|| format!("PUT {path}"))?;
        ensure!(answer.is_null(), "PUT {path} is answered with {answer}");
        Ok(())
    }

    fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(call(&self.path("api"), Method::Get, path, None)?)
    }

    /// Its events, from now on.
    fn listen(&self) -> anyhow::Result<UnixStream> {
        let mut stream = UnixStream::connect(self.path("api"))?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"GET /events HTTP/1.1\r\n\r\n")?;
        Ok(stream)
    }

    /// A small machine with one of the bare-metal guests.
    fn payload(&self, host: &Host, name: &str, boot_args: &str) -> Outcome {
        self.put("/machine-config", &json!({ "vcpu_count": 1, "mem_size_mib": 16 }))?;
        let kernel = host.payload(name);
        let boot = json!({ "kernel_image_path": kernel, "boot_args": boot_args });
        self.put("/boot-source", &boot)
    }

    fn begin(&self) -> Outcome {
        self.put("/actions", &json!({ "action_type": "InstanceStart" }))
    }

    fn is(&self, state: &str) -> Outcome {
        let instance = self.get("/")?;
        ensure!(instance["state"] == state, "{instance}");
        Ok(())
    }

    /// What it says to `body`, which it refuses.
    fn refuses(&self, method: Method, path: &str, body: &Value, why: &[&str]) -> Outcome {
        let answer = self.ask(method, path, body);
        ensure_contains(&answer.err().context("it did it")?.to_string(), why)
    }
}

/// What a platform does: size, kernel, disk, network, vsock, entropy, start.
fn linux(host: &Host) -> Outcome {
    let waiting = Waiting::start(&["--id", "platform-1", "--boot-timer"])?;
    let disk = waiting.path("root.ext4");
    fs::copy(host.disk(), &disk)?;
    let tap = Tap::new("kedge-t9")?.with_address("10.87.0.1/24")?;
    let log = waiting.path("log");
    waiting.put("/logger", &json!({ "log_path": log, "show_level": true }))?;
    waiting.put("/machine-config", &json!({ "vcpu_count": 2, "mem_size_mib": 256 }))?;
    let boot = json!({
        "kernel_image_path": host.linux()?,
        "initrd_path": host.initrd()?,
        "boot_args": "console=ttyS0 loglevel=1 kedge.run=one kedge.timer kedge.then=reboot",
    });
    waiting.put("/boot-source", &boot)?;
    let drive = json!({ "drive_id": "rootfs", "is_root_device": true, "path_on_host": disk });
    waiting.put("/drives/rootfs", &drive)?;
    let card = json!({
        "iface_id": "eth0", "host_dev_name": tap.name(), "guest_mac": "06:00:0a:57:00:02",
    });
    waiting.put("/network-interfaces/eth0", &card)?;
    let second = json!({ "iface_id": "eth1", "host_dev_name": tap.name() });
    let busy = ["Network config error: Could not create the network device: ", "fix: "];
    waiting.refuses(Method::Put, "/network-interfaces/eth1", &second, &busy)?;
    let vsock = json!({ "guest_cid": 3, "uds_path": waiting.path("v.sock") });
    waiting.put("/vsock", &vsock)?;
    waiting.put("/entropy", &json!({}))?;
    waiting.is("Not started")?;
    let described = waiting.get("/vm/config")?;
    waiting.begin()?;
    waiting.is("Running")?;
    ensure!(waiting.get("/vm/config")? == described, "another machine has started");
    let late = ["not supported after starting the microVM."];
    waiting.refuses(Method::Put, "/boot-source", &boot, &late)?;
    waiting.refuses(Method::Put, "/drives/rootfs", &drive, &["PCI is not enabled"])?;
    let ended = waiting.guest.finish_within(BOOT)?.with_status(0)?;
    let said = Report::new(&ended.stdout);
    ensure_contains(said.section("cmdline")?, &["pci=off root=/dev/vda rw earlycon="])?;
    ensure_contains(said.whole(), &["GUEST-UP "])?;
    let received = "INFO] The API server received a Put request on \"/vsock\" with body \"";
    let done = "INFO] The request was executed successfully. Status code: 204 No Content.";
    let refused = "ERROR] Received Error. Status code: 400 Bad Request. Message: Network config";
    let up = "INFO] Guest-boot-time = ";
    ensure_contains(&fs::read_to_string(log)?, &[received, done, refused, up])
}

/// Two processes and one guest, by requests alone.
fn life(host: &Host) -> Outcome {
    let first = Waiting::start(&["--guest-abi", "arm64-v0"])?;
    let (metrics, events) = (first.path("metrics"), first.listen()?);
    first.put("/metrics", &json!({ "metrics_path": metrics, "emit_id": true }))?;
    first.payload(host, "counters", "")?;
    first.begin()?;
    first.guest.wait_for("COUNT ", 3, SOON)?;
    first.put("/actions", &json!({ "action_type": "FlushMetrics" }))?;
    counted(&first)?;
    first.ask(Method::Patch, "/vm", &json!({ "state": "Paused" }))?;
    first.is("Paused")?;
    let [state, memory] = ["state", "memory"].map(|name| first.path(name));
    let create = json!({ "snapshot_path": state, "mem_file_path": memory });
    first.put("/snapshot/create", &create)?;
    ensure!(first.get("/machine-config")?["mem_size_mib"] == 16, "it has another size");

    let second = Waiting::start(&[])?;
    second.put("/serial", &json!({ "serial_out_path": second.path("serial") }))?;
    let backend = json!({ "backend_type": "File", "backend_path": memory });
    let load = json!({ "snapshot_path": state, "mem_backend": backend, "resume_vm": true });
    second.put("/snapshot/load", &load)?;
    second.is("Running")?;
    ensure!(second.get("/machine-config")?["mem_size_mib"] == 16, "it has another size");
    let deadline = Instant::now() + SOON;
    while !fs::read_to_string(second.path("serial"))?.contains("COUNT ") {
        ensure!(Instant::now() < deadline, "it counts no more");
        thread::sleep(Duration::from_millis(10));
    }
    second.guest.terminate()?;
    first.guest.terminate()?;
    happened(events, &["state", "started", "paused", "saved", "stopped"])
}

/// Reads `events` to their end: they are those.
fn happened(mut events: UnixStream, expected: &[&str]) -> Outcome {
    let mut all = String::new();
    events.read_to_string(&mut all)?;
    let lines = all.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    let happened: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap_or("")).collect();
    ensure!(happened == expected && all.ends_with("0\r\n\r\n"), "{all}");
    Ok(())
}

/// What a machine that `waiting` runs has counted so far: a line at its start, one when it
/// was asked for, and the same and more for Prometheus.
fn counted(waiting: &Waiting) -> Outcome {
    let deadline = Instant::now() + SOON;
    let mut written = String::new();
    while written.lines().count() < 2 {
        ensure!(Instant::now() < deadline, "there are no two lines: {written}");
        thread::sleep(Duration::from_millis(10));
        written = fs::read_to_string(waiting.path("metrics"))?;
    }
    let lines: Vec<Value> = written.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let sum = |group: &str, key: &str| {
        lines.iter().filter_map(|line| line[group][key].as_u64()).sum::<u64>()
    };
    let (printed, stores) = (sum("uart", "write_count"), sum("vcpu", "exit_mmio_write"));
    ensure!(printed > 0 && stores > 0, "{printed} bytes with {stores} stores");
    ensure!(sum("put_api_requests", "metrics_count") == 1, "{written}");
    ensure!(lines.iter().all(|line| line["id"] == "anonymous-instance"), "{written}");
    let answer = waiting.get("/metrics")?;
    let all = answer.as_str().context("it is no text")?;
    let started = "kedge_api_request_seconds_count{kind=\"PUT /actions\"} 2";
    let (stores, aborts) = ("kedge_vcpu_exit_mmio_write_total ", "\nkedge_bus_aborts_total 0\n");
    // The guest went on while the lines were written, and each byte is a store.
    let by_now: u64 = after(all, stores)?.parse()?;
    ensure!(by_now >= printed, "{printed} bytes with {by_now} stores");
    ensure_contains(all, &[started, aborts])
}

/// A kernel that is none, and one that is.
fn mended(host: &Host) -> Outcome {
    let waiting = Waiting::start(&[])?;
    let start = json!({ "action_type": "InstanceStart" });
    let begin = "Start microvm error: ";
    let no_kernel = [begin, "Cannot start microvm without kernel configuration."];
    waiting.refuses(Method::Put, "/actions", &start, &no_kernel)?;
    let (kernel, disk) = (waiting.path("Image"), waiting.path("disk"));
    fs::write(&kernel, "no kernel")?;
    fs::write(&disk, [0; 512])?;
    let drive = json!({ "drive_id": "data", "is_root_device": false, "path_on_host": disk });
    waiting.put("/drives/data", &drive)?;
    let vsock = json!({ "guest_cid": 3, "uds_path": waiting.path("v.sock") });
    waiting.put("/vsock", &vsock)?;
    waiting.put("/boot-source", &json!({ "kernel_image_path": kernel }))?;
    for _ in 0..2 {
        waiting.refuses(Method::Put, "/actions", &start, &[begin, "cannot boot the kernel"])?;
        waiting.is("Not started")?;
    }
    waiting.put("/machine-config", &json!({ "vcpu_count": 1, "mem_size_mib": 99_999_999 }))?;
    waiting.refuses(Method::Put, "/actions", &start, &[begin, "fix: "])?;
    waiting.payload(host, "power", "nothing")?;
    waiting.begin()?;
    let socket = waiting.path("v.sock");
    let ended = waiting.guest.finish_within(SOON)?.with_status(0)?;
    ensure!(!socket.exists(), "the socket is left behind");
    ensure_contains(&ended.stdout, &["POWER nothing pci=off"])
}

fn reset(host: &Host) -> Outcome {
    let waiting = Waiting::start(&["--on-reset", "restart", "--guest-abi", "arm64-v0"])?;
    waiting.payload(host, "power", "reset")?;
    waiting.begin()?;
    waiting.guest.wait_for("POWER ", 3, SOON)?;
    waiting.guest.terminate().map(drop)
}
