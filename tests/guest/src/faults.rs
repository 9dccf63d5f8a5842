//! A host that comes to grief under a guest: its file system is full, a disk's file is cut
//! short, a block device fails, a tap interface is down, and who talks over vsock hangs up.
//! The guest's drivers get the errors that they know, other devices go on, and what is
//! mended works again.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::{Kedge, Running, SOON};
use crate::linux::{BOOT, Report};
use crate::loop_device::Loop;
use crate::suite::{Outcome, Suite};
use crate::tap::{Tap, run};
use crate::vsock::{Place, line, program};

/// Bytes of each disk.
const SIZE: u64 = 2 << 20;
/// Bytes of the file system of one of them: less than the guest writes.
const ROOM: &str = "size=512k";
/// Bytes that the guest begins to send to who hangs up: more than anybody keeps in between.
const MUCH: u64 = 64 << 20;

pub(crate) fn tests(suite: &mut Suite) {
    suite.once("faults::the_hosts_are_errors_to_a_guest_on_mmio", &[], |host| faults(host, "mmio"));
    let needs = &[Need::GicV3];
    suite.once("faults::the_hosts_are_errors_to_a_guest_on_pci", needs, |host| faults(host, "pci"));
}

/// A file system in memory with little room; gone when dropped.
struct Small(PathBuf);

impl Small {
    fn at(path: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir(&path)?;
        run("mount", &["-t", "tmpfs", "-o", ROOM, "none", &path.display().to_string()])?;
        Ok(Self(path))
    }

    /// Gives it enough.
    fn grow(&self) -> Outcome {
        let path = self.0.display().to_string();
        run("mount", &["-o", "remount,size=8m", &path]).map(drop)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // What is left is found by the check that follows every test.
        let _ = run("umount", &[&self.0.display().to_string()]);
    }
}

/// An empty disk.
fn disk(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    File::create(&path)?.set_len(SIZE)?;
    Ok(path)
}

fn cut(path: &Path, length: u64) -> Outcome {
    Ok(File::options().write(true).open(path)?.set_len(length)?)
}

fn faults(host: &Host, transport: &str) -> Outcome {
    let folder = TempDir::new()?;
    let folder = folder.path();
    let small = Small::at(folder.join("small"))?;
    let (full, short) = (disk(&small.0, "full")?, disk(folder, "short")?);
    let (behind, well) = (disk(folder, "behind")?, disk(folder, "well")?);
    let failing = Loop::over(&behind)?;
    let tap = Tap::new("kedge-f0")?.with_address("10.93.0.1/24")?;
    let place = Place::new(folder.join("v.sock"));
    let mut guest = Kedge::run(host.linux()?)
        .flags("--cpus 2 --memory 192M --transport")
        .with([transport])
        .with(["--initrd".into(), host.initrd()?])
        .with(["--disk", &program(folder)?])
        .with(["--disk", &format!("path={}", full.display())])
        .with(["--disk", &format!("path={},engine=io_uring", short.display())])
        .with(["--disk", &format!("path={},direct", failing.path())])
        .with(["--disk", &format!("path={}", well.display())])
        .with(["--net", &format!("tap={}", tap.name())])
        .with(["--vsock", &place.flag()])
        .cmdline("console=ttyS0 loglevel=1 kedge.run=faults")
        .start()?;
    guest.wait_for("=== begin", 1, BOOT)?;
    // The small disk has room for nothing that it does not have yet: the guest fills it.
    go_on(&mut guest, "break")?;
    [&short, &behind].iter().try_for_each(|path| cut(path, 0))?;
    run("ip", &["link", "set", "dev", tap.name(), "down"])?;
    go_on(&mut guest, "mend")?;
    [&short, &behind].iter().try_for_each(|path| cut(path, SIZE))?;
    small.grow()?;
    run("ip", &["link", "set", "dev", tap.name(), "up"])?;
    hang_up(&place)?;
    guest.type_in(b"go on\n")?;
    let ended = guest.finish_within(SOON)?.with_status(0)?;
    let said = Report::new(&ended.stdout);
    check(&said).with_context(|| said.whole().to_owned())?;
    let told = ended.stderr.lines().count();
    ensure!((1..60).contains(&told), "the log has {told} lines:\n{}", ended.stderr);
    Ok(())
}

/// Has the guest go on to where it waits next.
fn go_on(guest: &mut Running, next: &str) -> Outcome {
    guest.type_in(b"go on\n")?;
    guest.wait_for(&format!("=== {next}"), 1, SOON)
}

/// Answers the guest's call, and hangs up while it sends. Then another is answered.
fn hang_up(place: &Place) -> Outcome {
    let waiting = place.listen()?;
    let mut orders = place.have_guest_call(MUCH)?;
    let mut stream = waiting.accept()?;
    stream.read_exact(&mut [0; 10_000])?;
    drop(stream);
    let said = line(&mut orders)?;
    ensure!(
        ["FAILED ConnectionReset", "FAILED BrokenPipe"].contains(&said.as_str()),
        "the guest says {said} of who hung up"
    );
    crate::vsock::echo(place.call_echo()?, 100_000).context("who calls next")
}

fn check(said: &Report) -> Outcome {
    const FAULT: &str = "failed: Input/output error";
    let lines = |section, of: [&str; 7]| -> Outcome {
        let names = ["vdb read", "vdc read", "vdd read", "vde read", "vdb written", "vde written"];
        let found: Vec<_> = said.section(section)?.lines().collect();
        let names = names.iter().chain(&["host"]);
        let expected: Vec<_> = names.zip(of).map(|(name, came)| format!("{name} {came}")).collect();
        ensure!(found == expected, "{section}: {found:?}, not {expected:?}");
        Ok(())
    };
    let (well, none) = ("done", "failed:");
    lines("before", [well, well, well, well, FAULT, well, well])?;
    lines("broken", [well, FAULT, FAULT, well, FAULT, well, none])?;
    lines("mended", [well; 7])?;
    ensure!(!said.whole().contains("WRONG"), "the guest's kernel complains");
    said.section("done").map(drop)
}
