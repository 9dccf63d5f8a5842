//! Reading what libtest and its likes print, line by line, without trusting it to be whole.
//!
//! A harness prints `running N tests`, a line per test, the output of those that failed, and `test result: ...`. Lines
//! of a kernel may fall in between and a harness may die at any point, so the counts of the result line are believed
//! more than the lines before it, and a section without one is a failure.

use std::collections::VecDeque;

use super::tally::{Failure, Tally};

/// How many lines are kept to show what a harness said before it died.
const TAIL_LINES: usize = 60;

/// What is wrong with a program that ran no tests.
const SILENCE: &str = "no word of a test harness";

/// How one test ended, in the harness' words.
const OUTCOMES: [&str; 3] = ["ok", "FAILED", "ignored"];

/// One run: a program, or several run by cargo, of which each is a section.
pub(super) struct Reader {
    run: String,
    /// The program whose section comes next, by cargo's word.
    program: String,
    /// That program has printed nothing of a harness yet.
    awaited: bool,
    section: Option<Section>,
    /// The last lines since the program was announced, whatever they were.
    tail: VecDeque<String>,
    tally: Tally,
}

/// From `running N tests` to `test result:`.
#[derive(Default)]
struct Section {
    passed: u64,
    ignored: u64,
    /// Failed tests and what they printed, in the order of their lines.
    failed: Vec<(String, String)>,
    /// A test that has begun and not ended.
    pending: Option<String>,
    part: Part,
}

/// Where in a section we are.
#[derive(Default, PartialEq, Eq)]
enum Part {
    #[default]
    Tests,
    /// Outputs of failed tests; of which one, by its place in `failed`.
    Failures(Option<usize>),
}

/// A line that is worth showing at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TestLine {
    pub program: String,
    pub name: String,
    /// One of [`OUTCOMES`].
    pub outcome: &'static str,
}

impl Reader {
    /// A reader of the output of this run.
    pub(super) fn new(run: &str) -> Self {
        Self {
            run: run.to_owned(),
            program: String::new(),
            awaited: true,
            section: None,
            tail: VecDeque::new(),
            tally: Tally::default(),
        }
    }

    /// Reads one line; says so if a test ended with it.
    pub(super) fn line(&mut self, line: &str) -> Option<TestLine> {
        if let Some(program) = program(line) {
            self.begin_program(program, line);
            return None;
        }
        self.keep(line);
        if is_start(line) && self.section.as_ref().is_none_or(|s| s.part == Part::Tests) {
            self.end_unfinished();
            self.awaited = false;
            self.section = Some(Section::default());
        } else if let Some(section) = &mut self.section {
            if let Some(counts) = section.result(line) {
                self.end(counts);
                return None;
            }
            let (name, outcome) = section.line(line)?;
            return Some(TestLine { program: self.program.clone(), name, outcome });
        }
        None
    }

    /// Takes what a console showed last in place of the lines read: a dying kernel speaks past its programs.
    pub(super) fn last_words(&mut self, console: Vec<String>) {
        self.tail = console.into();
    }

    /// Ends the run. `ended` says how, if that was not with status 0.
    pub(super) fn finish(mut self, ended: Option<&str>) -> Tally {
        self.end_unfinished();
        match ended {
            Some(how) if self.awaited || self.tally.failures.is_empty() => self.fail_with_tail(how),
            None if self.awaited => self.fail_with_tail(SILENCE),
            _ => {}
        }
        self.tally
    }

    /// Keeps a line for a failure that has no output of its own.
    fn keep(&mut self, line: &str) {
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
    }

    /// Another program is announced by this line: the one before it had its chance.
    fn begin_program(&mut self, program: String, line: &str) {
        self.end_unfinished();
        if self.awaited && !self.program.is_empty() {
            self.fail_with_tail(SILENCE);
        }
        self.program = program;
        self.awaited = true;
        self.tail.clear();
        self.keep(line);
    }

    /// Counts a section whose result line has come.
    fn end(&mut self, counts: Counts) {
        let Some(mut section) = self.section.take() else { return };
        let Counts { passed, failed, ignored } = counts;
        while section.failed.iter().fold(0, |sum, _| sum + 1) < failed {
            section.failed.push(("a test whose name was lost".to_owned(), String::new()));
        }
        self.tally.passed += passed;
        self.tally.skipped += ignored;
        self.take_failures(section);
    }

    /// Counts a section that broke off, if there is one, as far as it came and as one failure.
    fn end_unfinished(&mut self) {
        let Some(mut section) = self.section.take() else { return };
        self.tally.passed += section.passed;
        self.tally.skipped += section.ignored;
        let how = match section.pending.take() {
            Some(test) => format!("died in `{test}`"),
            None => "died before its result".to_owned(),
        };
        self.take_failures(section);
        self.fail_with_tail(&how);
    }

    fn take_failures(&mut self, section: Section) {
        for (name, output) in section.failed {
            let run = self.label();
            self.tally.failures.push(Failure { run, name, output });
        }
    }

    fn fail_with_tail(&mut self, how: &str) {
        let tail = self.tail.make_contiguous().join("\n");
        let run = self.label();
        self.tally.fail(&run, how, &tail);
    }

    /// The run and, where it has several, the program.
    fn label(&self) -> String {
        format!("{} {}", self.run, self.program).trim_end().to_owned()
    }
}

/// What a result line says.
#[derive(Clone, Copy)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Section {
    /// The counts if this is the result line. Among the outputs of failed tests it has to stand alone: a test of this
    /// reader may print one.
    fn result(&self, line: &str) -> Option<Counts> {
        let at = line.find("test result: ")?;
        if at > 0 && self.part != Part::Tests {
            return None;
        }
        let count = |word: &str| {
            let before = line[at..].split(word).next()?;
            before.split([' ', '.', ';']).rfind(|part| !part.is_empty())?.parse().ok()
        };
        Some(Counts {
            passed: count(" passed")?,
            failed: count(" failed")?,
            ignored: count(" ignored")?,
        })
    }

    fn line(&mut self, line: &str) -> Option<(String, &'static str)> {
        if line == "failures:" {
            self.part = Part::Failures(None);
            return None;
        }
        match self.part {
            Part::Tests => self.test_line(line),
            Part::Failures(_) => {
                self.failure_line(line);
                None
            }
        }
    }

    /// `test NAME ... OUTCOME`, or an outcome alone where the test printed something of its own.
    fn test_line(&mut self, line: &str) -> Option<(String, &'static str)> {
        let (name, outcome) =
            match line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ...")) {
                Some((name, rest)) => {
                    (name.trim_end().trim_end_matches(" - should panic").to_owned(), outcome(rest))
                }
                None => (self.pending.clone()?, Some(outcome(line)?)),
            };
        let Some(outcome) = outcome else {
            self.pending = Some(name);
            return None;
        };
        self.pending = None;
        match outcome {
            "ok" => self.passed += 1,
            "FAILED" => self.failed.push((name.clone(), String::new())),
            _ => self.ignored += 1,
        }
        Some((name, outcome))
    }

    /// `---- NAME ----`, perhaps with `stdout`, and the lines after it.
    fn failure_line(&mut self, line: &str) {
        let header = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" ----"));
        if let Some(header) = header {
            let name = header.trim_end_matches(" stdout").trim_end_matches(" stderr");
            let known = self.failed.iter().position(|failure| failure.0 == name);
            let at = known.unwrap_or_else(|| {
                self.failed.push((name.to_owned(), String::new()));
                self.failed.len() - 1
            });
            self.part = Part::Failures(Some(at));
        } else if let Part::Failures(Some(at)) = self.part
            && let Some((_, output)) = self.failed.get_mut(at)
        {
            output.push_str(line);
            output.push('\n');
        }
    }
}

/// `ok`, `FAILED`, `ignored`, or one of them with a reason or a time behind it.
fn outcome(text: &str) -> Option<&'static str> {
    let word = text.trim().split([' ', ',']).next()?;
    OUTCOMES.into_iter().find(|outcome| *outcome == word)
}

/// `running 12 tests`.
fn is_start(line: &str) -> bool {
    let count = line.strip_prefix("running ").and_then(|rest| rest.split_once(" test"));
    count.is_some_and(|(count, rest)| count.parse::<u64>().is_ok() && matches!(rest, "" | "s"))
}

/// The crate in `Running unittests src/lib.rs (target/debug/deps/kedge_ids-0123456789abcdef)` and
/// `Doc-tests kedge_ids`.
fn program(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{name} (doc)"));
    }
    let (_, path) = line.strip_prefix("Running ")?.rsplit_once('(')?;
    let file = path.trim_end_matches(')').rsplit('/').next()?;
    Some(file.rsplit_once('-').map_or(file, |(name, _hash)| name).to_owned())
}

#[cfg(test)]
#[path = "libtest_tests.rs"]
mod tests;
