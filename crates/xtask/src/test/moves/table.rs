//! What came of guests that moved, as tables: from which kernel in the rows, to which in the columns.

use std::collections::BTreeMap;

/// How a line of the suite begins that says what came of a guest.
const MARK: &str = "MOVE ";
/// What may come of one: with a reason, but for the first.
const OUTCOMES: [&str; 3] = ["restored", "refused", "failed"];

/// What came of one guest on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    fleet: String,
    guest: String,
    from: String,
    to: String,
    outcome: Outcome,
}

/// One of [`OUTCOMES`], and why, where it did not go well.
type Outcome = (&'static str, Option<String>);

impl Verdict {
    /// What a line of the suite on a host with the kernel `to` says, if it is such a line.
    pub(super) fn read(fleet: &str, to: &str, line: &str) -> Option<Self> {
        let (from, rest) = line.strip_prefix(MARK)?.split_once(' ')?;
        let (guest, verdict) = rest.split_once(' ')?;
        let (word, why) = match verdict.split_once(": ") {
            Some((word, why)) => (word, Some(why.to_owned())),
            None => (verdict, None),
        };
        let outcome = OUTCOMES.into_iter().find(|outcome| *outcome == word)?;
        let outcome = (outcome, why);
        let [fleet, guest, from, to] = [fleet, guest, from, to].map(str::to_owned);
        Some(Self { fleet, guest, from, to, outcome })
    }
}

/// Everything that came of all guests; the last word on each counts.
#[derive(Debug, Default)]
pub(super) struct Verdicts(BTreeMap<(String, String), Moves>);

/// By source and destination.
type Moves = BTreeMap<(Kernel, Kernel), Outcome>;

/// A kernel's label, older ones before younger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kernel(Vec<u32>, String);

impl Kernel {
    fn new(label: &str) -> Self {
        Self(label.split('.').map_while(|part| part.parse().ok()).collect(), label.to_owned())
    }
}

impl Verdicts {
    /// Adds what came of a guest.
    pub(super) fn add(&mut self, verdict: Verdict) {
        let Verdict { fleet, guest, from, to, outcome } = verdict;
        let moves = self.0.entry((fleet, guest)).or_default();
        moves.insert((Kernel::new(&from), Kernel::new(&to)), outcome);
    }

    /// A table for each guest of each fleet.
    pub(super) fn tables(&self) -> String {
        let table = |((fleet, guest), moves): (&(String, String), &Moves)| {
            format!(
                "\n{fleet}, {guest}: saved on the row's kernel, loaded on the column's\n{}",
                table(moves)
            )
        };
        self.0.iter().map(table).collect()
    }
}

fn table(moves: &Moves) -> String {
    let mut kernels: Vec<_> = moves.keys().flat_map(|(from, to)| [from, to]).collect();
    kernels.sort();
    kernels.dedup();
    let mut reasons: Vec<&String> = Vec::new();
    let line = |cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:<12}")).collect();
        format!("    {}\n", cells.trim_end())
    };
    let labels = kernels.iter().map(|kernel| kernel.1.clone());
    let mut text = line([String::new()].into_iter().chain(labels).collect());
    for from in &kernels {
        let mut cells = vec![from.1.clone()];
        for to in &kernels {
            cells.push(match moves.get(&((*from).clone(), (*to).clone())) {
                None => "-".to_owned(),
                Some((word, None)) => (*word).to_owned(),
                Some((word, Some(why))) => {
                    let known = reasons.iter().position(|reason| *reason == why);
                    let place = known.unwrap_or_else(|| {
                        reasons.push(why);
                        reasons.len() - 1
                    });
                    format!("{word} {}", place + 1)
                }
            });
        }
        text += &line(cells);
    }
    let notes = reasons.iter().zip(1..);
    text + &notes.map(|(why, number)| format!("    {number}: {why}\n")).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(lines: &[(&str, &str)]) -> Verdicts {
        let mut verdicts = Verdicts::default();
        for (to, line) in lines {
            verdicts.add(Verdict::read("gicv3 max", to, line).unwrap());
        }
        verdicts
    }

    #[test]
    fn a_table_has_a_row_for_each_source_and_says_once_why_guests_are_refused() {
        let verdicts = verdicts(&[
            ("6.1", "MOVE 5.10 plain refused: psci_version 1.3; std_bmap trng"),
            ("6.12", "MOVE 5.10 plain refused: psci_version 1.3; std_bmap trng"),
            ("5.10", "MOVE 6.12 plain restored"),
        ]);
        let expected = "
gicv3 max, plain: saved on the row's kernel, loaded on the column's
                5.10        6.1         6.12
    5.10        -           refused 1   refused 1
    6.1         -           -           -
    6.12        restored    -           -
    1: psci_version 1.3; std_bmap trng
";
        assert_eq!(verdicts.tables(), expected);
    }

    #[test]
    fn the_last_word_on_a_guest_counts() {
        let lines = [("6.1", "MOVE 6.1 plain refused: no"), ("6.1", "MOVE 6.1 plain restored")];
        assert!(verdicts(&lines).tables().ends_with("    6.1         restored\n"));
    }

    #[test]
    fn what_is_no_verdict_is_left_alone() {
        for line in ["MOVE 6.1 plain", "MOVE 6.1 plain perhaps", "test moves ... ok", ""] {
            assert_eq!(Verdict::read("gicv3 max", "6.1", line), None);
        }
    }
}
