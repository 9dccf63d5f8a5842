//! Fixes that reach a line of stable kernels at some time.
//!
//! A release of the model stands for a line, `6.12` for all of 6.12.N, and a later N may do what only newer lines did
//! before. Whether a kernel has such a fix is found out, as everything about it is: it has, if the facts that speak of
//! it are due with the fix and not without.

use kedge_hv_model::{Ability, EmptyRange, ModelHypervisor, Recording, Release};

use crate::facts::{self, Group};
use crate::{Known, Model};

/// A fix.
#[derive(Clone, Copy, Debug)]
pub struct Fix {
    /// What is so with it.
    pub name: &'static str,
    /// The group of facts that speaks of it.
    pub clue: &'static str,
    apply: fn(&mut Release),
}

/// All that were seen in a line that did not begin with them.
pub const FIXES: &[Fix] = &[
    Fix {
        name: "a filter's range that starts at 0 and holds nothing is nothing (6.12.117)",
        clue: "ranges of a filter",
        apply: |release| release.empty_range = EmptyRange::Nothing,
    },
    Fix {
        name: "a vCPU has no SError before it is initialised (6.12.117)",
        clue: "vcpus before initialisation",
        apply: |release| release.early_serror = Ability::Absent,
    },
];

/// `release` with the fixes that this back end has.
///
/// # Errors
/// The release's recording cannot be read.
pub fn as_found(known: &Known, release: &Release) -> anyhow::Result<Release> {
    let mut found = release.clone();
    for fix in FIXES {
        let Some(group) = facts::groups().find(|group| group.name == fix.clue) else { continue };
        let mut fixed = found.clone();
        (fix.apply)(&mut fixed);
        if !speaks_for(known, group, &found)? && speaks_for(known, group, &fixed)? {
            found = fixed;
        }
    }
    Ok(found)
}

fn speaks_for(known: &Known, group: &Group, release: &Release) -> anyhow::Result<bool> {
    let host = Recording::parse(release.recording)?;
    let model = Model(ModelHypervisor::on(release, host, &[kedge_hv::GicVersion::V3]));
    Ok(known.compare(group, &model).is_ok())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kedge_hv_model::{V6_12, V7_2};

    use super::*;

    fn found(kernel: &Release, line: &Release) -> String {
        let kernel = Arc::new(Model(ModelHypervisor::new(kernel).unwrap()));
        let known = Known::new(kernel).unwrap();
        format!("{:?}", as_found(&known, line).unwrap())
    }

    #[test]
    fn a_kernel_without_fixes_is_its_release() {
        assert_eq!(found(&V6_12, &V6_12), format!("{V6_12:?}"));
        assert_eq!(found(&V7_2, &V7_2), format!("{V7_2:?}"));
    }

    #[test]
    fn each_fix_of_a_kernel_is_found() {
        for fix in FIXES {
            let mut fixed = V6_12.clone();
            (fix.apply)(&mut fixed);
            assert_eq!(found(&fixed, &V6_12), format!("{fixed:?}"), "{}", fix.name);
        }
    }
}
