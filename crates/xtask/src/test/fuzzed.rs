//! Fuzz targets, each fed for a moment: that they build, run and still find nothing. `cargo xtask fuzz` feeds them for
//! longer.

use super::tally::Tally;
use crate::fuzz::{Flags, TARGETS, build, corpus, run};

/// How many inputs each target is given: some seconds' worth.
const INPUTS: &str = "-runs=600";

/// Feeds the targets whose name contains `filter`.
pub(super) fn targets(filter: Option<&str>, tally: &mut Tally) -> anyhow::Result<()> {
    let is_meant = |name: &str| filter.is_none_or(|part| format!("fuzz::{name}").contains(part));
    let mut asked = TARGETS.iter().filter(|target| is_meant(target.name)).peekable();
    if asked.peek().is_none() {
        return Ok(());
    }
    let programs = build(Flags::GuidedBriefly)?;
    for target in asked {
        let fed = run(target, &programs, &corpus(target), &[INPUTS.to_owned()])?;
        let outcome = if fed.finding.is_some() { "FAILED" } else { "ok" };
        println!("fuzz  | test fuzz::{} ... {outcome}", target.name);
        match fed.finding {
            Some(finding) => tally.fail("fuzz", target.name, &finding),
            None => tally.passed += 1,
        }
    }
    Ok(())
}
