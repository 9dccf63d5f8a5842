//! Firmware calls that KVM does not answer, and the time that it steals.

use std::fs;

use anyhow::ensure;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::{Ended, Kedge};
use crate::suite::{Outcome, Suite, after, ensure_contains};

/// The first kernel whose KVM hands over calls.
const HANDS_OVER: Need = Need::Kernel(6, 4);
/// Kernels whose KVM does not, and has all else that the default profile promises.
const KEEPS: &[Need] = &[Need::Kernel(5, 19), Need::OlderThan(6, 4)];
/// The first whose guests can be told of processors.
const DISCOVERY: Need = Need::Kernel(6, 15);

const NOT_SUPPORTED: &str = "0xffffffffffffffff 0x0 0x0 0x0";

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("services::a_guest_is_answered_by_a_program", &[HANDS_OVER], answered);
    suite.every_host("services::a_host_that_hands_over_no_calls_is_refused", KEEPS, |host| {
        let ended = example(host, "").finish()?.with_status(1)?;
        let calls = "the guest's are to be answered (0xc3000100)";
        ensure_contains(&ended.stderr, &["error: this host keeps", calls, "fix: run on Linux"])
    });
    suite.every_host("services::calls_that_nobody_answers_are_not_supported", &[], |host| {
        let ended = calls(host, "c3000100 c6000040 83000000").finish()?.with_status(0)?;
        let nobody = ["c3000100", "c6000040", "83000000"];
        nobody
            .iter()
            .try_for_each(|call| said(&ended.stdout, call, "0xffffffffffffffff 0x0 0x0 0x0"))
    });
    suite.every_host(
        "services::entropy_is_kedges_where_the_profile_says_so",
        &[HANDS_OVER],
        entropy,
    );
    suite.every_host("services::a_guest_is_told_of_processors", &[DISCOVERY], processors);
    suite.every_host(
        "services::a_profile_that_forwards_calls_needs_a_host_that_hands_them_over",
        KEEPS,
        |host| {
            let forward = json!([{ "base": "0xc6000040", "count": 2, "action": "forward" }]);
            let with = |abi: &mut Value| abi["machine"]["smccc_filter"] = forward;
            let ended = promised(host, "c6000040", with)?.with_status(1)?;
            ensure_contains(&ended.stderr, &["0xc6000040", "fix: "])
        },
    );
    suite.every_host("services::stolen_time_has_its_record", &[], stolen);
}

/// The library's example with the guest that calls.
fn example(host: &Host, calls: &str) -> Kedge {
    Kedge::embedded("firmware_service").with([host.payload("calls")]).with([calls])
}

fn calls(host: &Host, calls: &str) -> Kedge {
    Kedge::run(host.payload("calls")).flags("--memory 16M").cmdline(calls)
}

/// The guest that calls, with the default profile as `change` makes it.
fn promised(host: &Host, made: &str, change: impl FnOnce(&mut Value)) -> anyhow::Result<Ended> {
    let shown = Kedge::new(["abi", "show", "arm64-v1", "--json"]).finish()?.with_status(0)?;
    let mut abi: Value = serde_json::from_str(&shown.stdout)?;
    abi["name"] = json!("changed");
    change(&mut abi);
    let folder = TempDir::new()?;
    let profile = folder.path().join("changed.json");
    fs::write(&profile, abi.to_string())?;
    calls(host, made).with(["--guest-abi".as_ref(), profile.as_os_str()]).finish()
}

fn entropy(host: &Host) -> Outcome {
    let own = |abi: &mut Value| {
        abi["firmware"]["std_bmap"] = json!("none");
        abi["machine"]["smccc_filter"] = json!([
            { "base": "0x84000050", "count": 4, "action": "forward" },
            { "base": "0xc4000053", "count": 1, "action": "forward" },
        ]);
    };
    let made = "84000050 84000052 84000053,8 84000053,61 c4000053,c0 c4000053,c1";
    let ended = promised(host, made, own)?.with_status(0)?;
    said(&ended.stdout, "84000050", "0x10000 0x0 0x0 0x0")?;
    // KVM's would be 0xe0210d and so on.
    said(&ended.stdout, "84000052", "0x5cd24d05 0x2043a149 0x31de4e8f 0x40e7ea9f")?;
    let byte = after(&ended.stdout, "CALL 84000053,8: 0x0 0x0 0x0 ")?;
    ensure!(byte.len() <= "0xff".len(), "8 bits are {byte}");
    let whole = after(&ended.stdout, "CALL c4000053,c0: 0x0 ")?;
    ensure!(whole.len() > 40 && !whole.contains(" 0x0"), "192 bits are {whole}");
    let invalid = "0xfffffffffffffffe 0x0 0x0 0x0";
    ["84000053,61", "c4000053,c1"].iter().try_for_each(|call| said(&ended.stdout, call, invalid))
}

fn processors(host: &Host) -> Outcome {
    let tell = |abi: &mut Value| {
        abi["firmware"]["vendor_hyp_bmap_2"] = json!("impl-version,impl-cpus");
        abi["machine"]["smccc_filter"] =
            json!([{ "base": "0xc6000040", "count": 2, "action": "forward" }]);
        abi["cpu"]["implementations"] = json!([{ "midr": "0x413fd0c1" }, { "midr": "0x410fd4f0", "revidr": "0x2", "aidr": "0x3" }]);
    };
    let made = "86000000 c6000040 c6000041,0 c6000041,1 c6000041,2 c6000042";
    let ended = promised(host, made, tell)?.with_status(0)?;
    // KVM's word that there are functions 64 and 65.
    said(&ended.stdout, "86000000", "0x3 0x0 0x3 0x0")?;
    said(&ended.stdout, "c6000040", "0x0 0x10000 0x2 0x0")?;
    said(&ended.stdout, "c6000041,0", "0x0 0x413fd0c1 0x0 0x0")?;
    said(&ended.stdout, "c6000041,1", "0x0 0x410fd4f0 0x2 0x3")?;
    said(&ended.stdout, "c6000041,2", "0xfffffffffffffffd 0x0 0x0 0x0")?;
    said(&ended.stdout, "c6000042", NOT_SUPPORTED)
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
    said(&ended.stdout, "c3000101", NOT_SUPPORTED)?;
    ensure_contains(&ended.stdout, &["the guest reported 7 laps\n"])
}

fn stolen(host: &Host) -> Outcome {
    let ended = calls(host, "stolen").finish()?.with_status(0)?;
    let record = "STOLEN record 0x80000000, revision and attributes 0x0";
    ensure_contains(&ended.stdout, &["STOLEN features 0 0", record, " went up by "])
}
