//! Clones: many machines from one, each with what is its own.

mod by_api;

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{Ipv6Addr, Shutdown, SocketAddrV6, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::{Kedge, SOON};
use crate::linux::BOOT;
use crate::suite::{Outcome, Suite, after, ensure_contains, times};
use crate::tap::Tap;

/// The machine that is cloned.
const PARENT: &str = "parent";
const MAC: &str = "06:00:0a:57:00:02";
/// What the guest makes of that (RFC 4291, 2.5.6), on each of the taps.
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0400, 0x0aff, 0xfe57, 0x0002);
/// Where its program answers.
const PORT: u16 = 7;

/// The first kernel that finds its generation by the device tree.
const LEARNS: &[Need] = &[Need::Kernel(6, 10), Need::MmuAtFirst];

pub(crate) fn tests(suite: &mut Suite) {
    suite.any_kernel("door::clones::each_answers_as_a_machine_of_its_own", LEARNS, |host| {
        own(host, 3, Duration::from_secs(60))
    });
    // A hundred, or every day a few.
    suite.once("door::clones::many_of_them_answer", LEARNS, |host| {
        own(host, usize::try_from(times(100, 8))?, Duration::from_secs(600))
    });
    suite.any_kernel("door::clones::one_that_cannot_be_started_says_why", &[], one_fails);
    suite.once("door::clones::disks_are_not_shared", &[], shared_disk);
    suite.every_kernel(
        "door::clones::a_paused_machine_is_cloned_by_its_api",
        &[Need::MmuAtFirst],
        by_api::starts,
    );
    suite.once("door::clones::differences_are_to_the_snapshot_before", &[], by_api::keeps_base);
    suite.once("door::clones::a_clone_that_does_not_start_waits_alone", &[], by_api::waits_alone);
    suite.once("door::clones::what_the_api_cannot_clone_is_told", &[], by_api::refuses);
    suite.once("door::clones::a_client_of_the_api_that_goes_is_no_loss", &[], by_api::outlives);
}

/// Machines that were cloned; ended when dropped.
struct Clones(Vec<Pid>);

impl Clones {
    /// Ends them as a user does.
    fn end(&mut self) -> Outcome {
        for pid in &self.0 {
            kill_process(*pid, Signal::TERM)?;
        }
        let deadline = Instant::now() + SOON;
        while self.0.iter().any(|pid| test_kill_process(*pid).is_ok()) {
            ensure!(Instant::now() < deadline, "they do not end");
            thread::sleep(Duration::from_millis(20));
        }
        self.0.clear();
        Ok(())
    }
}

impl Drop for Clones {
    fn drop(&mut self) {
        for pid in &self.0 {
            // It may have ended.
            let _ = kill_process(*pid, Signal::KILL);
        }
    }
}

/// The lines that `kedge clone` prints, and the machines that run.
fn read(stdout: &str) -> anyhow::Result<(Vec<Value>, Clones)> {
    let lines = stdout.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let pids = lines.iter().filter_map(|line| line["pid"].as_i64());
    let pids = pids.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let clones = Clones(pids.collect());
    Ok((lines, clones))
}

/// Clones a guest while it runs, and asks each clone, at the same address over its own tap,
/// for what must be its own.
fn own(host: &Host, count: usize, limit: Duration) -> Outcome {
    let taps = (0..=count).map(|number| Tap::new(format!("kedge-c{number}"))?.up());
    let taps = taps.collect::<anyhow::Result<Vec<_>>>()?;
    let parent = Kedge::run(host.linux()?)
        .flags("--memory 192M --id parent")
        .with(["--initrd".into(), host.initrd()?])
        .with(["--net", &format!("tap=kedge-c0,mac={MAC}")])
        .cmdline("console=ttyS0 loglevel=1 kedge.run=serve")
        .start()?;
    parent.wait_for("=== serving", 1, BOOT)?;
    let clone = Kedge::new(["clone", PARENT, "--count", &count.to_string()]);
    let clone = clone.with(["--name", "clone-{n}", "--net", "tap=kedge-c{n}"]);
    let ended = clone.finish_within(limit)?;
    let (lines, mut clones) = read(&ended.stdout)?;
    ended.with_status(0)?;
    ensure!(clones.0.len() == count, "{lines:?}");

    let deadline = Instant::now() + limit;
    let answers = taps.iter().map(|tap| ask(tap, deadline));
    let answers = answers.collect::<anyhow::Result<Vec<_>>>()?;
    for what in ["RANDOM ", "GENERATION "] {
        let each = answers.iter().map(|answer| after(answer, what));
        let each = each.collect::<anyhow::Result<BTreeSet<_>>>()?;
        ensure!(each.len() == count + 1, "{what}is one of {} in {answers:#?}", each.len());
    }
    let (of_parent, of_clones) = answers.split_first().context("there is a parent")?;
    ensure_contains(of_parent, &["FORKS 0"])?;
    for answer in of_clones {
        ensure_contains(answer, &["FORKS 1"])?;
    }
    Kedge::new(["pause", "clone-1"]).finish()?.with_status(0)?;
    clones.end()?;
    parent.terminate().map(drop)
}

/// What the guest behind `tap` answers.
fn ask(tap: &Tap, deadline: Instant) -> anyhow::Result<String> {
    let address = SocketAddrV6::new(ADDRESS, PORT, 0, tap.index()?);
    loop {
        match answer(address) {
            Ok(answer) if answer.contains("FORKS ") => return Ok(answer.replace('\r', "")),
            Ok(answer) if Instant::now() > deadline => {
                bail!("the guest behind {} said: {answer}", tap.name())
            }
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("nobody answers behind {}", tap.name()));
            }
            // A tap takes a moment to have an address, and a guest to be where it was.
            _ => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn answer(address: SocketAddrV6) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Clones a snapshot, where one of the names is taken.
fn one_fails(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (state, memory) = (path("state"), path("memory"));
    let guest = Kedge::run(host.payload("counters")).flags("--memory 16M --id clone-2").start()?;
    guest.wait_for("COUNT ", 3, SOON)?;
    let create = ["snapshot", "create", "clone-2", "--state", &state, "--memory", &memory];
    Kedge::new(create).finish()?.with_status(0)?;
    let clone = ["clone", &state, "--memory", &memory, "--count", "3", "--name", "clone-{n}"];
    let clone = Kedge::new(clone).with(["--log", &path("log-{n}")]);
    let ended = clone.finish()?.with_status(1)?;
    let (lines, mut clones) = read(&ended.stdout)?;
    ensure_contains(&ended.stderr, &["1 of 3 clones could not be started"])?;
    let error = lines.get(1).and_then(|line| line["error"].as_str()).unwrap_or_default();
    ensure_contains(error, &["a machine with the name `clone-2` runs already", "fix: "])?;
    ensure!(clones.0.len() == 2 && lines.len() == 3, "{lines:?}");
    // What the others say goes where it was to go.
    let deadline = Instant::now() + SOON;
    for log in ["log-1", "log-3"].map(path) {
        while !std::fs::read_to_string(&log)?.contains("COUNT ") {
            ensure!(Instant::now() < deadline, "nothing is in {log}");
            thread::sleep(Duration::from_millis(20));
        }
    }
    let socket = lines[0]["api_socket"].as_str().context("a socket")?;
    ensure!(Path::new(socket).exists(), "there is no {socket}");
    clones.end()?;
    ensure!(!Path::new(socket).exists(), "{socket} is left behind");
    guest.terminate().map(drop)
}

/// Machines that would write to one disk are not started.
fn shared_disk(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let disk = folder.path().join("disk");
    std::fs::copy(host.disk(), &disk)?;
    let guest = Kedge::run(host.payload("counters")).flags("--memory 16M --id parent");
    let guest = guest.with(["--disk", &format!("path={},id=root", disk.display())]).start()?;
    guest.wait_for("COUNT ", 3, SOON)?;
    let clone = || Kedge::new(["clone", PARENT, "--count", "2", "--name", "clone-{n}"]);
    let refused = clone().finish()?.with_status(1)?;
    ensure_contains(&refused.stderr, &["all clones would write to the disk `root`", "{n}"])?;
    ensure!(refused.stdout.is_empty(), "{}", refused.stdout);
    for number in 1..=2 {
        std::fs::copy(&disk, folder.path().join(format!("disk-{number}")))?;
    }
    let own = format!("id=root,path={}/disk-{{n}}", folder.path().display());
    let ended = clone().with(["--disk", &own]).finish()?;
    let (_, mut clones) = read(&ended.stdout)?;
    ended.with_status(0)?;
    clones.end()?;
    // It goes on all the while.
    let before = guest.said().matches("COUNT ").count();
    guest.wait_for("COUNT ", before + 3, SOON)?;
    guest.terminate().map(drop)
}
