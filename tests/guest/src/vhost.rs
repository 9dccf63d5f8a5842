//! Network cards of a Linux guest whose frames the host's kernel carries (vhost-net): at
//! work, saved, saved in differences, and going on, with the kernel and without.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::{Kedge, Running, SOON};
use crate::linux::BOOT;
use crate::peer::Peer;
use crate::suite::{Outcome, Suite, ensure_contains};
use crate::tap::{Tap, run};

/// CPUs, and pairs of queues of the second card.
const CPUS: usize = 2;
/// The machine's name.
const ID: &str = "vhost";
/// Where the guest takes what it does not read at once. It fits into what Linux takes
/// before anybody reads.
const KEEPER: (&str, u16) = ("10.90.0.2", 7012);
const KEPT: usize = 40_000;
/// What the host is to the guest, whatever the taps are.
const MACS: [&str; 2] = ["06:00:0a:5a:00:01", "06:00:0a:5b:00:01"];

pub(crate) fn tests(suite: &mut Suite) {
    suite.any_kernel(
        "vhost::cards_work_and_differences_hold_what_the_kernel_wrote",
        &[Need::VhostNet, Need::MmuAtFirst],
        |host| moves(host, "", ""),
    );
    suite.any_kernel(
        "vhost::a_guest_goes_on_without_it_on_pci",
        &[Need::VhostNet, Need::GicV3, Need::MmuAtFirst],
        |host| moves(host, "--transport pci", ",vhost=off"),
    );
    suite.once("vhost::what_kedge_would_have_to_see_is_refused", &[Need::VhostNet], refused);
}

/// The taps of both cards.
struct Taps([Tap; 2]);

impl Taps {
    /// Makes them, with these names.
    fn new([one, several]: [&'static str; 2]) -> anyhow::Result<Self> {
        let taps = [Tap::new(one)?, Tap::with_queues(several)?];
        for (tap, mac) in taps.iter().zip(MACS) {
            run("ip", &["link", "set", "dev", tap.name(), "address", mac])?;
        }
        let [one, several] = taps;
        Ok(Self([one.with_address("10.90.0.1/24")?, several.with_address("10.91.0.1/24")?]))
    }

    /// The flags for both, with more for each.
    fn flags(&self, more: [&str; 2]) -> Vec<String> {
        let flag = |(tap, more): (&Tap, &str)| format!("--net=tap={}{more}", tap.name());
        self.0.iter().zip(more).map(flag).collect()
    }
}

/// Files of snapshots.
struct Files(TempDir);

impl Files {
    fn of(&self, name: &str) -> [PathBuf; 2] {
        ["state", "mem"].map(|end| self.0.path().join(name).with_extension(end))
    }

    /// Saves the machine; how many blocks its memory takes.
    fn create(&self, name: &str, flags: &str) -> anyhow::Result<u64> {
        let [state, memory] = self.of(name);
        let create = Kedge::new(["snapshot", "create", ID]).flags(flags);
        let create = create.with(["--state".into(), state, "--memory".into(), memory.clone()]);
        create.finish_within(BOOT)?.with_status(0)?;
        Ok(std::os::unix::fs::MetadataExt::blocks(&fs::metadata(memory)?))
    }
}

/// A guest works with two cards. It is saved, gets data that it does not read, and what has
/// changed is saved. All of that together goes on with other taps and `other` words for the
/// second card, and finds the data.
fn moves(host: &Host, flags: &str, other: &str) -> Outcome {
    let files = Files(TempDir::new()?);
    let _echo = Peer::echo(7007)?;
    let taps = Taps::new(["kedge-v0", "kedge-v1"])?;
    let several = format!(",queues={CPUS},vhost=on");
    let mut guest = Kedge::run(host.linux()?)
        .flags(&format!("--cpus {CPUS} --memory 192M --id {ID} --track-changes {flags}"))
        .with(["--initrd".into(), host.initrd()?])
        .with(taps.flags([",vhost=on", &several]))
        .cmdline("console=ttyS0 loglevel=1 kedge.run=vhost")
        .start()?;
    guest.wait_for("=== ready", 1, BOOT)?;
    ensure_exchanged(&guest, "before")?;
    ensure_contains(&guest.said(), &["pinged before"])?;
    ensure_served(&guest, 1 + CPUS)?;
    let all = files.create("full", "")?;
    let sum = send(&files.0)?;
    let difference = files.create("first", "--diff")?;
    ensure!(difference < all, "{all} blocks, then {difference}");
    // Nobody but this machine's memory has the data.
    guest.terminate()?;
    drop(taps);

    let rebase = Kedge::new(["snapshot", "rebase"]);
    let [state, memory] = files.of("merged");
    let merged = ["--state".into(), state.clone(), "--memory".into(), memory.clone()];
    let chain = ["full", "first"].map(|name| files.of(name)).concat();
    rebase.with(&merged).with(&chain).finish_within(BOOT)?.with_status(0)?;
    let taps = Taps::new(["kedge-v2", "kedge-v3"])?;
    let load = Kedge::new(["snapshot", "load"]).with([state, "--memory".into(), memory]);
    guest = load.with(taps.flags([",id=eth0", &format!(",id=eth1{other}")])).start()?;
    guest.type_in(b"go on\n")?;
    guest.wait_for("=== done", 1, BOOT)?;
    ensure_served(&guest, if other.is_empty() { 1 + CPUS } else { 1 })?;
    ensure_contains(&guest.said(), &[&format!("GOT {sum}")])?;
    ensure_exchanged(&guest, "after")?;
    let ended = guest.finish_within(BOOT)?.with_status(0)?;
    ensure!(ended.stderr.is_empty(), "stderr: {}", ended.stderr);
    ensure!(!ended.stdout.contains("WARNING:"), "{}", ended.stdout);
    Ok(())
}

/// Fails unless each CPU has got back what it sent, over its cards.
fn ensure_exchanged(guest: &Running, when: &str) -> Outcome {
    let said = guest.said();
    ensure_contains(&said, &[&format!("exchanged {when} on 0 by 0")])?;
    (0..CPUS)
        .try_for_each(|cpu| ensure_contains(&said, &[&format!("exchanged {when} on 1 by {cpu}")]))
}

/// Fails unless so many pairs of queues are the kernel's.
fn ensure_served(guest: &Running, pairs: usize) -> Outcome {
    let open = fs::read_dir(format!("/proc/{}/fd", guest.id()))?;
    let open = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let served = open.filter(|path| path == Path::new("/dev/vhost-net")).count();
    ensure!(served == pairs, "{served} pairs of {pairs} are the kernel's");
    Ok(())
}

/// Sends the guest data that it does not read yet, and waits until it has all of it. Its
/// checksum.
fn send(folder: &TempDir) -> anyhow::Result<String> {
    let path = folder.path().join("kept");
    let mut bytes = vec![0; KEPT];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    fs::write(&path, &bytes)?;
    let mut stream = TcpStream::connect(KEEPER)?;
    stream.write_all(&bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let since = Instant::now();
    while !has_all()? {
        ensure!(since.elapsed() < SOON, "the guest does not take {KEPT} bytes");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sum = run("md5sum", &[&path.display().to_string()])?;
    sum.split(' ').next().map(str::to_owned).context("md5sum says nothing")
}

/// Whether the guest has acknowledged all that was sent, the end of it among that: the
/// connection to it is in the state `FIN_WAIT2` (proc(5), include/net/tcp_states.h).
fn has_all() -> anyhow::Result<bool> {
    const FIN_WAIT2: &str = "05";
    let port = format!(":{:04X}", KEEPER.1);
    let table = fs::read_to_string("/proc/net/tcp")?;
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut states = lines.filter(|words| words.get(2).is_some_and(|peer| peer.ends_with(&port)));
    Ok(states.any(|words| words.get(3) == Some(&FIN_WAIT2)))
}

/// Limits and the metadata service.
fn refused(host: &Host) -> Outcome {
    let tap = Tap::new("kedge-v0")?;
    let run = |net: &str| {
        let net = format!("tap={},vhost=on{net}", tap.name());
        Kedge::run(host.payload("null")).flags("--memory 16M").with(["--net", &net])
    };
    let limited = run(",rx_ops=20").finish()?;
    ensure!(limited.code() != Some(0), "{}", limited.stdout);
    ensure_contains(&limited.stderr, &["rx_ops=20", "no limit beside `vhost`"])?;
    // The tap is free again, and does what it is for.
    run("").finish()?.with_status(0).map(drop)
}
