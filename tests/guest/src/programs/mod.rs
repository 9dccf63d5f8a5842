//! Programs of Debian in guests whose devices are on MMIO and on PCI: fio writes to disks of
//! every mode and reads back, fstrim gives back what is free, iperf3 sends both ways, and
//! rngtest judges the entropy. Beside them vsock carries much and many.

mod disks;
mod network;
mod on_host;
mod user_disk;
mod user_net;
mod vsock;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::{Kedge, Running};
use crate::linux::{BOOT, Report};
use crate::suite::{Outcome, Shared, Suite, after, times};
use disks::Disks;
use network::Cards;
use on_host::Programs;

/// The longest that a guest may work before it says the next thing. Where all is asked for,
/// eight CPUs on a busy machine take long to do what they do in a minute on an idle one; every
/// day it is less than the silence for which the runner takes a host for dead.
fn work() -> Duration {
    Duration::from_secs(60 * u64::from(times(45, 9)))
}

/// What came of a boot.
struct Boot {
    /// A disk has no more queues.
    cpus: u32,
    said: Report,
    stderr: String,
    disks: disks::Found,
    network: network::Found,
}

/// The boots on each transport.
type Boots = Shared<Vec<Boot>>;

pub(crate) fn tests(suite: &mut Suite) {
    on(suite, "mmio", &[Need::Programs]);
    on(suite, "pci", &[Need::Programs, Need::GicV3]);
    user_disk::tests(suite);
    user_net::tests(suite);
}

/// Tests of guests with their devices on `transport`.
fn on(suite: &mut Suite, transport: &'static str, needs: &'static [Need]) {
    let boots = Boots::new();
    let mut add = |name: &str, check: fn(&Boot) -> Outcome| {
        let boots = boots.clone();
        suite.every_guest(&format!("programs::{transport}_{name}"), needs, move |host: &Host| {
            let boots = boots.get(|| {
                let boot = |kernel: PathBuf| {
                    let boot = start(host, &kernel, transport);
                    boot.with_context(|| format!("a guest of {}", kernel.display()))
                };
                host.kernels()?.into_iter().map(boot).collect()
            })?;
            boots.iter().try_for_each(check)
        });
    };
    add("fio_reads_what_it_wrote_in_every_mode", disks::fio);
    add("fstrim_frees_space_in_files_that_are_clean", disks::trimmed);
    add("iperf3_sends_both_ways_with_offloads_and_without", network::iperf3);
    add("rngtest_finds_the_entropy_random", entropy);
    add("nothing_is_complained_of", silence);
    vsock::tests(suite, transport, needs);
}

fn start(host: &Host, kernel: &Path, transport: &str) -> anyhow::Result<Boot> {
    let folder = TempDir::new()?;
    let programs = Programs::mount(host)?;
    let disks = Disks::new(folder.path(), transport)?;
    let cards = Cards::new()?;
    let cpus = cpus(transport);
    let mut guest = Kedge::run(kernel.join("Image"))
        .flags(&format!("--cpus {cpus} --memory 512M --rng --transport"))
        .with([transport])
        .with(["--initrd".into(), kernel.join("initrd.gz")])
        .with(["--disk", &format!("path={},readonly", host.programs().display())])
        .with(disks.flags())
        .with(cards.flags())
        .cmdline(&format!(
            "console=ttyS0 loglevel=1 kedge.run=programs kedge.each={} kedge.blocks={} {}",
            disks::each() >> 10,
            blocks(),
            network::words(),
        ))
        .start()?;
    guest.wait_for("=== disks", 1, BOOT)?;
    let begin = Instant::now();
    // Whoever waits for the host hears that it does something.
    let done = |what: &str| eprintln!("programs: {what} after {} s", begin.elapsed().as_secs());
    let found_on_disks = disks.watch(&mut guest)?;
    done("disks");
    let network = cards.watch(&mut guest, &programs)?;
    done("network");
    let ended = guest.finish_within(work())?.with_status(0)?;
    done("entropy");
    Ok(Boot {
        cpus,
        said: Report::new(&ended.stdout),
        stderr: ended.stderr,
        disks: Disks::check(disks, found_on_disks),
        network,
    })
}

/// A CPU for each of eight queues; where there is no time for that on both transports, on
/// PCI.
fn cpus(transport: &str) -> u32 {
    if transport == "pci" { 8 } else { times(8, 2) }
}

/// Says to the guest that the host has done its part.
fn go_on(guest: &mut Running) -> Outcome {
    guest.type_in(b"go on\n")
}

/// An empty file of so many bytes.
fn image(path: PathBuf, bytes: u64) -> anyhow::Result<PathBuf> {
    File::create(&path)?.set_len(bytes)?;
    Ok(path)
}

/// Blocks of 20,000 bits that rngtest looks at.
fn blocks() -> u32 {
    times(50, 20)
}

/// One block in about 1,200 of the best of sources does not pass (FIPS 140-2, 4.9.1).
fn entropy(boot: &Boot) -> Outcome {
    let said = boot.said.section("rngtest")?;
    let count = |name: &str| -> anyhow::Result<u32> {
        Ok(after(said, &format!("rngtest: FIPS 140-2 {name}: "))?.parse()?)
    };
    let (passed, failed) = (count("successes")?, count("failures")?);
    ensure!(passed + failed == blocks(), "it has not looked at {} blocks:\n{said}", blocks());
    ensure!(failed <= 3 + blocks() / 200, "too many fail:\n{said}");
    Ok(())
}

fn silence(boot: &Boot) -> Outcome {
    silent(&boot.said, &boot.stderr)
}

/// Neither the guest's kernel nor kedge has said anything of a fault.
fn silent(said: &Report, stderr: &str) -> Outcome {
    let messages = said.section("messages")?;
    ensure!(messages.is_empty(), "the guest's kernel says\n{messages}");
    ensure!(stderr.is_empty(), "stderr: {stderr}");
    Ok(())
}
