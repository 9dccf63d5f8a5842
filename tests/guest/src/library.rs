//! Programs that embed the machine as a library.

use std::fs;

use anyhow::ensure;
use tempfile::TempDir;

use crate::host::Host;
use crate::kedge::Kedge;
use crate::linux::BOOT;
use crate::suite::{Outcome, Suite, ensure_contains};

pub(crate) fn tests(suite: &mut Suite) {
    suite.once("library::the_example_counts_the_lines_of_its_guest", &[], |host| {
        let talking = host.payload("psci");
        let lines = Kedge::run(&talking).finish()?.with_status(0)?.stdout.lines().count();
        ensure!(lines > 1, "the guest says {lines} lines");
        let ended = Kedge::embedded("serial_output").with([&talking]).finish()?.with_status(0)?;
        let report = format!("the guest printed {lines} lines and ended: Off\n");
        ensure_contains(&ended.stdout, &[&report])
    });
    suite.once("library::the_example_says_how_to_mend_an_error", &[], |_| {
        let ended = Kedge::embedded("serial_output").with(["/nowhere"]).finish()?.with_status(1)?;
        ensure_contains(&ended.stderr, &["error: cannot open `/nowhere`", "fix: "])
    });
    suite.once("library::a_guest_uses_a_device_of_the_program", &[], |host| {
        let example = Kedge::embedded("own_device").with([host.payload("tally")]).with(["40 2"]);
        let said = example.finish()?.with_status(0)?.stdout;
        ensure_contains(
            &said,
            &[
                "TALLY tally@50000000 has interrupt 125\n",
                "TALLY 40 more are 40, and raised the interrupt\n",
                "TALLY 2 more are 42, and raised the interrupt\n",
            ],
        )
    });
    suite.once("library::a_guest_writes_to_a_disk_of_the_program", &[], own_disk);
}

fn own_disk(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let base = folder.path().join("base");
    let before = [b"first".to_vec(), vec![0x5a; (4 << 20) - 5]].concat();
    fs::write(&base, &before)?;
    let ended = Kedge::embedded("own_disk")
        .with([host.linux()?, host.initrd()?])
        .with(["console=ttyS0 loglevel=1 kedge.run=scratch"])
        .with([&base])
        .finish_within(BOOT)?
        .with_status(0)?;
    let said = &ended.stdout;
    ensure!(said.matches("SCRATCH begins with first").count() == 2, "{said}");
    ensure_contains(said, &["SCRATCH has what was written", "the guest wrote 2048 sectors\n"])?;
    ensure!(!said.contains("WRONG"), "{said}");
    ensure!(fs::read(&base)? == before, "the file below the disk has changed");
    Ok(())
}
