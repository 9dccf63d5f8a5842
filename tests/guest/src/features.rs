//! Processor features that a guest gets when asked for, and when the host has
//! them.

use anyhow::ensure;

use crate::host::{Host, Need};
use crate::kedge::Kedge;
use crate::suite::{Outcome, Suite, ensure_contains};

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("features::sve_is_given_when_asked_for", &[Need::Sve], |host| {
        let said = cpu(host, "--cpu-features sve")?;
        ensure_contains(&said, &["CPU sve 1", "CPU vector bytes ", ", 0 faults", NO_PTRAUTH])?;
        ensure_no_pmu(&said)
    });
    suite.every_host("features::pointer_authentication_is_given", &[Need::PtrAuth], |host| {
        let said = cpu(host, "--cpu-features ptrauth")?;
        ensure_contains(&said, &["CPU ptrauth 1", "CPU signs pointers", NO_SVE])?;
        ensure_no_pmu(&said)
    });
    suite.every_host("features::performance_monitors_are_given", &[Need::Pmu], |host| {
        let said = cpu(host, "--cpu-features pmu")?;
        ensure_contains(&said, &["CPU pmu 1", "CPU counts cycles", NO_SVE, NO_PTRAUTH])
    });
    let all = &[Need::Sve, Need::PtrAuth, Need::Pmu];
    suite.every_host("features::all_together_are_given", all, |host| {
        let said = cpu(host, "--cpu-features sve,ptrauth,pmu --cpus 2")?;
        ensure_contains(&said, &["CPU sve 1", "CPU signs pointers", "CPU counts cycles"])
    });
    suite.every_host("features::none_is_given_unasked", &[], |host| {
        let said = cpu(host, "")?;
        ensure_contains(&said, &[NO_SVE, NO_PTRAUTH])?;
        ensure_no_pmu(&said)
    });
    let absent = [
        ("sve_is_refused_where_absent", &[Need::NoSve], "sve"),
        ("pointer_authentication_is_refused_where_absent", &[Need::NoPtrAuth], "ptrauth"),
        ("performance_monitors_are_refused_where_absent", &[Need::NoPmu], "pmu"),
    ];
    for (name, needs, feature) in absent {
        suite.every_host(&format!("features::{name}"), needs, move |host| refused(host, feature));
    }
}

const NO_SVE: &str = "CPU sve 0";
const NO_PTRAUTH: &str = "CPU ptrauth 0";

/// Linux before 5.11 shows every guest the version of the host's monitors in
/// `ID_AA64DFR0_EL1`; without being asked for they do not count.
fn ensure_no_pmu(said: &str) -> Outcome {
    ensure!(!said.contains("CPU counts cycles"), "{said}");
    ensure_contains(said, &["CPU pmu "])
}

fn cpu(host: &Host, flags: &str) -> anyhow::Result<String> {
    let kedge = Kedge::run(host.payload("cpu")).flags("--memory 16M").flags(flags);
    Ok(kedge.finish()?.with_status(0)?.stdout)
}

fn refused(host: &Host, feature: &str) -> Outcome {
    let kedge = Kedge::run(host.payload("null")).with(["--cpu-features", feature]);
    let ended = kedge.finish()?.with_status(1)?;
    ensure!(ended.stderr.contains(feature) && ended.stderr.contains("fix: "), "{}", ended.stderr);
    Ok(())
}
