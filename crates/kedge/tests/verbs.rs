//! Commands about machines that run, on any host, with the model as their hypervisor.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod waiting;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use expect_test::expect;
use kedge_api::http::{Method, call};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the model's guest prints first.
const GREETING: &str = "the model's guest echoes\n";

/// A folder in which machines are found.
struct Place(TempDir);

/// A machine that runs, in a process of its own. It is killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.0.path().join("Image"), waiting::image()).unwrap();
        place
    }

    /// kedge with `words`, split at spaces.
    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kedge"));
        command.args(words.split(' ')).current_dir(self.0.path()).stdin(Stdio::null());
        command.env("KEDGE_MODEL", "6.12").env("XDG_RUNTIME_DIR", self.0.path());
        command
    }

    /// What the command prints, behind its status.
    fn kedge(&self, words: &str) -> String {
        let output = self.command(words).output().unwrap();
        let [out, err] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        let text = format!("{}\n{out}{err}", output.status.code().unwrap());
        text.replace(&self.0.path().display().to_string(), "PLACE")
    }

    /// Runs the machine `name`, whose serial port is offered, until it is there.
    fn machine(&self, name: &str) -> Running {
        let words = format!("run --kernel Image --memory 16M --id {name} --serial socket");
        let mut command = self.command(&words);
        let running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        while call(&self.socket(name), Method::Get, "/", None).is_err() {
            thread::sleep(Duration::from_millis(2));
        }
        running
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.0.path().join("kedge").join(name)
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.folder(name).join("api.sock")
    }
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn end(mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

#[test]
fn machines_that_run_are_listed() {
    let place = Place::new();
    assert_eq!(place.kedge("ps"), "0\n");
    let (web, db) = (place.machine("web"), place.machine("db"));
    call(&place.socket("db"), Method::Patch, "/vm", Some(&json!({ "state": "Paused" }))).unwrap();
    // What was left by one that was killed.
    fs::create_dir(place.folder("dead")).unwrap();
    fs::copy(place.folder("web").join("lock"), place.folder("dead").join("lock")).unwrap();
    let (web, db) = (web.pid(), db.pid());
    let listed = format!(
        "0\ndb\tPaused\t1\t16\t{db}\tPLACE/kedge/db/api.sock\n\
         web\tRunning\t1\t16\t{web}\tPLACE/kedge/web/api.sock\n"
    );
    assert_eq!(place.kedge("ps"), listed);
    let json = place.kedge("ps --json");
    let lines: Vec<Value> =
        json.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[1]["id"], "web");
    assert_eq!(lines[1]["vcpu_count"], 1);
    assert_eq!(lines[1]["pid"], web.as_raw_nonzero().get());
    assert_eq!(lines.len(), 2);
}

#[test]
fn what_a_killed_machine_left_is_not_listed() {
    let place = Place::new();
    let web = place.machine("web");
    web.signal(Signal::KILL);
    web.end();
    assert!(place.socket("web").exists());
    assert_eq!(place.kedge("ps"), "0\n");
}

#[test]
fn a_machine_says_what_it_is() {
    let place = Place::new();
    let web = place.machine("web");
    let told = place.kedge("info web").replace(&web.pid().to_string(), "PID");
    expect![[r#"
        0
        name            web
        state           Running
        kedge           0.1.0
        process         PID
        API             PLACE/kedge/web/api.sock
        boot-source     boot_args= kernel_image_path=Image
        guest-abi       arm64-v1
        machine-config  huge_pages=None mem_size_mib=16 smt=false track_dirty_pages=false vcpu_count=1
    "#]]
    .assert_eq(&told);
    let by_socket = format!("info --json --api-sock {}", place.socket("web").display());
    let json = place.kedge(&by_socket);
    let told: Value = serde_json::from_str(json.lines().nth(1).unwrap()).unwrap();
    assert_eq!(told["instance"]["state"], "Running");
    assert_eq!(told["config"]["boot-source"]["kernel_image_path"], "Image");
    expect![[r#"
        1
        error: the machine cannot be asked how it is
          because: no machine answers at `PLACE/kedge/db/api.sock`
          because: No such file or directory (os error 2)
          fix: name the socket of a machine that runs (--api-sock)
    "#]]
    .assert_eq(&place.kedge("info db"));
}

#[test]
fn what_a_machine_counts_is_printed() {
    let place = Place::new();
    let _web = place.machine("web");
    let told = place.kedge("metrics web");
    let sent = told.lines().filter(|line| line.contains("uart") && line.ends_with(" 25"));
    assert!(told.starts_with("0\n# "), "{told}");
    assert_eq!(sent.count(), 1, "the guest's greeting has 25 bytes: {told}");
}

#[test]
fn what_becomes_of_a_machine_is_printed() {
    let place = Place::new();
    let web = place.machine("web");
    let mut command = place.command("events web");
    let mut events = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["state"], "Running");
    assert_eq!(place.kedge("pause web"), "0\n");
    assert_eq!(next()["event"], "paused");
    assert_eq!(place.kedge("resume web"), "0\n");
    assert_eq!(next()["event"], "resumed");
    assert!(place.kedge("stop web").starts_with("0\n"));
    assert_eq!(next()["event"], "stopped");
    assert!(events.wait().unwrap().success());
    drop(web);
    assert!(place.kedge("events web").contains("no machine answers at"));
}

#[test]
fn a_machine_is_stopped_and_tidies_up() {
    let place = Place::new();
    let web = place.machine("web");
    let told = place.kedge("stop web").replace(&web.pid().to_string(), "PID");
    expect![[r#"
        0
        ended, with its process PID; its guest was not asked
    "#]]
    .assert_eq(&told);
    // 128 and the number of SIGTERM.
    assert_eq!(web.end().code(), Some(143));
    assert!(!place.folder("web").exists());
}

#[test]
fn a_machine_that_does_not_answer_is_killed_when_asked_to() {
    let place = Place::new();
    let web = place.machine("web");
    web.signal(Signal::STOP);
    let told = place.kedge("stop --timeout 0 web").replace(&web.pid().to_string(), "PID");
    expect![[r#"
        1
        error: the machine's process PID has not ended after 0 s
          fix: kill it: add --force
    "#]]
    .assert_eq(&told);
    expect![[r#"
        2
        error: `--timeout` cannot be `x`
          fix: write a whole number of seconds
    "#]]
    .assert_eq(&place.kedge("stop --timeout x web"));
    assert!(place.kedge("stop --force web").starts_with("0\n"));
    assert_eq!(web.end().code(), None);
}

/// The next bytes of what is printed, as many as `text` has.
fn hear(from: &mut impl Read, text: &str) {
    let mut heard = vec![0; text.len()];
    from.read_exact(&mut heard).unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), text);
}

#[test]
fn a_serial_port_is_reached_from_elsewhere() {
    let place = Place::new();
    let web = place.machine("web");
    let mut command = place.command("console web");
    let mut console = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keys, mut screen) = (console.stdin.take().unwrap(), console.stdout.take().unwrap());
    hear(&mut screen, GREETING);
    for key in ["h", "i"] {
        keys.write_all(key.as_bytes()).unwrap();
        hear(&mut screen, key);
    }
    // One at a time.
    assert!(place.kedge("console web").contains("somebody else is attached"));
    console.kill().unwrap();
    console.wait().unwrap();
    // Whoever comes next sees what was there.
    let mut next = place.command("console web").stdout(Stdio::piped()).spawn().unwrap();
    hear(next.stdout.as_mut().unwrap(), &format!("{GREETING}hi"));
    drop(web);
    assert!(next.wait().unwrap().success());
}

/// Both ends of a terminal, the user's first.
fn terminal() -> (File, OwnedFd) {
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&user).unwrap();
    unlockpt(&user).unwrap();
    let name = ptsname(&user, Vec::new()).unwrap();
    let program = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (user.into(), program.into())
}

#[test]
fn ctrl_a_x_leaves_and_the_machine_goes_on() {
    let place = Place::new();
    let _web = place.machine("web");
    let (mut user, program) = terminal();
    let mut command = place.command("console web");
    let mut console = command.stdin(program).stdout(Stdio::piped()).spawn().unwrap();
    // By then the terminal is the guest's.
    hear(console.stdout.as_mut().unwrap(), GREETING);
    user.write_all(b"a").unwrap();
    hear(console.stdout.as_mut().unwrap(), "a");
    user.write_all(b"\x01x").unwrap();
    assert!(console.wait().unwrap().success());
    assert_eq!(call(&place.socket("web"), Method::Get, "/", None).unwrap()["state"], "Running");
}

#[test]
fn every_command_has_a_manual_page() {
    let place = Place::new();
    let whole = place.kedge("man");
    assert!(whole.starts_with("0\n.TH KEDGE 1\n"), "{whole}");
    let names: Vec<_> = whole.split("\n.TP\n.B ").skip(1).collect();
    let commands = names.iter().filter_map(|entry| entry.lines().next());
    let commands: Vec<_> = commands.filter(|name| !name.starts_with("\\-")).collect();
    assert!(commands.contains(&"ps") && commands.contains(&"run"), "{commands:?}");
    for name in commands {
        let page = place.kedge(&format!("man {name}"));
        assert!(page.starts_with(&format!("0\n.TH KEDGE\\-{} 1\n", name.to_uppercase())), "{page}");
    }
    expect![[r#"
        2
        error: there is no command `lod`
          fix: see `kedge --help`
    "#]]
    .assert_eq(&place.kedge("man snapshot lod"));
}

#[test]
fn a_port_that_is_not_offered_is_not_reached() {
    let place = Place::new();
    expect![[r#"
        1
        error: no serial port is offered at `PLACE/kedge/web/console.sock`
          because: No such file or directory (os error 2)
          fix: name a machine that runs with `--serial socket` (`kedge ps`)
    "#]]
    .assert_eq(&place.kedge("console web"));
    expect![[r#"
        2
        error: `--serial socket` is for machines with a name
          fix: add --id NAME
    "#]]
    .assert_eq(&place.kedge("run --kernel Image --serial socket"));
}
