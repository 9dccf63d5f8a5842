//! What a back end answers where kernels differ, as lines of text, so that two
//! back ends can be compared: a kernel with the model of its release.
//!
//! The cases hold on every kernel; the facts are what makes one kernel this one.
//! A fact is found by asking and by trying, and never by anything's name.

use std::collections::BTreeSet;

use anyhow::bail;
use kedge_hv::{GicVersion, HvError, VcpuFeatures};
use kedge_ids::RegId;

use crate::Backend;
use crate::ctx::{Ctx, errno};

mod abi;
mod calls;
mod firmware;
mod machine;
mod registers;

pub use registers::{CLOCKS, id_masks, writable_fields};

type Find = fn(&Ctx<'_>) -> anyhow::Result<Vec<String>>;

/// Facts about one thing.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// What they are about.
    pub name: &'static str,
    /// Where they mean the same.
    pub holds: Holds,
    /// Finds them out.
    pub find: Find,
}

/// Between which hosts facts can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// All under one kernel release.
    Release,
    /// Those that have the same CPU and interrupt controller, too.
    SameHost,
    /// The same, and SVE.
    SameHostWithSve,
}

/// All groups.
pub fn groups() -> impl Iterator<Item = &'static Group> {
    let files = [abi::GROUPS, calls::GROUPS, firmware::GROUPS, machine::GROUPS, registers::GROUPS];
    files.into_iter().flatten()
}

/// Facts that are the same under one kernel release.
const fn of_release(name: &'static str, find: Find) -> Group {
    Group { name, holds: Holds::Release, find }
}

/// Facts that depend on the host's hardware, too.
const fn of_host(name: &'static str, find: Find) -> Group {
    Group { name, holds: Holds::SameHost, find }
}

/// Compares the facts of two back ends, where that makes sense.
///
/// # Errors
/// They differ; the lines that do are in the text.
pub fn compare(
    group: &Group,
    backend: &dyn Backend,
    reference: &dyn Backend,
) -> anyhow::Result<()> {
    let (ctx, reference) = (Ctx::new(backend), Ctx::new(reference));
    if !comparable(group.holds, &ctx, &reference)? {
        return Ok(());
    }
    let found: BTreeSet<_> = (group.find)(&ctx)?.into_iter().collect();
    let due: BTreeSet<_> = (group.find)(&reference)?.into_iter().collect();
    let unexpected = found.difference(&due).map(|fact| format!("  found {fact}"));
    let missing = due.difference(&found).map(|fact| format!("  due   {fact}"));
    let lines: Vec<_> = unexpected.chain(missing).collect();
    if !lines.is_empty() {
        bail!("{}: {} facts differ\n{}", group.name, lines.len(), lines.join("\n"));
    }
    Ok(())
}

/// Whether two hosts' facts can be compared.
///
/// # Errors
/// Not even a plain machine can be made.
pub fn comparable(holds: Holds, one: &Ctx<'_>, other: &Ctx<'_>) -> anyhow::Result<bool> {
    let host = |ctx: &Ctx<'_>| {
        let machine = ctx.machine(1)?;
        let gics = [GicVersion::V2, GicVersion::V3].map(|gic| machine.vm.supports_gic(gic));
        anyhow::Ok((machine[0].reg64(MIDR_EL1)?, gics))
    };
    let has_sve = |ctx: &Ctx<'_>| ctx.limits().features.contains(VcpuFeatures::SVE);
    Ok(match holds {
        Holds::Release => true,
        Holds::SameHost => host(one)? == host(other)?,
        Holds::SameHostWithSve => host(one)? == host(other)? && has_sve(one) && has_sve(other),
    })
}

const MIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 0);

/// A line that says how a call ended.
#[expect(clippy::needless_pass_by_value, reason = "callers have no other use for it")]
fn fact(name: impl std::fmt::Display, result: Result<(), HvError>) -> String {
    format!("{name}: errno {}", errno(&result))
}
