//! Network cards of a Linux guest: pairs of queues, an MTU, limits, a tap that is open
//! already, one that goes down; and the entropy that the guest finds.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use tempfile::TempDir;

use crate::fips;
use crate::frames::Watch;
use crate::host::Host;
use crate::kedge::{Kedge, Running};
use crate::linux::{BOOT, Report};
use crate::peer::Peer;
use crate::suite::{Outcome, Shared, Suite, ensure_contains};
use crate::tap::{Tap, run};
use crate::tap_ioctl;

/// Pairs of queues, and CPUs that use them.
const PAIRS: usize = 4;
/// As many of a guest that moves.
const MOVED: usize = 2;
/// Frames that a limit lets through while a test runs, each way.
const MOST: u64 = 20;
const LIMITS: &str = "rx_ops=20/100000s,tx_ops=20/100000s";
/// The longest frame of a network without segmentation.
pub(crate) const LONGEST: u64 = 1514;

/// The guest's address on the first tap.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 2);

/// What came of the boot.
struct Boot {
    said: Report,
    stderr: String,
    /// Queues of the first tap that were attached: before the guest came up, and while
    /// it ran.
    attached: (usize, usize),
    /// Frames that the third tap got from the guest.
    sent: u64,
    /// The length of the guest's longest frame on the first tap, with offloads and without.
    lengths: [u64; 2],
    entropy: Vec<u8>,
    /// What came of datagrams that were sent at once.
    datagrams: Vec<Vec<u8>>,
}

pub(crate) fn tests(suite: &mut Suite) {
    let boot = Shared::new();
    let part = |check: fn(&Boot) -> Outcome| {
        let boot = boot.clone();
        move |host: &Host| check(boot.get(|| start(host))?)
    };
    let mut add = |name, check| suite.any_kernel(name, &[], part(check));
    add("cards::frames_go_both_ways_on_each_pair_of_queues", pairs);
    add("cards::the_tap_has_as_many_queues_as_the_guest_uses", attached);
    add("cards::a_tap_that_is_open_already_carries_frames_up_to_the_mtu", mtu);
    add("cards::limits_are_kept", limits);
    add("cards::a_tap_goes_down_and_comes_up_again", down_and_up);
    add("cards::segments_are_left_to_the_host_unless_the_guest_makes_them", offloads);
    add("cards::datagrams_sent_at_once_come_one_by_one", datagrams_are_cut);
    add("cards::entropy_is_as_random_as_fips_140_2_wants_it", entropy);
    suite.once("cards::pairs_of_queues_move_with_the_guest", &[], moves);
}

/// A count that the host keeps of a tap's frames.
pub(crate) fn statistic(tap: &Tap, name: &str) -> anyhow::Result<u64> {
    let path = Path::new("/sys/class/net").join(tap.name()).join("statistics").join(name);
    Ok(fs::read_to_string(path)?.trim_end().parse()?)
}

/// Says to the guest that the host has done its part.
fn go_on(kedge: &mut Running) -> Outcome {
    kedge.type_in(b"go on\n")
}

fn start(host: &Host) -> anyhow::Result<Boot> {
    let several = Tap::with_queues("kedge-n0")?.with_address("10.90.0.1/24")?;
    let open = Tap::new("kedge-n1")?.with_address("10.91.0.1/24")?;
    let limited = Tap::new("kedge-n2")?.with_address("10.92.0.1/24")?;
    let passed = tap_ioctl::open_tap(open.name())?;
    // The program that starts kedge has it open, and kedge after it.
    fcntl_setfd(&passed, FdFlags::empty())?;
    let (echo, sink) = (Peer::echo(7007)?, Peer::sink(7008)?);
    let folder = TempDir::new()?;
    let program = program(&folder)?;
    let mut kedge = Kedge::run(host.linux()?)
        .flags("--cpus 4 --memory 256M --rng --log-level debug")
        .with(["--disk", &format!("path={},readonly", program.display())])
        .with(["--initrd".into(), host.initrd()?])
        .with(["--net", &format!("tap={},queues={PAIRS}", several.name())])
        .with(["--net", &format!("fd={},mtu=1400", passed.as_raw_fd())])
        .with(["--net", &format!("tap={},{LIMITS}", limited.name())])
        .cmdline("console=ttyS0 loglevel=1 kedge.run=cards")
        .start()?;
    kedge.wait_for("GUEST-UP", 1, BOOT)?;
    drop(passed);
    let watch = Watch::over(GUEST)?;
    kedge.wait_for("=== datagrams", 1, BOOT)?;
    let with_offloads = watch.longest_from();
    let attached = several.queues()?;
    let datagrams = datagrams(&mut kedge)?;
    more_than_enough()?;
    go_on(&mut kedge)?;
    kedge.wait_for("=== down", 1, BOOT)?;
    let sent = statistic(&limited, "rx_packets")?;
    run("ip", &["link", "set", "dev", several.name(), "down"])?;
    go_on(&mut kedge)?;
    kedge.wait_for("=== up", 1, BOOT)?;
    let several = several.up()?;
    go_on(&mut kedge)?;
    kedge.wait_for("=== plain", 1, BOOT)?;
    let watch = Watch::over(GUEST)?;
    go_on(&mut kedge)?;
    kedge.wait_for("=== done", 1, BOOT)?;
    let without_offloads = watch.longest_from();
    let ended = kedge.finish_within(BOOT)?.with_status(0)?;
    drop(echo);
    Ok(Boot {
        said: Report::new(&ended.stdout),
        stderr: ended.stderr,
        attached: (several.queues()?, attached),
        sent,
        lengths: [with_offloads, without_offloads],
        entropy: sink.received(),
        datagrams,
    })
}

/// A disk that is a program for the guest.
fn program(folder: &TempDir) -> anyhow::Result<PathBuf> {
    let mut disk = fs::read("/kedge/bin/datagrams").context("the guest's program")?;
    disk.resize(disk.len().next_multiple_of(512), 0);
    let path = folder.path().join("program");
    fs::write(&path, disk)?;
    Ok(path)
}

/// Has the guest send datagrams at once. What came of them.
fn datagrams(kedge: &mut Running) -> anyhow::Result<Vec<Vec<u8>>> {
    let socket = UdpSocket::bind(("0.0.0.0", 7010))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    go_on(kedge)?;
    kedge.wait_for("=== send", 1, BOOT)?;
    let mut received = Vec::new();
    let mut datagram = [0; 2000];
    while let Ok(length) = socket.recv(&mut datagram) {
        received.push(datagram[..length].to_vec());
    }
    Ok(received)
}

/// Sends the guest more frames than it may receive.
fn more_than_enough() -> Outcome {
    let socket = UdpSocket::bind(("0.0.0.0", 7009))?;
    for _ in 0..3 * MOST {
        socket.send_to(b"more than enough", ("10.92.0.2", 7009))?;
    }
    Ok(())
}

/// Fails unless each CPU has got back what it sent.
fn ensure_exchanged(said: &str, cpus: usize) -> Outcome {
    for cpu in 0..cpus {
        ensure_contains(said, &[&format!("exchanged on 0 by {cpu}")])?;
    }
    Ok(())
}

/// Each CPU has a pair of its own, and the host answers where it was asked.
fn pairs(boot: &Boot) -> Outcome {
    ensure_exchanged(boot.said.section("pairs")?, PAIRS)?;
    for pair in 0..PAIRS {
        let idle = [format!("pair {pair}: 0 frames"), format!("pair {pair}: ")];
        let lines: Vec<_> = boot.stderr.lines().filter(|line| line.contains(&idle[1])).collect();
        let busy = |line: &&&str| !line.contains(&idle[0]) && !line.contains(" 0 sent");
        ensure!(lines.iter().any(|line| busy(&line)), "pair {pair}: {lines:#?}");
    }
    Ok(())
}

fn attached(boot: &Boot) -> Outcome {
    let (after, during) = boot.attached;
    ensure!(during == PAIRS, "{during} of {PAIRS} queues are attached");
    ensure!(after <= 1, "{after} queues are attached when all is over");
    Ok(())
}

fn mtu(boot: &Boot) -> Outcome {
    let mtu = boot.said.section("mtu")?;
    ensure!(mtu == "1400", "the guest's MTU is {mtu}");
    ensure_contains(boot.said.section("mtu-exchange")?, &["exchanged on 1 by 0"])
}

fn limits(boot: &Boot) -> Outcome {
    let received: u64 = boot.said.section("received")?.parse()?;
    ensure!(received == MOST, "the guest has received {received} frames of {MOST}");
    ensure!(boot.sent <= MOST, "the guest has sent {} frames of {MOST}", boot.sent);
    Ok(())
}

fn down_and_up(boot: &Boot) -> Outcome {
    ensure_contains(boot.said.section("down")?, &["unreachable"])?;
    ensure_exchanged(boot.said.section("after")?, PAIRS)
}

fn offloads(boot: &Boot) -> Outcome {
    ensure_contains(boot.said.section("plain")?, &["reloaded"])?;
    ensure_exchanged(boot.said.section("without-offloads")?, PAIRS)?;
    let [with, without] = boot.lengths;
    ensure!(with > LONGEST, "the longest frame has {with} bytes with offloads");
    // It fills its frames either way.
    ensure!(without == LONGEST, "the longest frame has {without} bytes without offloads");
    Ok(())
}

fn entropy(boot: &Boot) -> Outcome {
    ensure_contains(boot.said.section("entropy")?, &["sent"])?;
    ensure!(boot.entropy.len() == 50_000, "{} bytes came", boot.entropy.len());
    boot.entropy.chunks_exact(fips::BLOCK).try_for_each(fips::check)
}

fn datagrams_are_cut(boot: &Boot) -> Outcome {
    let received = &boot.datagrams;
    let sent: Vec<_> = (0..10).map(|number| vec![number; 1000]).collect();
    ensure!(*received == sent, "{} datagrams came of {}", received.len(), boot.said.whole());
    Ok(())
}

/// A guest with a pair for each CPU, on one tap and then on another.
fn moves(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let path = |name: &str| folder.path().join(name);
    let _echo = Peer::echo(7007)?;
    let tap = moved_tap("kedge-n0")?;
    let guest = Kedge::run(host.linux()?)
        .flags(&format!("--cpus {MOVED} --memory 256M --id saved"))
        .with(["--initrd".into(), host.initrd()?])
        .with(["--net", &format!("tap={},mac=06:00:0a:5a:00:02,queues={MOVED}", tap.name())])
        .cmdline("console=ttyS0 loglevel=1 kedge.run=pairs")
        .start()?;
    guest.wait_for("=== ready", 1, BOOT)?;
    ensure_moved(&guest.said(), "before")?;
    ensure!(tap.queues()? == MOVED, "{} of {MOVED} queues are attached", tap.queues()?);
    let create = Kedge::new(["snapshot", "create", "saved"]);
    let create = create.with(["--state".into(), path("state")]);
    create.with(["--memory".into(), path("memory")]).finish_within(BOOT)?.with_status(0)?;
    guest.terminate()?;
    drop(tap);
    let tap = moved_tap("kedge-n3")?;
    let load = Kedge::new(["snapshot", "load"]).with([path("state")]);
    let load = load.with(["--memory".into(), path("memory")]);
    let mut guest = load.with(["--net", &format!("tap={}", tap.name())]).start()?;
    go_on(&mut guest)?;
    guest.wait_for("=== done", 1, BOOT)?;
    ensure_moved(&guest.said(), "after")?;
    guest.finish_within(BOOT)?.with_status(0).map(drop)
}

/// A tap on which the host is the same to the guest, which would look for it for a minute otherwise.
fn moved_tap(name: &'static str) -> anyhow::Result<Tap> {
    let tap = Tap::with_queues(name)?;
    run("ip", &["link", "set", "dev", name, "address", "06:00:0a:5a:00:01"])?;
    tap.with_address("10.90.0.1/24")
}

fn ensure_moved(said: &str, when: &str) -> Outcome {
    (0..MOVED).try_for_each(|cpu| ensure_contains(said, &[&format!("exchanged {when} by {cpu}")]))
}
