//! A second try for hosts on which tests failed.
//!
//! An emulated host on a busy machine now and then loses time that no test can make up for. So the tests of a host
//! with failures run once more, with no other host beside it, and what failed once only is said loudly, with what it
//! printed, instead of being counted. What is broken fails twice.

use super::tally::{Failure, Tally};

/// Hosts that get one: where more fail, something is wrong with more than the moment.
pub(super) const MOST: usize = 2;

/// What two runs on one host come to: the second one's counts, with the failures that both have.
pub(super) fn settle(first: Tally, second: Tally) -> Tally {
    let Tally { passed, skipped, failures, mut notes } = second;
    let same = |a: &Failure, b: &Failure| a.run == b.run && a.name == b.name;
    let (twice, only_second): (Vec<_>, Vec<_>) =
        failures.into_iter().partition(|failure| first.failures.iter().any(|f| same(f, failure)));
    let only_first: Vec<_> = first
        .failures
        .into_iter()
        .filter(|failure| !twice.iter().any(|f| same(f, failure)))
        .collect();
    notes.extend(only_first.iter().map(|failure| note(failure, "first")));
    notes.extend(only_second.iter().map(|failure| note(failure, "second")));
    let passed = only_second.iter().fold(passed, |sum, _| sum + 1);
    Tally { passed, skipped, failures: twice, notes }
}

fn note(failure: &Failure, which: &str) -> String {
    let Failure { run, name, output } = failure;
    let mut text = format!("FAILED ONCE OF TWICE {run}: {name}; the {which} time it said:");
    for line in output.trim_matches('\n').lines() {
        text += &format!("\n    {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u64, failed: &[&str]) -> Tally {
        let mut tally = Tally { passed, skipped: 1, ..Tally::default() };
        failed.iter().for_each(|name| tally.fail("6.12 guest-tests", name, "no luck\n"));
        tally
    }

    #[test]
    fn what_fails_twice_is_a_failure() {
        let settled = settle(tally(7, &["broken"]), tally(7, &["broken"]));
        assert_eq!(settled, tally(7, &["broken"]));
    }

    #[test]
    fn what_failed_the_first_time_only_is_said_and_not_counted() {
        let settled = settle(tally(7, &["unlucky"]), tally(8, &[]));
        let said =
            "FAILED ONCE OF TWICE 6.12 guest-tests: unlucky; the first time it said:\n    no luck";
        assert_eq!(settled, Tally { notes: vec![said.to_owned()], ..tally(8, &[]) });
    }

    #[test]
    fn what_fails_the_second_time_only_has_passed_before() {
        let settled = settle(tally(7, &["broken"]), tally(6, &["broken", "unlucky"]));
        assert_eq!((settled.passed, settled.failures.len(), settled.notes.len()), (7, 1, 1));
    }

    #[test]
    fn a_run_that_never_ends_well_stays_a_failure() {
        let settled = settle(tally(0, &["the host died"]), tally(0, &["the host died"]));
        assert_eq!(settled.failures.len(), 1);
    }
}
