//! Programs that embed the machine as a library.

use anyhow::ensure;

use crate::kedge::Kedge;
use crate::suite::{Suite, ensure_contains};

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
}
