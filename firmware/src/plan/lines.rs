//! The lines of a plan that is being made.

use super::{Plan, PlanLine, Subject, Verdict};

/// The lines so far. Starting a machine makes a plan each time, and all is kept then:
/// such lines are put into words only for who will read them.
pub(super) struct Lines {
    kept: Kept,
    lines: Vec<PlanLine>,
}

/// What becomes of lines that keep what was asked for.
enum Kept {
    Written,
    LeftOut,
}

impl Lines {
    /// Of everything that is looked at.
    pub(super) const fn of_everything() -> Self {
        Self { kept: Kept::Written, lines: Vec::new() }
    }

    /// Of what is not kept.
    pub(super) const fn of_deviations() -> Self {
        Self { kept: Kept::LeftOut, lines: Vec::new() }
    }

    /// Adds the line of `words`: its subject, what is wanted of it, what is offered.
    pub(super) fn add(
        &mut self,
        verdict: Verdict,
        words: impl FnOnce() -> (Subject, String, String),
    ) {
        if matches!((&self.kept, &verdict), (Kept::LeftOut, Verdict::Keep)) {
            return;
        }
        let (subject, wanted, offered) = words();
        self.lines.push(PlanLine { subject, wanted, offered, verdict });
    }

    /// Adds the line of a part of the machine.
    pub(super) fn add_part(
        &mut self,
        name: &'static str,
        verdict: Verdict,
        words: impl FnOnce() -> (String, String),
    ) {
        self.add(verdict, || {
            let (wanted, offered) = words();
            (Subject::part(name), wanted, offered)
        });
    }

    /// All of them.
    pub(super) fn into_plan(self) -> Plan {
        Plan { lines: self.lines }
    }
}
