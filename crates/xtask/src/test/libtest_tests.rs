//! Tests of the reader, over outputs as they were recorded.

use super::*;

/// The tally of a recorded output, and its test lines as shown.
fn read(recorded: &str, ended: Option<&str>) -> (Tally, Vec<String>) {
    let mut reader = Reader::new("run");
    let lines = recorded.lines().filter_map(|line| reader.line(line));
    let shown =
        lines.map(|line| format!("{} {} {}", line.program, line.name, line.outcome)).collect();
    (reader.finish(ended), shown)
}

fn names(tally: &Tally) -> Vec<(&str, &str)> {
    tally.failures.iter().map(|failure| (failure.run.as_str(), failure.name.as_str())).collect()
}

const CARGO_TEST: &str = include_str!("recorded/cargo_test.txt");

#[test]
fn cargo_test_is_counted_over_all_its_programs() {
    let (tally, _) = read(CARGO_TEST, Some("exit status: 101"));
    assert_eq!(tally.summary(), "4 passed, 3 failed, 2 skipped");
}

#[test]
fn failures_name_their_program_and_a_death_is_one() {
    let (tally, _) = read(CARGO_TEST, Some("exit status: 101"));
    let expected = [
        ("run lt", "tests::fails"),
        ("run dies", "died before its result"),
        ("run mimic", "boot::four_cpus"),
    ];
    assert_eq!(names(&tally), expected);
}

#[test]
fn a_failure_has_its_own_output() {
    let (tally, _) = read(CARGO_TEST, Some("exit status: 101"));
    assert_eq!(tally.failures[2].output.trim(), "the guest said nothing\nlast line: [ 0.1] x");
    assert!(tally.failures[0].output.contains("said before"));
}

#[test]
fn every_test_is_shown_with_its_program() {
    let (_, shown) = read(CARGO_TEST, Some("exit status: 101"));
    let expected = [
        "lt tests::is_ignored ignored",
        "lt tests::fails FAILED",
        "lt tests::panics ok",
        "lt tests::passes ok",
        "mimic boot::one_cpu ok",
        "mimic boot::four_cpus FAILED",
        "mimic sve::lengths ignored",
        "lt (doc) src/lib.rs - f (line 2) ok",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_host_that_dies_is_one_failure_with_its_last_words() {
    let (tally, shown) = read(include_str!("recorded/died_in_a_test.txt"), Some("the host died"));
    assert_eq!(names(&tally), [("run", "died in `boot::four_cpus`")]);
    assert!(tally.failures[0].output.ends_with("Kernel panic - not syncing: Fatal exception"));
    assert_eq!((tally.passed, shown.len()), (1, 1));
}

#[test]
fn a_kernel_that_speaks_in_between_changes_no_count() {
    let (tally, _) = read(include_str!("recorded/kernel_in_between.txt"), None);
    assert_eq!(tally.summary(), "3 passed, 0 failed, 0 skipped");
}

#[test]
fn what_does_not_build_is_one_failure_that_shows_why() {
    let (tally, _) = read(include_str!("recorded/does_not_build.txt"), Some("exit status: 101"));
    assert_eq!(names(&tally), [("run", "exit status: 101")]);
    assert!(tally.failures[0].output.contains("cannot find value"));
}

#[test]
fn silence_is_a_failure() {
    let (tally, _) = read("", None);
    assert_eq!(names(&tally), [("run", "no word of a test harness")]);
}

#[test]
fn a_program_that_does_not_start_is_a_failure_whatever_the_one_before_it_did() {
    let recorded = include_str!("recorded/does_not_start.txt");
    let (tally, _) = read(recorded, Some("status 127"));
    let expected = [("run conformance", "psci::version"), ("run guest-tests", "status 127")];
    assert_eq!(names(&tally), expected);
    assert!(tally.failures[1].output.contains("not found"));
}

#[test]
fn a_program_that_is_followed_by_another_has_had_its_chance() {
    let (tally, _) = read(
        "Running a (a-)\nRunning b (b-)\nrunning 0 tests\ntest result: ok. 0 passed; 0 failed; 0 ignored\n",
        None,
    );
    assert_eq!(names(&tally), [("run a", "no word of a test harness")]);
    assert_eq!(tally.failures[0].output, "Running a (a-)");
}

#[test]
fn a_bad_status_after_a_good_result_is_a_failure() {
    let good = "running 0 tests\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured\n";
    let (tally, _) = read(good, Some("status 139"));
    assert_eq!(names(&tally), [("run", "status 139")]);
}

#[test]
fn a_result_line_in_a_failed_tests_output_is_not_the_result() {
    let nested = "running 1 test\ntest a ... FAILED\n\nfailures:\n\n---- a stdout ----\n left: \"test result: ok. 9 passed; 0 failed; 0 ignored\"\nrunning 5 tests\n\nfailures:\n    a\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured\n";
    let (tally, _) = read(nested, Some("exit status: 101"));
    assert_eq!(tally.summary(), "0 passed, 1 failed, 0 skipped");
}

#[test]
fn a_failure_whose_line_was_lost_still_counts() {
    let lost = "running 2 tests\ntest a ... ok\ntest b ..[ 1.0] x. FAILED\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured\n";
    let (tally, _) = read(lost, Some("status 101"));
    assert_eq!(names(&tally), [("run", "a test whose name was lost")]);
}
