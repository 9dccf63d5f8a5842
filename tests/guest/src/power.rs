//! How machines end, begin again, and sleep.

use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;

use crate::host::{Host, Need, SYSTEM_SUSPEND};
use crate::kedge::{Ended, Kedge, SOON};
use crate::linux::{BOOT, Report};
use crate::suite::{Outcome, Suite, after, ensure_contains};

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("power::off_ends_with_status_0", &[], |host| {
        power(host, "off").finish()?.with_status(0).and_then(|ended| once(&ended, "POWER off"))
    });
    suite.every_host("power::reset_restarts_the_guest", &[], |host| restarts(host, "reset"));
    suite.every_host("power::reset_ends_when_asked_to", &[], |host| exits(host, "reset"));
    suite.every_host("power::reset2_restarts_the_guest", &[Need::Kernel(5, 18)], |host| {
        restarts(host, "reset2")
    });
    suite.every_host("power::reset2_ends_when_asked_to", &[Need::Kernel(5, 18)], |host| {
        exits(host, "reset2")
    });
    suite.every_host("power::off2_ends_with_status_0", &[Need::Kernel(6, 13)], |host| {
        power(host, "off2").finish()?.with_status(0).and_then(|ended| once(&ended, "POWER off2"))
    });
    suite.every_host("power::a_sleeping_guest_wakes_by_the_clock", &[SYSTEM_SUSPEND], |host| {
        let ended = power(host, "suspend").finish()?.with_status(0)?;
        let slept = after(&ended.stdout, "POWER woke after ")?;
        let seconds: u64 = slept.trim_end_matches(" s").parse()?;
        // Longer than asked on a host that is busy.
        ensure!((1..=20).contains(&seconds), "slept {slept}");
        Ok(())
    });
    suite.every_kernel("power::linux_sleeps_and_wakes", &[SYSTEM_SUSPEND], linux_sleeps);
    suite.every_host("power::a_restarted_machine_is_a_new_one", &[], all_cpus_come_up_again);
    suite.every_host("power::a_guest_that_does_nothing_can_be_ended", &[], |host| {
        ends_by_signal(host, "idle")
    });
    suite.every_host("power::a_guest_that_never_waits_can_be_ended", &[], |host| {
        ends_by_signal(host, "spin")
    });
    suite.every_host("power::a_guest_that_crashes_for_ever_can_be_ended", &[], |host| {
        ends_by_signal(host, "crash")
    });
    suite.once("power::a_kernel_panic_is_repeated_and_ends_with_status_3", &[], |host| {
        let ended = power(host, "panic").finish()?.with_status(3)?;
        ensure_contains(&ended.stderr, &["Kernel panic - not syncing: asked to"])
    });
    suite.once("power::a_panic_of_linux_ends_with_status_3", &[], linux_panics);
}

fn power(host: &Host, word: &str) -> Kedge {
    Kedge::run(host.payload("power")).flags("--memory 16M").cmdline(word)
}

fn once(ended: &Ended, text: &str) -> Outcome {
    let times = ended.stdout.matches(text).count();
    ensure!(times == 1, "`{text}` came {times} times:\n{}", ended.stdout);
    Ok(())
}

fn restarts(host: &Host, word: &str) -> Outcome {
    let kedge = power(host, word).start()?;
    kedge.wait_for(&format!("POWER {word}\n"), 4, SOON)?;
    kedge.terminate()?.by_signal(Signal::TERM).map(drop)
}

fn exits(host: &Host, word: &str) -> Outcome {
    let ended = power(host, word).flags("--on-reset exit").finish()?.with_status(0)?;
    once(&ended, &format!("POWER {word}"))
}

fn ends_by_signal(host: &Host, word: &str) -> Outcome {
    let kedge = power(host, word).start()?;
    kedge.wait_for(&format!("POWER {word}"), 1, SOON)?;
    kedge.terminate()?.by_signal(Signal::TERM).map(drop)
}

/// vCPUs that a guest has turned on are off again after a reset.
fn all_cpus_come_up_again(host: &Host) -> Outcome {
    let kedge = Kedge::run(host.payload("psci"))
        .flags("--memory 16M --cpus 3")
        .cmdline("then-reset")
        .start()?;
    kedge.wait_for("PSCI 3 cpus of 3", 3, SOON)?;
    kedge.terminate()?.by_signal(Signal::TERM).map(drop)
}

fn linux(host: &Host, cmdline: &str) -> anyhow::Result<Kedge> {
    let initrd = host.initrd()?;
    let kedge = Kedge::run(host.linux()?).with(["--initrd".into(), initrd]);
    Ok(kedge.flags("--memory 256M").cmdline(&format!("console=ttyS0 {cmdline}")))
}

fn linux_sleeps(host: &Host) -> Outcome {
    let kedge = linux(host, "loglevel=1 kedge.run=suspend")?.flags("--cpus 2");
    let ended = kedge.finish_within(BOOT)?.with_status(0)?;
    let said = Report::new(&ended.stdout);
    ensure_contains(said.section("before")?, &["slept"])?;
    let seconds =
        |name| anyhow::Ok(said.section(name)?.lines().next().unwrap_or_default().parse::<u64>()?);
    let slept = Duration::from_secs(seconds("after")?.saturating_sub(seconds("before")?));
    ensure!((2..=60).contains(&slept.as_secs()), "slept {slept:?}");
    let cpus = said.section("cpus")?;
    ensure!(cpus == "0-1", "CPUs online after the sleep: {cpus}");
    Ok(())
}

fn linux_panics(host: &Host) -> Outcome {
    let ended = linux(host, "loglevel=1 kedge.run=panic")?.finish_within(BOOT)?.with_status(3)?;
    ensure_contains(&ended.stderr, &["Kernel panic - not syncing: sysrq triggered crash"])
}
