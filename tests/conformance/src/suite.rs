//! Runs the suite over a back end.

use anyhow::Context;

use crate::{Backend, Case, Ctx, cases};

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
