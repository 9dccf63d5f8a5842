//! A back end as it is known: what it can do, and the facts about it, each found out
//! once however often they are compared.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, anyhow, bail};
use kedge_hv::{GicVersion, VcpuFeatures};

use crate::facts::{self, Group, Holds};
use crate::{Abilities, Backend, Case, Ctx, suite};

/// A back end that others are compared with.
#[expect(missing_debug_implementations, reason = "a back end is whatever it is")]
pub struct Known {
    backend: Arc<dyn Backend>,
    abilities: Abilities,
    host: Host,
    /// In the order of the groups; a refusal as its text.
    facts: Vec<OnceLock<Result<BTreeSet<String>, String>>>,
}

/// What the facts about a host depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Host {
    midr: u64,
    gics: [bool; 2],
    sve: bool,
}

impl Host {
    fn of(ctx: &Ctx<'_>) -> anyhow::Result<Self> {
        let machine = ctx.machine(1)?;
        Ok(Self {
            midr: machine[0].reg64(facts::MIDR_EL1)?,
            gics: [GicVersion::V2, GicVersion::V3].map(|gic| machine.vm.supports_gic(gic)),
            sve: ctx.limits().features.contains(VcpuFeatures::SVE),
        })
    }

    fn comparable(&self, holds: Holds, other: &Self) -> bool {
        let same = self.midr == other.midr && self.gics == other.gics;
        match holds {
            Holds::Release => true,
            Holds::SameHost => same,
            Holds::SameHostWithSve => same && self.sve && other.sve,
            Holds::GicV2 => self.gics[0] && other.gics[0],
        }
    }
}

/// What can speak for a rule.
enum Clue {
    Facts(&'static Group),
    Case(&'static Case),
}

impl Clue {
    fn find(name: &str) -> anyhow::Result<Self> {
        let facts = facts::groups().find(|group| group.name == name).map(Self::Facts);
        let case = || suite::cases().find(|case| case.name == name).map(Self::Case);
        facts.or_else(case).with_context(|| format!("no case and no facts are called {name}"))
    }
}

impl Known {
    /// Gets to know a back end.
    ///
    /// # Errors
    /// Not even a plain machine can be made.
    pub fn new(backend: Arc<dyn Backend>) -> anyhow::Result<Self> {
        let ctx = Ctx::new(backend.as_ref());
        let (abilities, host) = (Abilities::probe(&ctx)?, Host::of(&ctx)?);
        let facts = facts::groups().map(|_| OnceLock::new()).collect();
        Ok(Self { backend, abilities, host, facts })
    }

    /// What it can do.
    pub fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    /// Whether facts about its host can be compared with facts about this one's.
    ///
    /// # Errors
    /// Not even a plain machine can be made.
    pub fn is_like(&self, backend: &dyn Backend, holds: Holds) -> anyhow::Result<bool> {
        Ok(self.host.comparable(holds, &Host::of(&Ctx::new(backend))?))
    }

    fn facts(&self, index: usize, group: &Group) -> anyhow::Result<&BTreeSet<String>> {
        let found = self.facts[index].get_or_init(|| {
            let found = (group.find)(&Ctx::new(self.backend.as_ref()));
            found.map(BTreeSet::from_iter).map_err(|error| format!("{error:#}"))
        });
        found.as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// Compares the facts of one group with what a model expects of them, where that
    /// makes sense.
    ///
    /// # Errors
    /// They differ; the lines that do are in the text.
    pub fn compare(&self, group: &Group, model: &dyn Backend) -> anyhow::Result<()> {
        if !self.is_like(model, group.holds)? {
            return Ok(());
        }
        let index = facts::groups().position(|other| other.name == group.name);
        let found = self.facts(index.unwrap_or_default(), group)?;
        let due: BTreeSet<_> = (group.find)(&Ctx::new(model))?.into_iter().collect();
        let unexpected = found.difference(&due).map(|fact| format!("  found {fact}"));
        let missing = due.difference(found).map(|fact| format!("  due   {fact}"));
        let lines: Vec<_> = unexpected.chain(missing).collect();
        if !lines.is_empty() {
            bail!("{}: {} facts differ\n{}", group.name, lines.len(), lines.join("\n"));
        }
        Ok(())
    }

    /// Whether a case, or a group of facts, has something to say of this back end.
    ///
    /// # Errors
    /// There is neither of that name.
    pub fn hears(&self, clue: &str, model: &dyn Backend) -> anyhow::Result<bool> {
        match Clue::find(clue)? {
            Clue::Facts(group) => self.is_like(model, group.holds),
            Clue::Case(case) => Ok(self.abilities.meet(case.need)),
        }
    }

    /// Whether a clue says of a model that it is not this back end's: the facts differ,
    /// or the case, which holds here, fails there.
    ///
    /// # Errors
    /// There is no such clue.
    pub fn notices(&self, clue: &str, model: &dyn Backend) -> anyhow::Result<bool> {
        Ok(match Clue::find(clue)? {
            Clue::Facts(group) => self.compare(group, model).is_err(),
            Clue::Case(case) => suite::run(case, model).is_err(),
        })
    }

    /// The first thing that says of a model that it is not this back end's: a group of
    /// facts that differs, or a case that holds here and fails there.
    ///
    /// # Errors
    /// Not even a plain machine can be made of the model.
    pub fn first_failure(&self, model: &dyn Backend) -> anyhow::Result<Option<String>> {
        Ctx::new(model).machine(1)?;
        let facts = facts::groups().map(|group| self.compare(group, model));
        let able = suite::cases().filter(|case| self.abilities.meet(case.need));
        let mut results = facts.chain(able.map(|case| suite::run(case, model)));
        Ok(results.find_map(Result::err).map(|error| format!("{error:#}")))
    }
}
