//! The smallest and the largest machines.

use std::time::Duration;

use crate::host::{Host, Need};
use crate::kedge::Kedge;
use crate::suite::{Outcome, Suite, ensure_contains};

/// A thread for each vCPU, on the few CPUs of a test host.
const SLOW: Duration = Duration::from_secs(120);
/// The most memory of a machine in GiB.
const MOST_MEMORY: u64 = 1022;

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("limits::a_machine_has_as_much_memory_as_the_host_can_address", &[], |host| {
        let most = ((1_u64 << host.ipa_bits()) - (2 << 30)) >> 30;
        null(host, &format!("--memory {}G", most.min(MOST_MEMORY)))
    });
    suite.every_host("limits::more_memory_is_refused", &[], |host| {
        let ended = Kedge::run(host.payload("null")).flags("--memory 1023G").finish()?;
        ensure_contains(&ended.with_status(1)?.stderr, &["too much", "fix: "])
    });
    suite.every_host("limits::eight_cpus_come_up_behind_a_gicv2", &[Need::GicV2], |host| {
        cpus(host, "--gic v2 --cpus 8", 8)
    });
    suite.every_host("limits::nine_cpus_are_refused_behind_a_gicv2", &[Need::GicV2], |host| {
        let kedge = Kedge::run(host.payload("null")).flags("--gic v2 --cpus 9");
        ensure_contains(&kedge.finish()?.with_status(1)?.stderr, &["9 vCPUs", "GICv2", "at most 8"])
    });
    suite.every_host("limits::a_gicv2_is_refused_where_absent", &[Need::NoGicV2], |host| {
        let ended = Kedge::run(host.payload("null")).flags("--gic v2").finish()?;
        ensure_contains(&ended.with_status(1)?.stderr, &["GICv2", "fix: "])
    });
    suite.every_host("limits::sixteen_cpus_come_up_behind_a_gicv3", &[Need::GicV3], |host| {
        cpus(host, "--gic v3 --cpus 16", 16)
    });
    suite.once("limits::a_machine_has_as_many_cpus_as_the_host_allows", &[Need::GicV3], |host| {
        let kedge =
            Kedge::run(host.payload("null")).with(["--cpus", &host.most_vcpus().to_string()]);
        kedge.finish_within(SLOW)?.with_status(0).map(drop)
    });
    suite.every_host("limits::more_cpus_are_refused", &[], |host| {
        let asked = (host.most_vcpus() + 1).to_string();
        let ended = Kedge::run(host.payload("null")).with(["--cpus", &asked]).finish()?;
        ensure_contains(&ended.with_status(1)?.stderr, &[&format!("{asked} vCPUs"), "at most"])
    });
}

fn null(host: &Host, flags: &str) -> Outcome {
    Kedge::run(host.payload("null")).flags(flags).finish()?.with_status(0).map(drop)
}

fn cpus(host: &Host, flags: &str, count: u32) -> Outcome {
    let kedge = Kedge::run(host.payload("psci")).flags("--memory 16M").flags(flags);
    let ended = kedge.finish()?.with_status(0)?;
    ensure_contains(&ended.stdout, &[&format!("PSCI {count} cpus of {count}")])
}
