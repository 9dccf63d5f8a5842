//! One Linux guest with everything: four CPUs, three disks, a network card, a
//! source of entropy. It boots once for all tests here, and says what it finds.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use ext4_view::Ext4;
use tempfile::TempDir;

use crate::devicetree;
use crate::host::Host;
use crate::kedge::Kedge;
use crate::suite::{Outcome, Shared, Suite, ensure_contains};
use crate::tap::{Tap, run};

/// The longest that a Linux guest may take to say the next thing.
pub(crate) const BOOT: Duration = Duration::from_secs(180);

const MAC: &str = "06:00:0a:57:00:02";
const SCRATCH: u64 = 1 << 20;

/// What came of the boot.
struct Boot {
    said: Report,
    stderr: String,
    /// The device tree as kedge wrote it, and as the guest has it.
    tree: (Vec<u8>, Vec<u8>),
    pinged: String,
    typed: String,
    /// Of the disk's checks and contents after the power-off.
    fsck: Result<String, String>,
    written: Result<String, String>,
    read_only_unchanged: bool,
    seconds: (u64, u64),
}

/// What a guest said, in sections.
pub(crate) struct Report(String);

impl Report {
    pub(crate) fn new(stdout: &str) -> Self {
        Self(stdout.replace('\r', ""))
    }

    /// The lines of a section.
    ///
    /// # Errors
    /// There is no such section.
    pub(crate) fn section(&self, name: &str) -> anyhow::Result<&str> {
        let begin = format!("=== {name}\n");
        let (_, rest) = self
            .0
            .split_once(&begin)
            .with_context(|| format!("the guest has not said `{name}`:\n{}", self.0))?;
        Ok(rest.split("=== ").next().unwrap_or(rest).trim_end())
    }

    /// All of it.
    pub(crate) fn whole(&self) -> &str {
        &self.0
    }
}

pub(crate) fn tests(suite: &mut Suite) {
    let boot = Shared::new();
    let part = |check: fn(&Boot) -> Outcome| {
        let boot = boot.clone();
        move |host: &Host| check(boot.get(|| start(host))?)
    };
    let mut add = |name, check| suite.every_host(name, &[], part(check));
    add("linux::boots_with_four_cpus_and_powers_off", powers_off);
    add("linux::timer_interrupts_reach_each_of_four_cpus", timers);
    add("linux::disks_are_found_in_the_order_given", disks);
    add("linux::an_ext4_root_is_mounted_and_written", mounts);
    add("linux::what_the_guest_wrote_is_in_the_file", written);
    add("linux::the_disk_is_clean_after_power_off", clean);
    add("linux::a_read_only_disk_refuses_writes", read_only);
    add("linux::the_guest_reaches_the_host_over_the_tap", pings);
    add("linux::the_host_reaches_the_guest_over_the_tap", pinged);
    add("linux::the_card_has_the_address_given", address);
    add("linux::entropy_comes_from_the_host", entropy);
    add("linux::the_guest_has_the_device_tree_that_was_dumped", tree);
    add("linux::the_clock_tells_the_hosts_time", clock);
    add("linux::the_clocks_alarm_interrupts", alarm);
    add("linux::stolen_time_is_accounted_for", stolen_time);
    add("linux::typing_reaches_the_guest", typing);
    add("linux::optional_features_stay_away_unless_asked_for", features);
    add("linux::nothing_is_logged", silence);
}

fn start(host: &Host) -> anyhow::Result<Boot> {
    let folder = TempDir::new()?;
    let file = |name: &str| folder.path().join(name);
    fs::copy(host.disk(), file("root.ext4"))?;
    fs::write(file("fixed.img"), vec![0x5a; 64 << 10])?;
    File::create(file("scratch.img"))?.set_len(SCRATCH)?;
    let tap = Tap::new("kedge-t0")?.with_address("10.87.0.1/24")?;
    let path = |name: &str| file(name).display().to_string();
    let begin = seconds();
    let mut kedge = Kedge::run(host.linux()?)
        .flags("--cpus 4 --memory 512M --rng")
        .with(["--initrd".into(), host.initrd()?])
        .with(["--disk", &format!("path={}", path("root.ext4"))])
        .with(["--disk", &format!("path={},readonly", path("fixed.img"))])
        .with(["--disk", &format!("path={},cache=unsafe", path("scratch.img"))])
        .with(["--net", &format!("tap={},mac={MAC}", tap.name())])
        .with(["--dump-dtb", &path("dtb")])
        .cmdline("console=ttyS0 loglevel=1 kedge.run=all")
        .start()?;
    kedge.wait_for("=== ready", 1, BOOT)?;
    let pinged = run("ping", &["-c", "2", "-W", "5", "10.87.0.2"]);
    kedge.type_in(b"hello guest\n")?;
    let ended = kedge.finish_within(BOOT)?.with_status(0)?;
    let said = Report::new(&ended.stdout);
    let scratch = fs::read(file("scratch.img"))?;
    Ok(Boot {
        tree: (fs::read(file("dtb"))?, scratch),
        pinged: pinged.unwrap_or_else(|error| format!("{error:#}")),
        typed: said.section("typed")?.to_owned(),
        fsck: run("e2fsck", &["-fn", &path("root.ext4")]).map_err(|error| format!("{error:#}")),
        written: checksum(&file("root.ext4"), &file("written")).map_err(|e| format!("{e:#}")),
        read_only_unchanged: fs::read(file("fixed.img"))? == vec![0x5a; 64 << 10],
        seconds: (begin, seconds()),
        stderr: ended.stderr,
        said,
    })
}

fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The checksum of the file that the guest wrote on `disk`.
fn checksum(disk: &Path, copy: &Path) -> anyhow::Result<String> {
    let ext4 = Ext4::load(Box::new(fs::read(disk)?))?;
    fs::write(copy, ext4.read("/var/written")?)?;
    let sum = run("md5sum", &[&copy.display().to_string()])?;
    Ok(sum.split(' ').next().unwrap_or_default().to_owned())
}

fn powers_off(boot: &Boot) -> Outcome {
    ensure_contains(boot.said.whole(), &["GUEST-UP "])?;
    let cpus = boot.said.section("cpus")?;
    ensure!(cpus == "0-3", "CPUs online: {cpus}");
    Ok(())
}

/// How often each CPU's timer has interrupted.
fn counts(lines: &str) -> Vec<u64> {
    let words = lines.split_whitespace().skip(1);
    words.map_while(|word| word.parse().ok()).collect()
}

/// Fails unless the timer count of each of `cpus` has risen.
pub(crate) fn ensure_timers_rise(said: &Report, cpus: usize) -> Outcome {
    let before = counts(said.section("timers-before")?);
    let after = counts(said.section("timers-after")?);
    let risen = before.iter().zip(&after).filter(|(before, after)| before < after).count();
    ensure!(risen == cpus, "timer counts before {before:?}, after {after:?}");
    Ok(())
}

fn timers(boot: &Boot) -> Outcome {
    ensure_timers_rise(&boot.said, 4)
}

fn disks(boot: &Boot) -> Outcome {
    let expected = format!("vda {} 0\nvdb 128 1\nvdc {} 0", (16 << 20) / 512, SCRATCH / 512);
    let found = boot.said.section("disks")?;
    ensure!(found == expected, "found:\n{found}\nexpected:\n{expected}");
    Ok(())
}

fn mounts(boot: &Boot) -> Outcome {
    ensure_contains(boot.said.section("root")?, &["mounted"])?;
    ensure_contains(boot.said.section("chroot")?, &["I am kedge-guest"])?;
    ensure_contains(boot.said.section("unmounted")?, &["unmounted"])
}

fn written(boot: &Boot) -> Outcome {
    let guest = boot.said.section("written")?.split(' ').next().unwrap_or_default();
    let host = boot.written.as_deref().map_err(|error| anyhow::anyhow!("{error}"))?;
    ensure!(guest == host, "the guest wrote {guest}, the file has {host}");
    Ok(())
}

fn clean(boot: &Boot) -> Outcome {
    boot.fsck.as_ref().map(drop).map_err(|error| anyhow::anyhow!("{error}"))
}

fn read_only(boot: &Boot) -> Outcome {
    let said = boot.said.section("read-only")?;
    ensure!(!said.contains("written") && !said.is_empty(), "the guest said: {said}");
    ensure!(boot.read_only_unchanged, "the file has changed");
    Ok(())
}

fn pings(boot: &Boot) -> Outcome {
    ensure_contains(boot.said.section("ping")?, &["2 packets received"])
}

fn pinged(boot: &Boot) -> Outcome {
    ensure_contains(&boot.pinged, &["2 packets received"])
}

fn address(boot: &Boot) -> Outcome {
    ensure_contains(boot.said.section("card")?, &[MAC])
}

fn entropy(boot: &Boot) -> Outcome {
    ensure_contains(boot.said.section("entropy-source")?, &["virtio_rng.0"])?;
    let reads: Vec<_> = boot.said.section("entropy")?.lines().collect();
    let full = reads.len() == 2 && reads.iter().all(|read| read.len() == 64);
    ensure!(full && reads[0] != reads[1] && !reads[0].starts_with("00000000"), "{reads:?}");
    Ok(())
}

fn tree(boot: &Boot) -> Outcome {
    ensure_contains(boot.said.section("tree")?, &["copied"])?;
    let (dumped, found) = &boot.tree;
    let expected = devicetree::as_linux_leaves_it(dumped)?;
    let found = found.get(..expected.len()).context("the guest's tree is too short")?;
    let differs = expected.iter().zip(found).position(|(a, b)| a != b);
    ensure!(differs.is_none(), "the trees differ first at byte {}", differs.unwrap_or_default());
    Ok(())
}

fn clock(boot: &Boot) -> Outcome {
    ensure_contains(boot.said.section("clock")?, &["rtc-pl031"])?;
    let guest: u64 = boot.said.section("seconds")?.parse()?;
    let (begin, end) = boot.seconds;
    ensure!((begin..=end).contains(&guest), "{guest} is not from {begin} to {end}");
    Ok(())
}

fn alarm(boot: &Boot) -> Outcome {
    let sum = |name| anyhow::Ok(counts(boot.said.section(name)?).iter().sum::<u64>());
    let (before, after) = (sum("alarm-before")?, sum("alarm-after")?);
    ensure!(before < after, "{before} interrupts before the alarm, {after} after");
    Ok(())
}

fn stolen_time(boot: &Boot) -> Outcome {
    let found = boot.said.section("stolen-time")?;
    ensure!(found == "using stolen time PV", "the guest's kernel says `{found}`");
    let ticks: u64 = boot.said.section("stolen")?.parse()?;
    // Four busy vCPUs on fewer processors wait for each other.
    let few = thread::available_parallelism()?.get() < 4;
    ensure!(ticks > 0 || !few, "no time was stolen");
    Ok(())
}

fn typing(boot: &Boot) -> Outcome {
    ensure!(boot.typed == "hello guest", "the guest read `{}`", boot.typed);
    Ok(())
}

fn features(boot: &Boot) -> Outcome {
    let features = boot.said.section("features")?;
    let has = |name| features.split_whitespace().any(|feature| feature == name);
    ensure!(!has("sve") && !has("paca") && !has("pacg"), "{features}");
    Ok(())
}

fn silence(boot: &Boot) -> Outcome {
    ensure!(boot.stderr.is_empty(), "stderr: {}", boot.stderr);
    Ok(())
}
