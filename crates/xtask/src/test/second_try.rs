//! Another try for hosts on which tests failed, or which died under them.
//!
//! An emulated host on a busy machine now and then loses time that no test can make up for. So the tests of a host
//! with failures run once more, with no other host beside it, and what failed once only is said loudly, with what it
//! printed, instead of being counted. What is broken fails twice. Where nothing failed but tests, only those run again.
//!
//! A host whose own kernel stops has shown nothing about the tests behind that: it is tried again until it has come to
//! the end of its tests, a few times at the most. (Seen at work with a debugger on QEMU 7.2: one of the host's CPUs at
//! EL2 with KVM's vectors takes one abort after another at its own level, from a store through a null pointer. No
//! program of ours is there.)

use super::tally::{Failure, Tally};

/// Hosts with failures that get another try: where more fail, something is wrong with more than the moment.
pub(super) const MOST: usize = 4;
/// Tries of a host that dies.
const TRIES: usize = 4;

/// What ran on one host, once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Try {
    pub tally: Tally,
    pub end: End,
}

/// One of the tests of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    /// The program it is in.
    pub suite: String,
    pub name: String,
}

/// How it came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All tests had their turn.
    Complete,
    /// The host died before, or was silent for so long that it counts as dead.
    HostGone,
}

impl Try {
    fn is_complete(&self) -> bool {
        self.end == End::Complete
    }

    fn is_good(&self) -> bool {
        self.is_complete() && self.tally.failures.is_empty()
    }

    /// Whether tests failed, and not the host.
    pub(super) fn has_failed(&self) -> bool {
        self.is_complete() && !self.is_good()
    }
}

/// The tests to run again on `host` after `last`; none where all are to run again.
pub(super) fn again(host: &str, last: &Try) -> Vec<Test> {
    // What else may be wrong with a run is said in words.
    let test = |Failure { run, name, .. }: &Failure| {
        let suite = run.strip_prefix(host)?.strip_prefix(' ')?.to_owned();
        let is_plain = |name: &str| !name.contains(char::is_whitespace);
        (is_plain(&suite) && is_plain(name)).then(|| Test { suite, name: name.clone() })
    };
    let tests: Option<Vec<_>> = last.tally.failures.iter().map(test).collect();
    tests.filter(|_| last.is_complete()).unwrap_or_default()
}

/// A try of all tests: of those that failed in `last` by `again`, a try of them alone, and of the others by `last`.
pub(super) fn completed(again: Try, last: &Try) -> Try {
    if !again.is_complete() {
        return again;
    }
    let Try { mut tally, end } = again;
    if tally.total() != last.tally.failed() {
        let how = format!("{} of {} ran again", tally.total(), last.tally.failed());
        let unknown = last.tally.failures.iter().map(|Failure { run, name, output }| Failure {
            run: run.clone(),
            name: name.clone(),
            output: format!("{output}{how}\n"),
        });
        tally = Tally { failures: unknown.collect(), ..Tally::default() };
    }
    tally.passed += last.tally.passed;
    tally.skipped += last.tally.skipped;
    tally.notes.extend_from_slice(&last.tally.notes);
    Try { tally, end }
}

/// Whether a host with these `tries` gets another one; `widespread` are failures on too many hosts for that.
pub(super) fn wants_another(tries: &[Try], widespread: bool) -> bool {
    let complete = tries.iter().filter(|one| one.is_complete()).count();
    let is_good = tries.iter().any(Try::is_good);
    let enough = if widespread { 1 } else { 2 };
    !is_good && complete < enough && tries.len() < TRIES
}

/// What all tries on one host come to: the counts of the last one that is complete, with the failures that all complete
/// ones have; where none is, the last one's.
pub(super) fn settle(mut tries: Vec<Try>) -> Tally {
    let is_first = |index: usize| index == 0;
    let decides = tries.iter().rposition(Try::is_complete).or(tries.len().checked_sub(1));
    let Some(decides) = decides else { return Tally::default() };
    let others: Vec<_> = tries.iter().map(|one| (one.end, one.tally.failures.clone())).collect();
    let Try { tally, end } = tries.swap_remove(decides);
    let Tally { passed, skipped, failures, mut notes } = tally;
    let same = |a: &Failure, b: &Failure| a.run == b.run && a.name == b.name;
    // Only what ran to its end says that something did not fail there.
    let always = |failure: &Failure| {
        let complete = others.iter().filter(|(end, _)| *end == End::Complete);
        let mut all = complete.map(|(_, failures)| failures);
        end == End::HostGone || all.all(|failures| failures.iter().any(|f| same(f, failure)))
    };
    let (counted, unlucky): (Vec<_>, Vec<_>) = failures.into_iter().partition(always);
    for (index, (_, failures)) in others.iter().enumerate() {
        let forgiven = failures.iter().filter(|f| !counted.iter().any(|counted| same(counted, f)));
        let which = if is_first(index) { "the first time" } else { "the next time" };
        notes.extend(forgiven.map(|failure| note(failure, which)));
    }
    let passed = unlucky.iter().fold(passed, |sum, _| sum + 1);
    Tally { passed, skipped, failures: counted, notes }
}

fn note(failure: &Failure, which: &str) -> String {
    let Failure { run, name, output } = failure;
    let mut text = format!("FAILED ONCE OF SEVERAL TIMES {run}: {name}; {which} it said:");
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

    fn whole(passed: u64, failed: &[&str]) -> Try {
        Try { tally: tally(passed, failed), end: End::Complete }
    }

    fn died(passed: u64, failed: &[&str]) -> Try {
        Try { tally: tally(passed, failed), end: End::HostGone }
    }

    #[test]
    fn what_fails_twice_is_a_failure() {
        let settled = settle(vec![whole(7, &["broken"]), whole(7, &["broken"])]);
        assert_eq!(settled, tally(7, &["broken"]));
    }

    #[test]
    fn what_failed_the_first_time_only_is_said_and_not_counted() {
        let settled = settle(vec![whole(7, &["unlucky"]), whole(8, &[])]);
        let said = "FAILED ONCE OF SEVERAL TIMES 6.12 guest-tests: unlucky; the first time it \
                    said:\n    no luck";
        assert_eq!(settled, Tally { notes: vec![said.to_owned()], ..tally(8, &[]) });
    }

    #[test]
    fn what_fails_the_second_time_only_has_passed_before() {
        let settled = settle(vec![whole(7, &["broken"]), whole(6, &["broken", "unlucky"])]);
        assert_eq!((settled.passed, settled.failures.len(), settled.notes.len()), (7, 1, 1));
    }

    #[test]
    fn a_host_that_dies_excuses_no_failure() {
        let settled = settle(vec![whole(7, &["broken"]), died(2, &["died in `other`"])]);
        assert_eq!(settled.failures, tally(7, &["broken"]).failures);
        let settled = settle(vec![died(2, &["died in `other`"]), whole(7, &["broken"])]);
        assert_eq!((settled.passed, settled.failures.len()), (7, 1));
        assert!(settled.notes[0].contains("died in `other`"));
    }

    #[test]
    fn a_host_that_always_dies_is_a_failure() {
        let tries = || vec![died(2, &["died in `a`"]), died(3, &["died in `b`"])];
        let settled = settle(tries());
        assert_eq!((settled.passed, settled.failures.len()), (3, 1));
        assert!(wants_another(&tries(), true));
        let all: Vec<_> = tries().into_iter().chain(tries()).collect();
        assert!(!wants_another(&all, false));
    }

    #[test]
    fn what_failed_runs_again_alone_if_nothing_else_is_wrong() {
        let names = |last: &Try| {
            again("6.12", last)
                .into_iter()
                .map(|test| test.suite + "=" + &test.name)
                .collect::<Vec<_>>()
        };
        let expected = ["guest-tests=once::a", "guest-tests=b"];
        assert_eq!(names(&whole(7, &["once::a", "b"])), expected);
        assert!(names(&whole(7, &["a", "ended with status 1"])).is_empty());
        assert!(names(&died(7, &["a"])).is_empty());
        assert!(again("6.1", &whole(7, &["a"])).is_empty());
    }

    #[test]
    fn what_ran_again_counts_beside_what_had_passed() {
        let first = whole(7, &["broken", "unlucky"]);
        let again = |passed, failed: &[&str]| {
            let tally = Tally { skipped: 0, ..tally(passed, failed) };
            completed(Try { tally, end: End::Complete }, &first)
        };
        assert_eq!(again(1, &["broken"]), whole(8, &["broken"]));
        assert_eq!(again(2, &[]), whole(9, &[]));
        let settled = settle(vec![whole(7, &["broken", "unlucky"]), again(1, &["broken"])]);
        assert_eq!((settled.passed, settled.failures.len(), settled.notes.len()), (8, 1, 1));
    }

    #[test]
    fn what_did_not_run_again_has_not_passed() {
        let first = whole(7, &["a", "b"]);
        let one = Try { tally: Tally { passed: 1, ..Tally::default() }, end: End::Complete };
        let completed = completed(one, &first);
        assert_eq!((completed.tally.passed, completed.tally.failures.len()), (7, 2));
        assert!(completed.tally.failures[0].output.ends_with("1 of 2 ran again\n"));
    }

    #[test]
    fn a_host_that_dies_the_second_time_has_shown_nothing() {
        let dead = completed(died(1, &["died in `b`"]), &whole(7, &["a", "b"]));
        assert_eq!(dead, died(1, &["died in `b`"]));
    }

    #[test]
    fn tests_get_two_tries_or_one_where_they_fail_everywhere() {
        assert!(wants_another(&[whole(7, &["broken"])], false));
        assert!(!wants_another(&[whole(7, &["broken"])], true));
        assert!(!wants_another(&[whole(7, &["broken"]), whole(7, &["broken"])], false));
        assert!(!wants_another(&[whole(7, &[])], false));
        assert!(wants_another(&[died(7, &["x"]), whole(7, &["broken"])], false));
    }
}
