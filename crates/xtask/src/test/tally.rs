//! What came of all runs together, and how it is told.

use std::process::ExitCode;

/// Results so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub passed: u64,
    pub skipped: u64,
    pub failures: Vec<Failure>,
    /// What was left out for a reason the user should know, a line each.
    pub notes: Vec<String>,
}

/// One failed test, or a run that did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Which run it belongs to.
    pub run: String,
    pub name: String,
    /// What it printed, or why it counts as failed.
    pub output: String,
}

impl Tally {
    /// Counts a failure.
    pub(super) fn fail(&mut self, run: &str, name: &str, output: &str) {
        let [run, name, output] = [run, name, output].map(str::to_owned);
        self.failures.push(Failure { run, name, output });
    }

    /// Counts something that cannot be run here as one skip, loudly.
    pub(super) fn skip(&mut self, run: &str, why: &str) {
        self.skipped += 1;
        self.notes.push(format!("SKIPPED {run}: {why}"));
    }

    /// Adds the results of another run.
    pub(super) fn add(&mut self, other: Self) {
        let Self { passed, skipped, failures, notes } = other;
        self.passed += passed;
        self.skipped += skipped;
        self.failures.extend(failures);
        self.notes.extend(notes);
    }

    /// Everything that was counted.
    pub(super) fn total(&self) -> u64 {
        self.passed + self.skipped + self.failed()
    }

    /// How many failed.
    pub(super) fn failed(&self) -> u64 {
        self.failures.iter().fold(0, |sum, _| sum + 1)
    }

    /// The counts, as the last line has them.
    pub(super) fn summary(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed(), self.skipped)
    }

    /// Repeats what went wrong; the counts are the last line.
    pub(super) fn report(&self) -> ExitCode {
        print!("{}", self.text());
        if self.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// What failed, with what it printed.
    pub(super) fn failures_text(&self) -> String {
        let mut text = String::new();
        for Failure { run, name, output } in &self.failures {
            text += &format!("\nFAILED {run}: {name}\n");
            for line in output.trim_matches('\n').lines() {
                text += &format!("    {line}\n");
            }
        }
        text
    }

    fn text(&self) -> String {
        let mut text = self.failures_text();
        if !self.notes.is_empty() {
            text += "\n";
        }
        for note in &self.notes {
            text += &format!("{note}\n");
        }
        text + &format!("\n{}\n", self.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_the_last_line() {
        let mut tally = Tally { passed: 3, ..Tally::default() };
        tally.skip("7.2", "the mirror has no kernel 7.2");
        assert_eq!(
            tally.text(),
            "\nSKIPPED 7.2: the mirror has no kernel 7.2\n\n3 passed, 0 failed, 1 skipped\n"
        );
    }

    #[test]
    fn failures_are_repeated_with_their_output() {
        let mut tally = Tally::default();
        tally.fail("6.1", "boot::one_cpu", "\nno init\n  after 60 s\n");
        assert_eq!(
            tally.text(),
            "\nFAILED 6.1: boot::one_cpu\n    no init\n      after 60 s\n\n0 passed, 1 failed, 0 skipped\n"
        );
    }

    #[test]
    fn runs_add_up() {
        let mut tally = Tally { passed: 1, ..Tally::default() };
        tally.add(Tally { passed: 2, skipped: 1, ..Tally::default() });
        assert_eq!(tally.summary(), "3 passed, 0 failed, 1 skipped");
        assert_eq!(tally.total(), 4);
    }
}
