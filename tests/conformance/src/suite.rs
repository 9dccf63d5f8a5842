//! Runs the suite over a back end.

use anyhow::Context;

use crate::{Abilities, Backend, Case, Ctx, cases, facts};

/// All cases.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    cases::GROUPS.iter().copied().flatten()
}

/// Runs one case.
///
/// # Errors
/// What it found instead.
pub fn run(case: &Case, backend: &dyn Backend) -> anyhow::Result<()> {
    (case.run)(&Ctx::new(backend)).context(case.name)
}

/// Runs everything that `backend` is able to, and compares it with `reference`.
/// Gives the names of what failed, with what was found.
///
/// # Errors
/// Not even a plain machine can be made.
pub fn failures(backend: &dyn Backend, reference: &dyn Backend) -> anyhow::Result<Vec<String>> {
    let abilities = Abilities::probe(&Ctx::new(backend))?;
    let mut failures = Vec::new();
    for case in cases().filter(|case| abilities.meet(case.need)) {
        if let Err(error) = run(case, backend) {
            failures.push(format!("{error:#}"));
        }
    }
    for group in facts::GROUPS {
        if let Err(error) = facts::compare(group, backend, reference) {
            failures.push(format!("{error:#}"));
        }
    }
    Ok(failures)
}
