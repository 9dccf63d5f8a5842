//! The firmware a guest talks to: PSCI in every version, CPUs brought up by each.

use anyhow::ensure;
use rustix::process::Signal;

use crate::host::{Host, Need};
use crate::kedge::{Ended, Kedge, SOON};
use crate::suite::{Outcome, Suite, after, ensure_contains};

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("firmware::cpus_come_up_by_psci_0_1", &[], psci_0_1);
    suite.every_host("firmware::cpus_come_up_by_psci_0_2", &[], |host| {
        let ended = run(host, "0.2")?;
        version(&ended, "0.2", "arm,psci-0.2")
    });
    suite.every_host("firmware::cpus_come_up_by_psci_1_0", &[], |host| {
        let ended = run(host, "1.0")?;
        version(&ended, "1.0", "arm,psci-1.0 arm,psci-0.2")
    });
    suite.every_host("firmware::cpus_come_up_by_psci_1_1", &[Need::Kernel(5, 18)], |host| {
        let ended = run(host, "1.1")?;
        version(&ended, "1.1", "arm,psci-1.0 arm,psci-0.2")?;
        feature(&ended, "SYSTEM_RESET2", 0)
    });
    suite.every_host("firmware::cpus_come_up_by_psci_1_3", &[Need::Kernel(6, 13)], |host| {
        let ended = run(host, "1.3")?;
        version(&ended, "1.3", "arm,psci-1.0 arm,psci-0.2")?;
        feature(&ended, "SYSTEM_OFF2", 1)
    });
    suite.every_host("firmware::a_newer_psci_is_refused", &[Need::OlderThan(6, 13)], |host| {
        let ended = psci(host).flags("--psci 1.3").finish()?.with_status(1)?;
        ensure_contains(&ended.stderr, &["psci_version: 1.3 wanted, 0.2 or 1.0", "fix: "])
    });
    suite.every_host("firmware::a_guest_gets_the_hosts_newest_psci", &[], |host| {
        let ended = psci(host).flags("--guest-abi host").finish()?.with_status(0)?;
        let version = after(&ended.stdout, "PSCI version ")?;
        ensure!(version.starts_with("1."), "version {version}");
        ensure_contains(&ended.stdout, &["PSCI MIGRATE_INFO_TYPE 2", "PSCI 4 cpus of 4"])
    });
}

fn psci(host: &Host) -> Kedge {
    Kedge::run(host.payload("psci")).flags("--cpus 4 --memory 16M")
}

fn run(host: &Host, version: &str) -> anyhow::Result<Ended> {
    psci(host).with(["--psci", version]).finish()?.with_status(0)
}

fn version(ended: &Ended, version: &str, compatible: &str) -> Outcome {
    let compatible = format!("PSCI compatible {compatible}");
    let version = format!("PSCI version {version}");
    ensure_contains(&ended.stdout, &[&compatible, &version, "PSCI 4 cpus of 4"])
}

fn feature(ended: &Ended, name: &str, expected: i64) -> Outcome {
    let answer = after(&ended.stdout, &format!("PSCI feature {name} "))?;
    ensure!(answer == expected.to_string(), "{name}: {answer}");
    Ok(())
}

/// This firmware cannot turn its machine off.
fn psci_0_1(host: &Host) -> Outcome {
    let kedge = psci(host).flags("--psci 0.1").start()?;
    kedge.wait_for("PSCI 4 cpus of 4", 1, SOON)?;
    let ended = kedge.terminate()?.by_signal(Signal::TERM)?;
    ensure_contains(&ended.stdout, &["PSCI compatible arm,psci\n"])
}
