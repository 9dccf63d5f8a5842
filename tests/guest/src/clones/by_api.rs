//! `PUT /clone`: a paused machine, cloned by its own process.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kedge_api::http::{CallError, Method, call};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, getsid};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Clones;
use crate::host::Host;
use crate::kedge::{Kedge, Running, SOON};
use crate::suite::{Outcome, ensure_contains};

/// A guest that counts, and that can be asked for clones.
struct Parent {
    folder: TempDir,
    guest: Running,
}

impl Parent {
    fn start(host: &Host, words: &[&str]) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let socket = folder.path().join("api");
        let guest = Kedge::run(host.payload("counters")).flags("--memory 16M --track-changes");
        let guest = guest.with(["--api-sock".as_ref(), socket.as_os_str()]).with(words).start()?;
        guest.wait_for("COUNT ", 3, SOON)?;
        Ok(Self { folder, guest })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, CallError> {
        call(&self.path("api"), method, path, body)
    }

    fn set(&self, state: &str) -> Outcome {
        let body = json!({ "state": state });
        self.ask(Method::Patch, "/vm", Some(&body))?;
        Ok(())
    }

    /// Its clones, as they are told.
    fn clones(&self, body: &Value) -> anyhow::Result<(Vec<Value>, Clones)> {
        told(&self.ask(Method::Put, "/clone", Some(body))?)
    }

    fn refuses(&self, body: &Value, why: &[&str]) -> Outcome {
        let fault = self.ask(Method::Put, "/clone", Some(body));
        ensure_contains(&fault.err().context("it was cloned")?.to_string(), why)
    }

    /// Whether its process has a child, be it a zombie.
    fn is_child_there(&self) -> anyhow::Result<bool> {
        for entry in fs::read_dir("/proc")? {
            let stat = fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
            // Behind the name, which may be anything: the state, and the parent.
            let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
            if parent == Some(&self.guest.id().to_string()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Nothing of a clone is left in its process, and nothing that the next could inherit.
    fn is_clean(&self) -> Outcome {
        let process = PathBuf::from(format!("/proc/{}", self.guest.id()));
        for entry in fs::read_dir(process.join("fdinfo"))? {
            let number = entry?.file_name();
            // One that was closed meanwhile is not left.
            let Ok(file) = fs::read_link(process.join("fd").join(&number)) else { continue };
            ensure!(!file.to_string_lossy().contains("kedge-clone"), "{file:?} is open");
            let about = fs::read_to_string(process.join("fdinfo").join(&number))?;
            let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
            let flags = u32::from_str_radix(flags.context("flags")?.trim(), 8)?;
            let is_standard = ["0", "1", "2"].iter().any(|standard| number == *standard);
            ensure!(is_standard || flags & CLOSE_ON_EXEC != 0, "{file:?} goes to its children");
        }
        ensure!(!self.is_child_there()?, "a child is left");
        let left = fs::read_dir(std::env::temp_dir())?.filter_map(Result::ok);
        let mut left = left.map(|entry| entry.file_name().to_string_lossy().into_owned());
        ensure!(!left.any(|name| name.starts_with("kedge-clone-")), "files are left");
        Ok(())
    }
}

/// The clones of an answer.
fn told(answer: &Value) -> anyhow::Result<(Vec<Value>, Clones)> {
    let lines = answer["clones"].as_array().context("no list")?;
    let text: Vec<_> = lines.iter().map(Value::to_string).collect();
    super::read(&text.join("\n"))
}

/// `O_CLOEXEC`, as the kernel shows it (proc_pid_fdinfo(5)).
const CLOSE_ON_EXEC: u32 = 0o200_0000;

fn state(socket: &Path) -> anyhow::Result<String> {
    let answer = call(socket, Method::Get, "/", None)?;
    Ok(answer["state"].as_str().unwrap_or_default().to_owned())
}

fn wait_for_count(log: &Path) -> Outcome {
    let deadline = Instant::now() + SOON;
    while !fs::read_to_string(log).is_ok_and(|text| text.contains("COUNT ")) {
        ensure!(Instant::now() < deadline, "nothing is in {}", log.display());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A machine is cloned while others ask it how it is; then its clones outlive it.
pub(super) fn starts(host: &Host) -> Outcome {
    let parent = Parent::start(host, &[])?;
    let log = parent.path("log-{n}");
    let body =
        json!({ "count": 3, "name": "clone-{n}", "first": 4, "log": log, "resume_vm": true });
    parent.refuses(&body, &["Clone error: ", "only while it is paused", "PATCH /vm"])?;
    parent.set("Paused")?;
    let (lines, mut clones) = thread::scope(|scope| {
        let asked = scope.spawn(|| parent.clones(&body));
        let mut meanwhile = 0;
        while !asked.is_finished() {
            ensure!(state(&parent.path("api"))? == "Paused", "it goes on");
            meanwhile += 1;
        }
        ensure!(meanwhile > 3, "it answered {meanwhile} times meanwhile");
        asked.join().map_err(|_| anyhow::anyhow!("a client panicked"))?
    })?;
    ensure!(clones.0.len() == 3 && lines.len() == 3, "{lines:?}");
    for (line, number) in lines.iter().zip(4..) {
        ensure!(line["id"] == format!("clone-{number}"), "{line}");
        let socket = line["api_socket"].as_str().context("a socket")?;
        ensure!(state(socket.as_ref())? == "Running", "{line} does not run");
        wait_for_count(&parent.path(&format!("log-{number}")))?;
    }
    parent.is_clean()?;
    let sessions = clones.0.iter().map(|pid| Ok(getsid(Some(*pid))? == *pid));
    let sessions = sessions.collect::<anyhow::Result<Vec<bool>>>()?;
    ensure!(!sessions.contains(&false), "a clone is in another's session");
    ensure!(state(&parent.path("api"))? == "Paused", "it went on");
    let before = parent.guest.said().matches("COUNT ").count();
    parent.set("Resumed")?;
    parent.guest.wait_for("COUNT ", before + 3, SOON)?;
    let Parent { folder: _folder, guest } = parent;
    guest.terminate()?;
    let socket = lines[0]["api_socket"].as_str().context("a socket")?;
    ensure!(state(socket.as_ref())? == "Running", "it did not outlive its parent");
    clones.end()
}

/// What is saved as a difference behind clones, by the API and by the command, is merged
/// with what was saved before them.
pub(super) fn keeps_base(host: &Host) -> Outcome {
    let parent = Parent::start(host, &[])?;
    parent.set("Paused")?;
    let files = |name: &str| ["state", "memory"].map(|kind| parent.path(&format!("{name}.{kind}")));
    let save = |name: &str, kind: &str| {
        let [state, memory] = files(name);
        let body =
            json!({ "snapshot_path": state, "mem_file_path": memory, "snapshot_type": kind });
        parent.ask(Method::Put, "/snapshot/create", Some(&body))
    };
    save("full", "Full")?;
    let (_, mut first) = parent.clones(&json!({ "count": 1, "name": "first" }))?;
    save("one", "Diff")?;
    let command = Kedge::new(["clone", "--count", "1", "--name", "second", "--api-sock"]);
    let ended = command.with([parent.path("api")]).finish()?;
    let (_, mut second) = super::read(&ended.stdout)?;
    ended.with_status(0)?;
    save("two", "Diff")?;
    let [state, memory] = files("merged");
    let merged = ["--state".into(), state, "--memory".into(), memory];
    let chain = ["full", "one", "two"].map(files).concat();
    Kedge::new(["snapshot", "rebase"]).with(merged).with(chain).finish()?.with_status(0)?;
    first.end()?;
    second.end()?;
    parent.guest.terminate().map(drop)
}

/// What is wrong with a request, and what becomes of clones where some cannot be started.
pub(super) fn refuses(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let disk = |name: &str| folder.path().join(name).display().to_string();
    fs::write(disk("disk"), vec![0; 64 << 10])?;
    let parent = Parent::start(host, &["--disk", &format!("path={},id=root", disk("disk"))])?;
    parent.set("Paused")?;
    let shared = ["all clones would write to the disk `root`", "\"drive_overrides\": ["];
    parent.refuses(&json!({ "count": 1, "name": "clone" }), &shared)?;
    for name in ["disk-1", "disk-2", "disk,3"] {
        fs::copy(disk("disk"), disk(name))?;
    }
    let disks = |file: &str| json!([{ "drive_id": "root", "path_on_host": disk(file) }]);
    let body = |count: u32, first: u32| json!({ "count": count, "first": first, "name": "clone-{n}", "drive_overrides": disks("disk-{n}") });
    let (lines, mut clones) = parent.clones(&body(1, 1))?;
    let socket = lines[0]["api_socket"].as_str().context("a socket")?;
    ensure!(state(socket.as_ref())? == "Paused", "{lines:?}");
    let (lines, mut second) = parent.clones(&body(2, 1))?;
    let error = lines[0]["error"].as_str().unwrap_or_default();
    ensure_contains(error, &["a machine with the name `clone-1` runs already", "fix: "])?;
    ensure!(second.0.len() == 1 && lines.len() == 2, "{lines:?}");
    let none = ["Clone error: no clone could be started, `clone-9` for this reason: "];
    parent.refuses(&body(1, 9), &none)?;
    parent.refuses(&json!({ "count": 2, "name": "clone_{n}" }), &["`clone_2`"])?;
    parent.refuses(&json!({ "count": 2, "name": "clone" }), &["\"name\": \"clone-{n}\""])?;
    let odd = json!({ "count": 1, "name": "-{n}", "log": "/x\u{0}", "drive_overrides": disks("disk-{n}") });
    parent.refuses(&odd, &["Clone error: "])?;
    let comma =
        json!({ "count": 1, "name": "-{n}", "first": 3, "drive_overrides": disks("disk,{n}") });
    let (_, mut third) = parent.clones(&comma)?;
    parent.is_clean()?;
    third.end()?;
    second.end()?;
    clones.end()?;
    parent.guest.terminate().map(drop)
}

/// Two ask for clones at the same time, and one of them does not wait for the answer.
pub(super) fn outlives(host: &Host) -> Outcome {
    let parent = Parent::start(host, &[])?;
    parent.set("Paused")?;
    let body = json!({ "count": 4, "name": "gone-{n}" }).to_string();
    let mut gone = UnixStream::connect(parent.path("api"))?;
    let head = format!("PUT /clone HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    gone.write_all((head + &body).as_bytes())?;
    // Once the second is answered, what came before the first is read.
    for _ in 0..2 {
        ensure!(state(&parent.path("api"))? == "Paused", "it goes on");
    }
    drop(gone);
    let (lines, mut clones) = parent.clones(&json!({ "count": 2, "name": "clone-{n}" }))?;
    ensure!(clones.0.len() == 2, "{lines:?}");
    let mut others = Clones(Vec::new());
    let deadline = Instant::now() + SOON;
    for number in 1..=4 {
        let socket = lines[0]["api_socket"].as_str().context("a socket")?;
        let socket = PathBuf::from(socket.replace("clone-1", &format!("gone-{number}")));
        while !state(&socket).is_ok_and(|state| state == "Paused") {
            ensure!(Instant::now() < deadline, "gone-{number} does not stand still");
            thread::sleep(Duration::from_millis(20));
        }
        others.0.push(listener(&socket)?);
    }
    // Who started them ends a little later.
    while let Err(unclean) = parent.is_clean() {
        ensure!(Instant::now() < deadline, "{unclean}");
        thread::sleep(Duration::from_millis(20));
    }
    others.end()?;
    clones.end()?;
    parent.set("Resumed")?;
    parent.guest.terminate().map(drop)
}

/// A clone that does not start, since its log is a pipe that nobody reads, keeps nobody
/// from the machine; it starts once somebody does.
pub(super) fn waits_alone(host: &Host) -> Outcome {
    let parent = Parent::start(host, &[])?;
    parent.set("Paused")?;
    let pipe = parent.path("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let slow = json!({ "count": 1, "name": "slow", "log": pipe });
    let socket = parent.path("api");
    let asked = thread::spawn(move || call(&socket, Method::Put, "/clone", Some(&slow)));
    let deadline = Instant::now() + SOON;
    while !parent.is_child_there()? {
        ensure!(Instant::now() < deadline, "nobody starts it");
        thread::sleep(Duration::from_millis(5));
    }
    let (_, mut quick) = parent.clones(&json!({ "count": 1, "name": "quick" }))?;
    quick.end()?;
    let before = parent.guest.said().matches("COUNT ").count();
    parent.set("Resumed")?;
    parent.guest.wait_for("COUNT ", before + 3, SOON)?;
    ensure!(!asked.is_finished(), "it did not wait for its log's reader");
    let reader = fs::File::open(&pipe)?;
    let answer = asked.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
    let (_, mut clones) = told(&answer)?;
    clones.end()?;
    drop(reader);
    parent.guest.terminate().map(drop)
}

/// Who listens at `socket`.
fn listener(socket: &Path) -> anyhow::Result<Pid> {
    let stream = UnixStream::connect(socket)?;
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    Ok(peer.pid)
}
