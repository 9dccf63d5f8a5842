//! Processor features that a guest gets when asked for, and when the host has
//! them.

use anyhow::ensure;

use crate::host::{Host, Need};
use crate::kedge::Kedge;
use crate::suite::{Outcome, Suite, ensure_contains};

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("features::sve_is_given_when_asked_for", &[Need::Sve], |host| {
        let said = cpu(host, "--cpu-features sve")?;
        ensure_contains(&said, &["CPU sve 1", "CPU ptrauth 0", "CPU pmu 0", "CPU vector bytes "])
    });
    suite.every_host("features::pointer_authentication_is_given", &[Need::PtrAuth], |host| {
        let said = cpu(host, "--cpu-features ptrauth")?;
        ensure_contains(&said, &["CPU sve 0", "CPU ptrauth 1", "CPU signs pointers", "CPU pmu 0"])
    });
    suite.every_host("features::performance_monitors_are_given", &[Need::Pmu], |host| {
        let said = cpu(host, "--cpu-features pmu")?;
        ensure_contains(&said, &["CPU sve 0", "CPU ptrauth 0", "CPU pmu 1", "CPU counts cycles"])
    });
    suite.every_host(
        "features::all_together_are_given",
        &[Need::Sve, Need::PtrAuth, Need::Pmu],
        |host| {
            let said = cpu(host, "--cpu-features sve,ptrauth,pmu --cpus 2")?;
            ensure_contains(&said, &["CPU sve 1", "CPU ptrauth 1", "CPU pmu 1"])
        },
    );
    suite.every_host("features::none_is_given_unasked", &[], |host| {
        let said = cpu(host, "")?;
        ensure_contains(&said, &["CPU sve 0", "CPU ptrauth 0", "CPU pmu 0"])
    });
    suite.every_host("features::sve_is_refused_where_absent", &[Need::NoSve], |host| {
        refused(host, "sve")
    });
    suite.every_host(
        "features::pointer_authentication_is_refused_where_absent",
        &[Need::NoPtrAuth],
        |host| refused(host, "ptrauth"),
    );
    suite.every_host(
        "features::performance_monitors_are_refused_where_absent",
        &[Need::NoPmu],
        |host| refused(host, "pmu"),
    );
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
