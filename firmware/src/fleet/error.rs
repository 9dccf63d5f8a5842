//! Why there is no baseline; and words for what a host takes.

use std::fmt;

use kedge_diag::Fix;

use crate::hex::Hex;

/// Why hosts have no profile in common.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaselineError {
    /// There is no host.
    #[error("a baseline needs a host at least")]
    NoHosts,
    /// Of some things there is no value that all hosts have.
    #[error("these hosts have no profile in common{}", lines(conflicts))]
    NothingInCommon {
        /// Each of those things.
        conflicts: Vec<Conflict>,
    },
}

/// Something of which there is no value that all hosts have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What it is: a register, or a field of one.
    pub subject: String,
    /// Each host, and what it has, as a phrase that the host begins.
    pub hosts: Vec<(String, String)>,
}

/// `ID_AA64PFR0_EL1.EL1: a takes only 0x1; b takes only 0x2`.
impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.hosts.iter().map(|(host, has)| format!("{host} {has}")).collect();
        write!(f, "`{}`: {}", self.subject, hosts.join("; "))
    }
}

/// Each on a line of its own.
fn lines(conflicts: &[Conflict]) -> String {
    conflicts.iter().map(|conflict| format!("\n    {conflict}")).collect()
}

impl Fix for BaselineError {
    fn fix(&self) -> Option<String> {
        let fix = match self {
            Self::NoHosts => "name the documents that `kedge abi probe` wrote on the hosts",
            Self::NothingInCommon { .. } => {
                "make a baseline for each group of hosts that are alike; kernels from Linux 6.7 on \
                 can show most of what other CPUs are, from 6.15 on their names, too"
            }
        };
        Some(fix.to_owned())
    }
}

/// `takes only 0x6`, `takes 0x0 to 0x3, 0x8`.
pub(super) fn takes(values: impl IntoIterator<Item = u64>) -> String {
    let values: Vec<u64> = values.into_iter().collect();
    match values.as_slice() {
        [] => "takes nothing".to_owned(),
        [only] => format!("takes only {}", Hex(*only)),
        _ => format!("takes {}", runs(&values).join(", ")),
    }
}

/// Ascending values, those that follow one another as `first to last`.
fn runs(values: &[u64]) -> Vec<String> {
    let run = |run: &[u64]| match run {
        [first, _, .., last] => format!("{} to {}", Hex(*first), Hex(*last)),
        few => few.iter().map(|value| Hex(*value).to_string()).collect::<Vec<_>>().join(", "),
    };
    values.chunk_by(|one, next| one + 1 == *next).map(run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_told_in_runs() {
        assert_eq!(takes([6]), "takes only 0x6");
        assert_eq!(takes([0, 1]), "takes 0x0, 0x1");
        assert_eq!(takes([0, 1, 2, 3, 8]), "takes 0x0 to 0x3, 0x8");
        assert_eq!(takes([]), "takes nothing");
    }
}
