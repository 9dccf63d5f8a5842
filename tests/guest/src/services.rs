//! Firmware calls that KVM does not answer, and the time that it steals.

use anyhow::ensure;

use crate::host::{Host, Need};
use crate::kedge::Kedge;
use crate::suite::{Outcome, Suite, after, ensure_contains};

/// The first kernel whose KVM hands over calls.
const HANDS_OVER: Need = Need::Kernel(6, 4);

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("services::a_guest_is_answered_by_a_program", &[HANDS_OVER], answered);
    suite.every_host(
        "services::a_host_that_hands_over_no_calls_is_refused",
        &[Need::OlderThan(6, 4)],
        |host| {
            let ended = example(host, "").finish()?.with_status(1)?;
            let calls = "the guest's are to be answered (0xc3000100)";
            ensure_contains(&ended.stderr, &["error: this host keeps", calls, "fix: run on Linux"])
        },
    );
    suite.every_host("services::calls_that_nobody_answers_are_not_supported", &[], |host| {
        let ended = calls(host, "c3000100 c6000040 83000000").finish()?.with_status(0)?;
        let nobody = ["c3000100", "c6000040", "83000000"];
        nobody
            .iter()
            .try_for_each(|call| said(&ended.stdout, call, "0xffffffffffffffff 0x0 0x0 0x0"))
    });
    suite.every_host("services::stolen_time_has_its_record", &[], stolen);
}

/// The library's example with the guest that calls.
fn example(host: &Host, calls: &str) -> Kedge {
    Kedge::embedded("firmware_service").with([host.payload("calls")]).with([calls])
}

fn calls(host: &Host, calls: &str) -> Kedge {
    Kedge::run(host.payload("calls")).flags("--memory 16M").cmdline(calls)
}

fn said(stdout: &str, call: &str, results: &str) -> Outcome {
    let answer = after(stdout, &format!("CALL {call}: "))?;
    ensure!(answer == results, "{call}: {answer}, not {results}");
    Ok(())
}

fn answered(host: &Host) -> Outcome {
    let ended = example(host, "c3000100,5 smc:c3000100,2 c3000101").finish()?.with_status(0)?;
    said(&ended.stdout, "c3000100,5", "0x0 0x5 0x5 0x0")?;
    said(&ended.stdout, "smc:c3000100,2", "0x0 0x7 0x5 0x0")?;
    // Its neighbour stays with KVM.
    said(&ended.stdout, "c3000101", "0xffffffffffffffff 0x0 0x0 0x0")?;
    ensure_contains(&ended.stdout, &["the guest reported 7 laps\n"])
}

fn stolen(host: &Host) -> Outcome {
    let ended = calls(host, "stolen").finish()?.with_status(0)?;
    let record = "STOLEN record 0x80000000, revision and attributes 0x0";
    ensure_contains(&ended.stdout, &["STOLEN features 0 0", record, " went up by "])
}
