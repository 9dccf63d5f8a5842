//! Machines that are asked to stand still and to go on: by kedge's commands, and by the API.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kedge_api::http::{Method, call};
use serde_json::json;
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::{Kedge, Running, SOON};
use crate::suite::{Outcome, Suite, after};

/// How long guests stand still here.
const PAUSE: Duration = Duration::from_secs(3);
/// The most that a guest's time may pass over a pause, in seconds: the host is busy.
const NOTHING: f64 = 1.5;

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("remote::a_guests_time_stands_still", &[], |host| {
        let (virtual_gap, _) = gaps_over_a_pause(host)?;
        ensure!(virtual_gap < NOTHING, "the virtual counter went on for {virtual_gap:.2} s");
        Ok(())
    });
    let sixth = &[Need::Kernel(6, 4)];
    suite.every_host("remote::the_physical_counter_stands_still_too", sixth, |host| {
        let (_, physical_gap) = gaps_over_a_pause(host)?;
        ensure!(physical_gap < NOTHING, "the physical counter went on for {physical_gap:.2} s");
        Ok(())
    });
    suite.once("remote::the_api_says_how_a_machine_is", &[], states);
    suite.once("remote::a_name_is_one_machines", &[], one_name);
    suite.once("remote::a_machine_is_seen_reached_and_stopped_from_elsewhere", &[], elsewhere);
    suite.every_host("remote::a_saved_machine_goes_on_in_another_process", &[], saved_and_loaded);
    suite.once("remote::what_is_no_snapshot_is_refused", &[], refused_snapshots);
    suite.once("remote::a_machine_that_stands_still_can_be_ended", &[], |host| {
        let folder = TempDir::new()?;
        let socket = folder.path().join("api");
        let guest = start(host, &socket)?;
        patch(&socket, "Paused")?;
        guest.terminate().map(drop)?;
        ensure!(!socket.exists(), "the socket is left behind");
        Ok(())
    });
}

/// Saves a machine by its name, and lets it go on in another process, where it was.
fn saved_and_loaded(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (state, memory) = (path("state"), path("memory"));
    let guest = Kedge::run(host.payload("counters")).flags("--memory 16M --id saved").start()?;
    guest.wait_for("COUNT ", 3, SOON)?;
    let create = ["snapshot", "create", "saved", "--state", &state, "--memory", &memory];
    Kedge::new(create).finish()?.with_status(0)?;
    let before = guest.said().matches("COUNT ").count();
    guest.wait_for("COUNT ", before + 3, SOON)?;
    let first = guest.terminate()?.stdout;
    Kedge::new(["snapshot", "verify", &state, "--memory", &memory]).finish()?.with_status(0)?;
    let about = Kedge::new(["snapshot", "inspect", &state]).finish()?.with_status(0)?;
    ensure!(about.stdout.contains("\"architecture\": \"aarch64\""), "{}", about.stdout);

    thread::sleep(PAUSE);
    let load = ["snapshot", "load", &state, "--memory", &memory, "--id", "loaded"];
    let loaded = Kedge::new(load).start()?;
    loaded.wait_for("COUNT ", 3, SOON)?;
    Kedge::new(["pause", "loaded"]).finish()?.with_status(0)?;
    let second = loaded.terminate()?.stdout;
    // What the first said behind the save, the second says again: from where it was saved,
    // and as if no time had passed.
    let frequency = after(&first, "COUNTERS ")?;
    let saved: Vec<_> = first.lines().take(before + 1).collect();
    let whole = format!("{}\n{second}", saved.join("\n"));
    let step = greatest_step(&whole, 0)?;
    ensure!(step < NOTHING, "{step:.2} s of {frequency} passed:\n{whole}");
    ensure!(!second.contains("COUNTERS"), "the guest began anew:\n{second}");
    Ok(())
}

/// What is no snapshot, or not this machine's, is refused and says why.
fn refused_snapshots(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let socket = folder.path().join("api");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (state, memory) = (path("state"), path("memory"));
    let guest = start(host, &socket)?;
    let body = json!({ "snapshot_path": state, "mem_file_path": memory });
    let save = || call(&socket, Method::Put, "/snapshot/create", Some(&body));
    let running = save().err().context("a machine that runs was saved")?;
    ensure!(running.to_string().contains("can be saved only while it is paused"), "{running}");
    patch(&socket, "Paused")?;
    save()?;
    guest.terminate()?;
    let load = |state: &str, memory: &str| {
        Kedge::new(["snapshot", "load", state, "--memory", memory]).finish()?.with_status(1)
    };
    let absent = load(&path("absent"), &memory)?;
    ensure!(absent.stderr.contains("absent cannot be opened"), "{}", absent.stderr);
    let swapped = load(&memory, &state)?;
    ensure!(swapped.stderr.contains("cannot be loaded"), "{}", swapped.stderr);
    std::fs::OpenOptions::new().write(true).open(&memory)?.set_len(1 << 20)?;
    let short = load(&state, &memory)?;
    ensure!(short.stderr.contains("cannot be loaded"), "{}", short.stderr);
    Ok(())
}

/// A guest that says its time, with an API at `socket`.
fn start(host: &Host, socket: &Path) -> anyhow::Result<Running> {
    let guest = Kedge::run(host.payload("counters")).flags("--memory 16M");
    let guest = guest.with(["--api-sock".as_ref(), socket.as_os_str()]).start()?;
    guest.wait_for("COUNT ", 3, SOON)?;
    Ok(guest)
}

/// The greatest steps of a guest's counters in seconds, virtual and physical, when it was
/// paused and resumed by its name.
fn gaps_over_a_pause(host: &Host) -> anyhow::Result<(f64, f64)> {
    let guest = Kedge::run(host.payload("counters")).flags("--memory 16M --id ticks").start()?;
    guest.wait_for("COUNT ", 3, SOON)?;
    Kedge::new(["pause", "ticks"]).finish()?.with_status(0)?;
    // Asked twice it stands still as well.
    Kedge::new(["pause", "ticks"]).finish()?.with_status(0)?;
    thread::sleep(Duration::from_millis(200));
    let before = guest.said();
    thread::sleep(PAUSE);
    ensure!(guest.said() == before, "the guest ran on");
    Kedge::new(["resume", "ticks"]).finish()?.with_status(0)?;
    let ticks = before.matches("COUNT ").count();
    guest.wait_for("COUNT ", ticks + 3, SOON)?;
    let said = guest.terminate().map(|ended| ended.stdout)?;
    Ok((greatest_step(&said, 0)?, greatest_step(&said, 1)?))
}

/// The greatest step of the counter in this column, in seconds.
fn greatest_step(said: &str, column: usize) -> anyhow::Result<f64> {
    let frequency: f64 = after(said, "COUNTERS ")?.parse()?;
    // The last line may have been cut off.
    let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().filter_map(|line| line.trim_end().strip_prefix("COUNT "));
    let words = lines.map(|line| line.split(' ').nth(column).context("two counters"));
    let counts = words.map(|word| Ok(word?.parse::<f64>()?)).collect::<anyhow::Result<Vec<_>>>()?;
    let steps = counts.windows(2).map(|pair| (pair[1] - pair[0]) / frequency);
    Ok(steps.fold(0.0, f64::max))
}

fn patch(socket: &Path, state: &str) -> Outcome {
    call(socket, Method::Patch, "/vm", Some(&json!({ "state": state })))?;
    Ok(())
}

fn states(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let socket = folder.path().join("api");
    let guest = start(host, &socket)?;
    let state = || anyhow::Ok(call(&socket, Method::Get, "/", None)?["state"].clone());
    ensure!(state()? == "Running", "{}", state()?);
    patch(&socket, "Paused")?;
    ensure!(state()? == "Paused", "{}", state()?);
    patch(&socket, "Resumed")?;
    patch(&socket, "Resumed")?;
    ensure!(state()? == "Running", "{}", state()?);
    let refused = patch(&socket, "Stopped").err().context("a state that there is none")?;
    ensure!(refused.to_string().contains("unknown variant `Stopped`"), "{refused}");
    guest.terminate().map(drop)
}

/// A guest that says which keys it got, to who sits at its serial port in another process.
fn elsewhere(host: &Host) -> Outcome {
    let echo = || Kedge::run(host.payload("echo")).flags("--memory 16M --id far --serial socket");
    let kedge = |words: [&str; 2]| Kedge::new(words).finish()?.with_status(0);
    let machine = echo().start()?;
    listed("far\tRunning\t1\t16\t")?;
    let about = kedge(["info", "far"])?.stdout;
    ensure!(about.contains("machine-config  huge_pages=None mem_size_mib=16"), "{about}");
    let mut first = Kedge::new(["console", "far"]).start()?;
    first.wait_for("ECHO ready", 1, SOON)?;
    first.type_in(b"k\x03")?;
    first.wait_for("ECHO 03", 1, SOON)?;
    let other = kedge(["console", "far"])?.stdout;
    ensure!(other.contains("somebody else is attached"), "{other}");
    // The machine goes on without whoever sat there, and shows the next one what was said.
    drop(first);
    let mut second = Kedge::new(["console", "far"]).start()?;
    second.wait_for("ECHO 6b", 1, SOON)?;
    second.type_in(b"q")?;
    second.finish_within(SOON)?.with_status(0)?;
    machine.finish_within(SOON)?.with_status(0)?;

    let machine = echo().start()?;
    listed("far\tRunning")?;
    let told = kedge(["stop", "far"])?.stderr;
    ensure!(told.contains("its guest was not asked"), "{told}");
    machine.finish_within(SOON)?.with_status(128 + 15)?;
    let left = Kedge::new(["ps"]).finish()?.with_status(0)?.stdout;
    ensure!(!left.contains("far"), "{left}");
    Ok(())
}

/// Waits until `kedge ps` has this line's beginning.
fn listed(line: &str) -> Outcome {
    for _ in 0..100 {
        if Kedge::new(["ps"]).finish()?.with_status(0)?.stdout.contains(line) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!("`kedge ps` never has `{line}`")
}

fn one_name(host: &Host) -> Outcome {
    let named = || Kedge::run(host.payload("counters")).flags("--memory 16M --id ticks");
    let guest = named().start()?;
    guest.wait_for("COUNT ", 1, SOON)?;
    let second = named().finish()?.with_status(1)?;
    let told = "a machine with the name `ticks` runs already";
    ensure!(second.stderr.contains(told), "{}", second.stderr);
    guest.terminate()?;
    let guest = named().start()?;
    guest.wait_for("COUNT ", 1, SOON)?;
    guest.terminate()?;
    let gone = Kedge::new(["pause", "ticks"]).finish()?.with_status(1)?;
    ensure!(gone.stderr.contains("no machine answers at"), "{}", gone.stderr);
    Ok(())
}
