//! Read-only memory, as a guest finds it.

use std::io::Write;

use anyhow::ensure;
use tempfile::NamedTempFile;

use crate::host::Host;
use crate::kedge::Kedge;
use crate::suite::{Outcome, Suite, ensure_contains};

/// What the guest loads from its first bytes, in each width.
const LOADS: &str = "\
ROM load of 1 bytes: 0x10
ROM load of 2 bytes: 0x3210
ROM load of 4 bytes: 0x76543210
ROM load of 8 bytes: 0xfedcba9876543210
ROM last: 0x0
";

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("rom::a_store_to_read_only_memory_is_an_external_abort", &[], stores);
    suite.once("rom::read_only_memory_over_ram_is_refused", &[], |host| {
        let file = rom()?;
        let kedge = Kedge::run(host.payload("null")).flags("--memory 16M");
        let rom = format!("path={},at=0x80000000", file.path().display());
        let ended = kedge.with(["--rom", &rom]).finish()?.with_status(1)?;
        ensure_contains(&ended.stderr, &["overlap the machine's memory", "fix: "])
    });
}

fn rom() -> anyhow::Result<NamedTempFile> {
    let file = NamedTempFile::new()?;
    file.as_file().write_all(&0xfedc_ba98_7654_3210_u64.to_le_bytes())?;
    Ok(file)
}

fn stores(host: &Host) -> Outcome {
    let file = rom()?;
    let rom = format!("path={},at=0x10000000", file.path().display());
    let kedge = Kedge::run(host.payload("rom")).flags("--memory 16M").with(["--rom", &rom]);
    let said = kedge.finish()?.with_status(0)?.stdout.replace('\r', "");
    ensure_contains(&said, &["ROM done\n"])?;
    // EC 0x25, IL, DFSC 0x10 (Arm DDI 0487, D24.2.40).
    for what in ["store of 1", "store of 2", "store of 4", "store of 8", "pair of 16"] {
        let abort = format!("ROM {what} bytes: 1 faults, esr 0x96000010, far right\n");
        ensure_contains(&said, &[&abort])?;
    }
    ensure!(said.matches(LOADS).count() == 2, "something was stored:\n{said}");
    Ok(())
}
