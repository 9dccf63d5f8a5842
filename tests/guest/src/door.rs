//! A process that has no machine yet, and is asked for one by its API.

mod described;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kedge_api::http::{CallError, Method, call};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::{Kedge, Running, SOON};
use crate::suite::{Outcome, Suite, ensure_contains};
use crate::tap::Tap;

/// What a load that fails is told to begin with.
const REFUSED: &str = "Load snapshot error: Failed to restore from snapshot: ";

pub(crate) fn tests(suite: &mut Suite) {
    described::tests(suite);
    suite.every_kernel(
        "door::a_snapshot_is_loaded_when_the_api_asks_for_it",
        &[Need::MmuAtFirst],
        loaded,
    );
    suite.every_kernel("door::what_becomes_of_a_snapshot_is_said_without_its_memory", &[], told);
    suite.once("door::a_load_that_fails_leaves_nothing_and_another_can_follow", &[], second_try);
    suite.once("door::what_a_guest_used_must_be_there_or_be_named_anew", &[], gone);
    suite.once("door::vsock_may_have_another_socket", &[], other_socket);
    suite.once("door::a_load_that_is_killed_is_in_nobodys_way", &[], killed);
    suite.once("door::a_full_disk_leaves_the_old_snapshot_and_the_machine", &[], full_disk);
}

/// A saved guest that counts, and where its files are.
struct Counter {
    folder: TempDir,
}

impl Counter {
    /// Saves one.
    fn save(host: &Host) -> anyhow::Result<Self> {
        Self { folder: TempDir::new()? }.saved(host, &[])
    }

    /// The same, saved with more flags.
    fn saved(self, host: &Host, flags: &[&str]) -> anyhow::Result<Self> {
        let counter = self;
        let guest = Kedge::run(host.payload("counters")).flags("--memory 16M --id born");
        let guest = guest.with(flags).start()?;
        guest.wait_for("COUNT ", 3, SOON)?;
        Kedge::new(["snapshot", "create", "born"])
            .with(["--state".as_ref(), counter.state().as_os_str()])
            .with(["--memory".as_ref(), counter.memory().as_os_str()])
            .finish()?
            .with_status(0)?;
        guest.terminate()?;
        Ok(counter)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.path("state")
    }

    fn memory(&self) -> PathBuf {
        self.path("memory")
    }

    /// A request for it that lets it go on.
    fn request(&self) -> Value {
        let backend = json!({ "backend_type": "File", "backend_path": self.memory() });
        json!({ "snapshot_path": self.state(), "mem_backend": backend, "resume_vm": true })
    }

    /// A process that waits for its machine.
    fn waiting(&self) -> anyhow::Result<(Running, PathBuf)> {
        let socket = self.path("api");
        let waiting = Kedge::new(["--api-sock".as_ref(), socket.as_os_str()]).start()?;
        let deadline = Instant::now() + SOON;
        while call(&socket, Method::Get, "/version", None).is_err() {
            ensure!(Instant::now() < deadline, "nobody answers");
            thread::sleep(Duration::from_millis(10));
        }
        Ok((waiting, socket))
    }
}

fn load(socket: &Path, body: &Value) -> Result<Value, CallError> {
    call(socket, Method::Put, "/snapshot/load", Some(body))
}

fn state(socket: &Path) -> anyhow::Result<String> {
    let answer = call(socket, Method::Get, "/", None)?;
    Ok(answer["state"].as_str().unwrap_or_default().to_owned())
}

fn refused(socket: &Path, body: &Value, why: &[&str]) -> Outcome {
    let fault = load(socket, body).err().context("it was loaded")?.to_string();
    ensure!(fault.starts_with(REFUSED), "{fault}");
    ensure_contains(&fault, why)?;
    let state = state(socket)?;
    ensure!(state == "Not started", "{state} behind {fault}");
    Ok(())
}

fn loaded(host: &Host) -> Outcome {
    let counter = Counter::save(host)?;
    for resume in [true, false] {
        let (guest, socket) = counter.waiting()?;
        ensure!(state(&socket)? == "Not started", "{}", state(&socket)?);
        let mut body = counter.request();
        body["resume_vm"] = json!(resume);
        load(&socket, &body)?;
        if !resume {
            ensure!(state(&socket)? == "Paused", "{}", state(&socket)?);
            let resumed = json!({ "state": "Resumed" });
            call(&socket, Method::Patch, "/vm", Some(&resumed))?;
        }
        ensure!(state(&socket)? == "Running", "{}", state(&socket)?);
        guest.wait_for("COUNT ", 3, SOON)?;
        let second = load(&socket, &body).err().context("two machines in a process")?;
        let late = "The requested operation is not supported after starting the microVM.";
        ensure_contains(&second.to_string(), &[late])?;
        let said = guest.terminate()?.stdout;
        ensure!(!said.contains("COUNTERS"), "the guest began anew:\n{said}");
        ensure!(!socket.exists(), "the socket is left behind");
    }
    Ok(())
}

/// The plan of the load, of which nothing is asked but the state file.
fn told(host: &Host) -> Outcome {
    let counter = Counter::save(host)?;
    std::fs::remove_file(counter.memory())?;
    let check = || Kedge::new(["abi", "check", "--snapshot"]).with([counter.state()]);
    let told = check().finish()?.with_status(0)?;
    ensure_contains(&told.stdout, &["psci_version", "The machine can go on there."])?;
    let json = check().with(["--json"]).finish()?.with_status(0)?;
    let plan: Value = serde_json::from_str(&json.stdout)?;
    let lines = plan["lines"].as_array().map_or(0, Vec::len);
    ensure!(lines > 50, "{lines} lines are not all that a guest knows:\n{}", told.stdout);
    let recorded = counter.path("host.json").display().to_string();
    Kedge::new(["abi", "probe", "--output", &recorded]).finish()?.with_status(0)?;
    let told = check().with(["--host", &recorded]).finish()?.with_status(0)?;
    ensure_contains(&told.stdout, &["The machine can go on there."])
}

/// Everything that can be wrong with a request, and then the right one, of one process.
fn second_try(host: &Host) -> Outcome {
    let counter = Counter::save(host)?;
    let (guest, socket) = counter.waiting()?;
    let with = |field: &str, value: Value| {
        let mut body = counter.request();
        body[field] = value;
        body
    };
    let absent = counter.path("absent");
    let backend = |path: &Path| json!({ "backend_type": "File", "backend_path": path });
    let missing = "No such file or directory (os error 2)";
    let no_state = "Failed to get snapshot state from file: Failed to open snapshot file: ";
    let no_memory = "Failed to load guest memory: Error creating guest memory from file: ";
    refused(&socket, &with("snapshot_path", json!(absent)), &[no_state, missing])?;
    refused(&socket, &with("mem_backend", backend(&absent)), &[no_memory, missing])?;
    let state = counter.state();
    refused(&socket, &with("mem_backend", backend(&state)), &[no_memory, "fix: "])?;
    let tap = json!([{ "iface_id": "eth7", "host_dev_name": "tap7" }]);
    refused(&socket, &with("network_overrides", tap), &["Unknown Network Device.", "`eth7`"])?;
    let disk = json!([{ "drive_id": "root", "path_on_host": "/x" }]);
    refused(&socket, &with("drive_overrides", disk), &["no disk `root`"])?;
    let vsock = json!({ "uds_path": "/x" });
    refused(&socket, &with("vsock_override", vsock), &["Unknown Vsock Device.", "fix: "])?;
    refused(&socket, &with("allow", json!(["psci"])), &["psci"])?;
    // Another length, and other contents.
    let copy = counter.path("copy");
    std::fs::copy(counter.memory(), &copy)?;
    let file = std::fs::OpenOptions::new().write(true).open(&copy)?;
    file.set_len(1 << 20)?;
    refused(&socket, &with("mem_backend", backend(&copy)), &[no_memory])?;
    file.set_len(0)?;
    file.set_len(std::fs::metadata(counter.memory())?.len())?;
    refused(&socket, &with("mem_backend", backend(&copy)), &[no_memory])?;
    let damaged = counter.path("damaged");
    let mut bytes = std::fs::read(counter.state())?;
    bytes[40] ^= 1;
    std::fs::write(&damaged, bytes)?;
    refused(&socket, &with("snapshot_path", json!(damaged)), &["its header is damaged"])?;

    load(&socket, &counter.request())?;
    guest.wait_for("COUNT ", 3, SOON)?;
    guest.terminate().map(drop)
}

/// The socket of the machine that was saved is there still, and another one is named.
fn other_socket(host: &Host) -> Outcome {
    let counter = Counter { folder: TempDir::new()? };
    let (socket, other) = (counter.path("v.sock"), counter.path("other.sock"));
    let flag = format!("cid=3,path={}", socket.display());
    let counter = counter.saved(host, &["--vsock", &flag])?;
    let (guest, door) = counter.waiting()?;
    std::fs::write(&socket, "")?;
    refused(&door, &counter.request(), &["it exists already", "fix: "])?;
    let mut body = counter.request();
    body["vsock_override"] = json!({ "uds_path": other });
    load(&door, &body)?;
    guest.wait_for("COUNT ", 3, SOON)?;
    ensure!(other.exists(), "there is no other socket");
    guest.terminate()?;
    ensure!(socket.exists() && !other.exists(), "the wrong socket is gone, or none");
    Ok(())
}

/// The guest's disk and tap go, and others are named instead.
fn gone(host: &Host) -> Outcome {
    let counter = Counter { folder: TempDir::new()? };
    let disk = counter.path("disk");
    std::fs::write(&disk, vec![0; 64 << 10])?;
    let tap = Tap::new("kedge-d0")?;
    let flag = format!("path={},id=root", disk.display());
    let counter =
        counter.saved(host, &["--disk", &flag, "--net", "tap=kedge-d0,mac=06:00:0a:00:00:02"])?;
    let (guest, socket) = counter.waiting()?;
    drop(tap);
    refused(&socket, &counter.request(), &["`kedge-d0` does not exist"])?;
    let other = Tap::new("kedge-d1")?;
    let mut body = counter.request();
    body["network_overrides"] = json!([{ "iface_id": "eth0", "host_dev_name": other.name() }]);
    std::fs::write(&disk, vec![0; 32 << 10])?;
    refused(&socket, &body, &["the disk had 128 sectors of 512 bytes and now has 64"])?;
    std::fs::remove_file(&disk)?;
    refused(&socket, &body, &[&format!("there is no file {}", disk.display())])?;
    let copy = counter.path("copy");
    std::fs::write(&copy, vec![0; 64 << 10])?;
    body["drive_overrides"] = json!([{ "drive_id": "root", "path_on_host": copy }]);
    body["network_overrides"][0]["guest_mac"] = json!("01:00:5e:00:00:01");
    refused(&socket, &body, &["cannot be `01:00:5e:00:00:01`"])?;
    body["network_overrides"][0]["guest_mac"] = json!("06:00:0a:00:00:01");
    let (said, set) = (counter.path("said"), counter.path("set"));
    body["serial_override"] = json!({ "serial_out_path": said });
    body["working_set_path"] = json!(set);
    load(&socket, &body)?;
    let deadline = Instant::now() + SOON;
    while std::fs::read_to_string(&said)?.matches("COUNT ").count() < 3 {
        ensure!(Instant::now() < deadline, "the guest does not go on");
        thread::sleep(Duration::from_millis(20));
    }
    call(&socket, Method::Patch, "/vm", Some(&json!({ "state": "Paused" })))?;
    ensure!(set.exists(), "there is no working set");
    let elsewhere = guest.terminate()?.stdout;
    ensure!(!elsewhere.contains("COUNT "), "it writes where it did:\n{elsewhere}");
    Ok(())
}

/// Kills processes while they load, at one moment after the other.
fn killed(host: &Host) -> Outcome {
    let counter = Counter::save(host)?;
    for moment in 0..12 {
        let (guest, socket) = counter.waiting()?;
        let body = counter.request();
        let asked = socket.clone();
        let client = thread::spawn(move || load(&asked, &body).is_ok());
        thread::sleep(Duration::from_millis(moment * 4));
        guest.signal(Signal::KILL)?;
        guest.finish_within(SOON)?;
        client.join().map_err(|_| anyhow::anyhow!("the client panicked"))?;
        // A socket is left, as Firecracker's is; its path is for who starts the process.
        std::fs::remove_file(&socket)?;
    }
    let (guest, socket) = counter.waiting()?;
    load(&socket, &counter.request())?;
    guest.wait_for("COUNT ", 3, SOON)?;
    guest.terminate()?;
    // By its name, all is taken over.
    let named = || {
        let load = Kedge::new(["snapshot", "load"]).with([counter.state()]);
        load.with(["--memory".into(), counter.memory()]).flags("--id killed").start()
    };
    let guest = named()?;
    guest.wait_for("COUNT ", 1, SOON)?;
    guest.signal(Signal::KILL)?;
    guest.finish_within(SOON)?;
    let guest = named()?;
    guest.wait_for("COUNT ", 1, SOON)?;
    guest.terminate().map(drop)
}

/// A disk that is too small for a second snapshot.
fn full_disk(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let small = folder.path().join("small");
    std::fs::create_dir(&small)?;
    let mounted = Mounted::new(&small)?;
    let socket = folder.path().join("api");
    let guest = Kedge::run(host.payload("counters")).flags("--memory 16M");
    let guest = guest.with(["--api-sock".as_ref(), socket.as_os_str()]).start()?;
    guest.wait_for("COUNT ", 3, SOON)?;
    call(&socket, Method::Patch, "/vm", Some(&json!({ "state": "Paused" })))?;
    let (state, memory) = (small.join("state"), small.join("memory"));
    let body = json!({ "snapshot_path": state, "mem_file_path": memory, "checksums": true });
    let save = || call(&socket, Method::Put, "/snapshot/create", Some(&body));
    save()?;
    let filler = small.join("filler");
    // It ends with an error: that is what it is for.
    let _ = std::fs::write(&filler, vec![1; 64 << 20]);
    let fault = save().err().context("there was room")?.to_string();
    ensure!(fault.starts_with("Create snapshot error: "), "{fault}");
    ensure_contains(&fault, &["No space left on device"])?;
    std::fs::remove_file(&filler)?;
    let left = std::fs::read_dir(&small)?.count();
    ensure!(left == 2, "{left} files are there");
    let [state, memory] = [state, memory].map(|path| path.display().to_string());
    Kedge::new(["snapshot", "verify", &state, "--memory", &memory]).finish()?.with_status(0)?;
    let before = guest.said().matches("COUNT ").count();
    call(&socket, Method::Patch, "/vm", Some(&json!({ "state": "Resumed" })))?;
    guest.wait_for("COUNT ", before + 3, SOON)?;
    guest.terminate()?;
    drop(mounted);
    Ok(())
}

/// A small file system, gone with it.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(at: &'a Path) -> anyhow::Result<Self> {
        let path = at.display().to_string();
        crate::tap::run("mount", &["-t", "tmpfs", "-o", "size=1m", "small", &path])?;
        Ok(Self(at))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // What is left is found by the check that follows every test.
        let _ = crate::tap::run("umount", &[&self.0.display().to_string()]);
    }
}
