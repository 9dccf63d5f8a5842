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

/// What fails first of all that `backend` is able to do and of its comparison with
/// `reference`, if anything does.
///
/// # Errors
/// Not even a plain machine can be made of the reference.
pub fn first_failure(
    backend: &dyn Backend,
    reference: &dyn Backend,
) -> anyhow::Result<Option<String>> {
    let abilities = Abilities::probe(&Ctx::new(reference))?;
    let facts = facts::groups().map(|group| facts::compare(group, backend, reference));
    let able = cases().filter(|case| abilities.meet(case.need));
    let mut results = facts.chain(able.map(|case| run(case, backend)));
    Ok(results.find_map(Result::err).map(|error| format!("{error:#}")))
}
