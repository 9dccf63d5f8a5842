//! What a back end answers where kernels differ, as lines of text, so that two
//! back ends can be compared: a kernel with the model of its release.
//!
//! The cases hold on every kernel; the facts are what makes one kernel this one.
//! A fact is found by asking and by trying, and never by anything's name.

use kedge_hv::HvError;
use kedge_ids::RegId;

use crate::ctx::{Ctx, errno};

mod abi;
mod calls;
mod firmware;
mod gic;
mod machine;
mod monitors;
mod registers;
mod seen;

pub(crate) use monitors::PAIRS;
pub use registers::{CLOCKS, id_masks, writable_fields};
pub use seen::untold;
pub(crate) use seen::{monitored, read};

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
    /// Those that have a GICv2.
    GicV2,
}

/// All groups.
pub fn groups() -> impl Iterator<Item = &'static Group> {
    let files = [
        abi::GROUPS,
        calls::GROUPS,
        firmware::GROUPS,
        gic::GROUPS,
        machine::GROUPS,
        monitors::GROUPS,
        registers::GROUPS,
        seen::GROUPS,
    ];
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

/// Facts about a GICv2.
const fn of_gicv2(name: &'static str, find: Find) -> Group {
    Group { name, holds: Holds::GicV2, find }
}

/// `MIDR_EL1`: which CPU.
pub(crate) const MIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 0);

/// A line that says how a call ended.
#[expect(clippy::needless_pass_by_value, reason = "callers have no other use for it")]
fn fact(name: impl std::fmt::Display, result: Result<(), HvError>) -> String {
    format!("{name}: errno {}", errno(&result))
}
