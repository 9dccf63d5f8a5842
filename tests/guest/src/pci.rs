//! Guests whose virtio devices are on PCI: stock kernels find and use them, also after a
//! move and a reset.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::{Kedge, Running};
use crate::linux::{BOOT, Report};
use crate::suite::{Outcome, Shared, Suite, ensure_contains};
use crate::tap::Tap;

pub(crate) fn tests(suite: &mut Suite) {
    let said = Shared::new();
    let part = |check: fn(&Report) -> Outcome| {
        let said = said.clone();
        move |host: &Host| check(said.get(|| look(host))?)
    };
    let mut add = |name, check| suite.any_kernel(name, &[Need::GicV3], part(check));
    add("pci::linux_finds_its_devices_in_the_order_given", found);
    add("pci::disks_network_and_entropy_work", used);
    add("pci::each_queue_has_a_vector_of_its_own", vectors);
    let gicv3 = &[Need::GicV3];
    let at_first = &[Need::GicV3, Need::MmuAtFirst];
    suite.any_kernel("pci::a_guest_that_was_saved_works_on", at_first, moved);
    suite.any_kernel("pci::a_guest_that_resets_finds_all_again", gicv3, reset);
    suite.once("pci::a_gicv2_is_refused_by_name", &[Need::GicV2], |host| {
        let kedge = Kedge::run(host.payload("null")).flags("--memory 16M --gic v2 --transport pci");
        let ended = kedge.finish()?.with_status(1)?;
        let told = ["needs an Interrupt Translation Service", "fix: ask for a GICv3, or for"];
        ensure_contains(&ended.stderr, &told)
    });
}

const CARD: &str = "06:00:0a:5a:00:02";

/// A machine's files.
struct Files(TempDir);

impl Files {
    fn new(host: &Host) -> anyhow::Result<Self> {
        let files = Self(TempDir::new()?);
        fs::copy(host.disk(), files.path("root.ext4"))?;
        File::create(files.path("scratch.img"))?.set_len(1 << 20)?;
        Ok(files)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A guest with every device that does what `words` say.
    fn guest(&self, host: &Host, tap: &Tap, words: &str) -> anyhow::Result<Kedge> {
        Ok(Kedge::run(host.linux()?)
            .flags("--transport pci --cpus 2 --memory 256M --rng")
            .with(["--initrd".into(), host.initrd()?])
            .with(["--disk", &format!("path={}", self.path("root.ext4").display())])
            .with(["--disk", &format!("path={}", self.path("scratch.img").display())])
            .with(["--net", &format!("tap={},mac={CARD}", tap.name())])
            .with(["--vsock", &format!("cid=3,path={}", self.path("v.sock").display())])
            .cmdline(&format!("console=ttyS0 loglevel=1 {words}")))
    }
}

fn look(host: &Host) -> anyhow::Result<Report> {
    let files = Files::new(host)?;
    let tap = Tap::new("kedge-p0")?.with_address("10.90.0.1/24")?;
    let ended = files.guest(host, &tap, "kedge.run=pci")?.start()?.finish_within(BOOT)?;
    let ended = ended.with_status(0)?;
    ensure!(ended.stderr.is_empty(), "stderr: {}", ended.stderr);
    Ok(Report::new(&ended.stdout))
}

fn found(said: &Report) -> Outcome {
    let functions = "0000:00:01.0 0x1af4 0x1042\n\
                     0000:00:02.0 0x1af4 0x1042\n\
                     0000:00:03.0 0x1af4 0x1041\n\
                     0000:00:04.0 0x1af4 0x1053\n\
                     0000:00:05.0 0x1af4 0x1044";
    let found = said.section("functions")?;
    ensure!(found == functions, "functions:\n{found}");
    let drivers: Vec<_> = said.section("drivers")?.lines().collect();
    let expected = ["virtio0 virtio_blk", "virtio1 virtio_blk", "virtio2 virtio_net"];
    ensure!(drivers.starts_with(&expected), "{drivers:?}");
    let sizes = format!("{}\n2048", (16 << 20) / 512);
    ensure!(said.section("sizes")? == sizes, "sizes: {}", said.section("sizes")?);
    Ok(())
}

fn used(said: &Report) -> Outcome {
    ensure_contains(said.section("root")?, &["mounted"])?;
    ensure_contains(said.section("read-back")?, &["same"])?;
    ensure_contains(said.section("ping")?, &["2 packets received"])?;
    let entropy = said.section("entropy")?;
    ensure!(entropy.len() == 64 && !entropy.starts_with("00000000"), "entropy: {entropy}");
    Ok(())
}

/// Interrupts of the device's vector that a driver calls so, on all CPUs.
fn count(lines: &str, name: &str) -> anyhow::Result<u64> {
    let line = lines.lines().find(|line| line.ends_with(name));
    let line = line.with_context(|| format!("no vector is {name}:\n{lines}"))?;
    ensure!(line.contains(" ITS-"), "not a message to the service: {line}");
    let counts = line.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok());
    Ok(counts.sum())
}

fn vectors(said: &Report) -> Outcome {
    let lines = said.section("vectors")?;
    for name in ["virtio0-req.0", "virtio2-input.0", "virtio4-input"] {
        ensure!(count(lines, name)? > 0, "{name} was never raised:\n{lines}");
    }
    for name in ["virtio0-config", "virtio1-req.0", "virtio2-output.0", "virtio3-"] {
        ensure!(lines.contains(name), "{name} is no vector:\n{lines}");
    }
    Ok(())
}

/// Waits until the guest has worked so many rounds since it was started or loaded.
fn rounds(guest: &Running, count: usize) -> Outcome {
    guest.wait_for("ROUND ", count, BOOT)
}

/// The names of a machine's threads.
fn threads(guest: &Running) -> anyhow::Result<Vec<String>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", guest.id()))?;
    let names = tasks.map(|task| Ok(fs::read_to_string(task?.path().join("comm"))?));
    names.map(|name| name.map(|name: String| name.trim_end().to_owned())).collect()
}

fn moved(host: &Host) -> Outcome {
    let files = Files::new(host)?;
    let tap = Tap::new("kedge-p1")?.with_address("10.88.0.1/24")?;
    let kedge = files.guest(host, &tap, "kedge.run=work")?.flags("--id pci-saved --io-threads 3");
    let guest = kedge.start()?;
    rounds(&guest, 1)?;
    Kedge::new(["pause", "pci-saved"]).finish()?.with_status(0)?;
    Kedge::new(["resume", "pci-saved"]).finish()?.with_status(0)?;
    rounds(&guest, 2)?;
    let [state, memory] = ["state", "memory"].map(|name| files.path(name));
    let create = Kedge::new(["snapshot", "create", "pci-saved"]);
    let create = create.with(["--state".into(), state.clone()]);
    let create = create.with(["--memory".into(), memory.clone()]);
    create.finish_within(BOOT)?.with_status(0)?;
    guest.terminate()?;

    let load = Kedge::new(["snapshot", "load"]).with([state]);
    let mut guest = load.with(["--memory".into(), memory]).start()?;
    rounds(&guest, 2)?;
    let threads = threads(&guest)?;
    let own = ["io 0", "io 1", "io 2"];
    ensure!(own.iter().all(|name| threads.contains(&(*name).to_owned())), "{threads:?}");
    guest.type_in(b"enough\n")?;
    let ended = guest.finish_within(BOOT)?.with_status(0)?;
    ensure_contains(&ended.stdout, &["=== done"])?;
    ensure!(!ended.stdout.contains("WRONG"), "{}", ended.stdout);
    ensure!(!ended.stdout.contains("GUEST-UP"), "the guest began anew:\n{}", ended.stdout);
    Ok(())
}

fn reset(host: &Host) -> Outcome {
    let files = Files::new(host)?;
    let tap = Tap::new("kedge-p2")?.with_address("10.90.0.1/24")?;
    let kedge = files.guest(host, &tap, "kedge.run=pci kedge.then=reboot")?;
    let guest = kedge.flags("--on-reset restart").start()?;
    guest.wait_for("=== done", 2, BOOT)?;
    let ended = guest.terminate()?;
    let second = ended.stdout.split("GUEST-UP").nth(2).context("it has not come up again")?;
    found(&Report::new(second))?;
    used(&Report::new(second))
}
