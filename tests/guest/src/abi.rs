//! What `kedge abi probe` finds on real kernels.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::host::{Host, Need, SYSTEM_SUSPEND};
use crate::kedge::Kedge;
use crate::suite::{Outcome, Suite, ensure_contains};

const PSCI_VERSION: &str = "0x6030000000140000";
const STD_BMAP: &str = "0x6030000000160000";
const STD_HYP_BMAP: &str = "0x6030000000160001";
const VENDOR_HYP_BMAP: &str = "0x6030000000160002";
const VENDOR_HYP_BMAP_2: &str = "0x6030000000160003";

pub(crate) fn tests(suite: &mut Suite) {
    versions(suite);
    bitmaps(suite);
    suite.every_host("abi::mitigations_are_the_hosts_to_tell", &[], |_| mitigations());
    suite.every_host("abi::limits_are_the_kernels", &[], limits);
    let writable = &[Need::Kernel(6, 7)];
    suite.every_host("abi::id_registers_are_the_machines_from_linux_6_7", writable, |_| identity());
    suite.once("abi::a_probe_is_written_to_a_file", &[], |_| written());
    suite.once("abi::a_probe_is_shown_in_tables", &[], |_| {
        let ended = Kedge::new(["abi", "probe"]).finish()?.with_status(0)?;
        let lines = ["Address bits", "FIRMWARE REGISTER", "psci_version", "ID_AA64PFR0_EL1"];
        ensure_contains(&ended.stdout, &lines)
    });
}

fn versions(suite: &mut Suite) {
    suite.every_host("abi::psci_is_1_0_before_linux_5_18", &[Need::OlderThan(5, 18)], |_| {
        psci("0x0000000000010000", &["0x2", "0x10000"])
    });
    let middle = &[Need::Kernel(5, 18), Need::OlderThan(6, 13)];
    suite.every_host("abi::psci_is_1_1_from_linux_5_18", middle, |_| {
        psci("0x0000000000010001", &["0x2", "0x10000", "0x10001"])
    });
    suite.every_host("abi::psci_is_1_3_from_linux_6_13", &[Need::Kernel(6, 13)], |_| {
        psci("0x0000000000010003", &["0x2", "0x10000", "0x10001", "0x10002", "0x10003"])
    });
}

fn bitmaps(suite: &mut Suite) {
    let old = &[Need::OlderThan(5, 19)];
    suite.every_host("abi::there_are_no_bitmaps_before_linux_5_19", old, |_| no_bitmaps());
    suite.every_host(
        "abi::three_bitmaps_are_on_and_can_be_cleared",
        &[Need::Kernel(5, 19)],
        |_| {
            let found = probe()?;
            bitmap(&found, STD_BMAP, ["0x0000000000000001", "0x1"])?;
            bitmap(&found, STD_HYP_BMAP, ["0x0000000000000001", "0x1"])?;
            bitmap(&found, VENDOR_HYP_BMAP, ["0x0000000000000003", "0x3"])
        },
    );
    suite.every_host("abi::a_fourth_bitmap_is_off_and_can_be_set", &[Need::Kernel(6, 15)], |_| {
        bitmap(&probe()?, VENDOR_HYP_BMAP_2, ["0x0000000000000000", "0x3"])
    });
}

fn no_bitmaps() -> Outcome {
    let found = probe()?;
    let ids = [STD_BMAP, STD_HYP_BMAP, VENDOR_HYP_BMAP, VENDOR_HYP_BMAP_2];
    let listed: Vec<_> = ids.into_iter().filter(|id| register(&found, id).is_ok()).collect();
    ensure!(listed.is_empty(), "{listed:?} are listed");
    Ok(())
}

fn mitigations() -> Outcome {
    let found = probe()?;
    for id in ["0x6030000000140001", "0x6030000000140002", "0x6030000000140003"] {
        let scope = &register(&found, id)?["scope"];
        ensure!(scope == "unchanging", "{id}: {scope}");
    }
    Ok(())
}

fn identity() -> Outcome {
    let found = probe()?;
    let registers = found["cpus"][0]["id_registers"].as_array().context("no ID registers")?;
    let named = |name: &str| registers.iter().find(|register| register["name"] == name);
    let isar0 = named("ID_AA64ISAR0_EL1").context("no ID_AA64ISAR0_EL1")?;
    ensure!(isar0["scope"] == "whole_vm", "{isar0}");
    Ok(())
}

fn probe() -> anyhow::Result<Value> {
    let ended = Kedge::new(["abi", "probe", "--json"]).finish()?.with_status(0)?;
    serde_json::from_str(&ended.stdout).context("no JSON")
}

/// What was found of the firmware register with this id.
fn register<'a>(found: &'a Value, id: &str) -> anyhow::Result<&'a Value> {
    let registers = found["firmware"].as_array().context("no firmware registers")?;
    registers.iter().find(|register| register["id"] == id).with_context(|| format!("no {id}"))
}

fn psci(default: &str, versions: &[&str]) -> Outcome {
    let found = probe()?;
    let found = register(&found, PSCI_VERSION)?;
    let expected = json!({
        "id": PSCI_VERSION,
        "name": "psci_version",
        "default": default,
        "scope": "whole_vm",
        "takes": { "values": versions },
    });
    ensure!(*found == expected, "{found}");
    Ok(())
}

fn bitmap(found: &Value, id: &str, [default, bits]: [&str; 2]) -> Outcome {
    let found = register(found, id)?;
    ensure!(found["default"] == default && found["scope"] == "whole_vm", "{found}");
    ensure!(found["takes"] == json!({ "bits": { "bits": bits, "empty": true } }), "{found}");
    Ok(())
}

fn limits(host: &Host) -> Outcome {
    let found = probe()?;
    let limits = &found["limits"];
    ensure!(limits["ipa_bits"] == host.ipa_bits(), "{limits}");
    let has =
        |name: &str| limits["features"].as_array().is_some_and(|all| all.contains(&json!(name)));
    ensure!(has("sve") == host.lacks(Need::Sve).is_none(), "{limits}");
    ensure!(has("pmu") == host.lacks(Need::Pmu).is_none(), "{limits}");
    ensure!(has("ptrauth") == host.lacks(Need::PtrAuth).is_none(), "{limits}");
    let suspend = limits["system_suspend"] == true;
    ensure!(suspend == host.lacks(SYSTEM_SUSPEND).is_none(), "{limits}");
    Ok(())
}

fn written() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("host.json");
    let ended = Kedge::new(["abi", "probe", "--output"]).with([&file]).finish()?.with_status(0)?;
    ensure!(ended.stdout.is_empty(), "{}", ended.stdout);
    let text = std::fs::read_to_string(&file)?;
    let again = Kedge::new(["abi", "probe", "--json"]).finish()?.with_status(0)?;
    ensure!(text == again.stdout, "two probes of one host differ:\n{text}\n{}", again.stdout);
    Ok(())
}
