//! What things may cost, as a table, and what they cost.

use std::collections::BTreeMap;

use anyhow::Context;

/// The most that something may cost.
pub(super) struct Budget {
    /// What is measured, and which figure of it.
    subject: &'static str,
    figure: &'static str,
    /// How it is called for the reader.
    name: &'static str,
    unit: Unit,
    /// In thousandths of the unit.
    most: u64,
}

/// What a figure is shown in.
#[derive(Clone, Copy)]
enum Unit {
    /// Milliseconds, of microseconds.
    Ms,
    /// Kilobytes, of KiB.
    KbOfKib,
    /// Megabytes, of KiB.
    MbOfKib,
    /// Megabytes, of bytes.
    Mb,
    /// Thousands, of instructions.
    Instructions,
}

/// The figure of what kedge itself does for one request or packet.
pub(super) const INSTRUCTIONS: &str = "instructions";

#[rustfmt::skip]
pub(super) const BUDGETS: &[Budget] = &[
    Budget { subject: "null-guest", figure: "cpu_us",        name: "null guest, CPU time",    unit: Unit::Ms,      most: 4_500 },
    Budget { subject: "null-guest", figure: "wall_us",       name: "null guest, wall time",   unit: Unit::Ms,      most: 10_000 },
    Budget { subject: "null-guest", figure: "peak_kib",      name: "null guest, peak memory", unit: Unit::MbOfKib, most: 4_500 },
    Budget { subject: "profile",    figure: "cpu_us",        name: "of it for its profile",   unit: Unit::Ms,      most: 500 },
    Budget { subject: "fleet",      figure: "cpu_us",        name: "more for a fleet's",      unit: Unit::Ms,      most: 500 },
    Budget { subject: "pause",      figure: "answer_us",     name: "pause, answered",         unit: Unit::Ms,      most: 150 },
    Budget { subject: "resume",     figure: "answer_us",     name: "resume, answered",        unit: Unit::Ms,      most: 200 },
    Budget { subject: "save",       figure: "answer_us",     name: "save 128 MiB, answered",  unit: Unit::Ms,      most: 150_000 },
    Budget { subject: "load",       figure: "answer_us",     name: "load and resume",         unit: Unit::Ms,      most: 4_000 },
    Budget { subject: "clone",      figure: "anonymous_kib", name: "its memory, not run",     unit: Unit::KbOfKib, most: 600_000 },
    Budget { subject: "read-4k",    figure: "request_us",    name: "disk, read 4 KiB",        unit: Unit::Ms,      most: 80 },
    Budget { subject: "write-4k",   figure: "request_us",    name: "disk, write 4 KiB",       unit: Unit::Ms,      most: 90 },
    Budget { subject: "read-128k",  figure: "request_us",    name: "disk, read 128 KiB",      unit: Unit::Ms,      most: 2_000 },
    Budget { subject: "ping",       figure: "request_us",    name: "ping to the host",        unit: Unit::Ms,      most: 140 },
    Budget { subject: "pci-read-4k",   figure: "request_us", name: "on PCI, read 4 KiB",      unit: Unit::Ms,      most: 80 },
    Budget { subject: "pci-write-4k",  figure: "request_us", name: "on PCI, write 4 KiB",     unit: Unit::Ms,      most: 90 },
    Budget { subject: "pci-read-128k", figure: "request_us", name: "on PCI, read 128 KiB",    unit: Unit::Ms,      most: 2_000 },
    Budget { subject: "pci-ping",   figure: "request_us",    name: "on PCI, ping",            unit: Unit::Ms,      most: 140 },
    Budget { subject: "read-4k",       figure: INSTRUCTIONS, name: "kedge, reads 4 KiB",unit: Unit::Instructions, most: 6_900 },
    Budget { subject: "write-4k",      figure: INSTRUCTIONS, name: "kedge, writes 4 KiB", unit: Unit::Instructions, most: 7_000 },
    Budget { subject: "read-128k",     figure: INSTRUCTIONS, name: "kedge, reads 128 KiB", unit: Unit::Instructions, most: 26_500 },
    Budget { subject: "receive-64",    figure: INSTRUCTIONS, name: "kedge, packet in, 64", unit: Unit::Instructions, most: 4_100 },
    Budget { subject: "receive-1500",  figure: INSTRUCTIONS, name: "kedge, packet in, 1500", unit: Unit::Instructions, most: 4_200 },
    Budget { subject: "send-64",       figure: INSTRUCTIONS, name: "kedge, packet out, 64", unit: Unit::Instructions, most: 4_600 },
    Budget { subject: "send-1500",     figure: INSTRUCTIONS, name: "kedge, packet out, 1500", unit: Unit::Instructions, most: 4_600 },
    Budget { subject: "vsock-to-host", figure: INSTRUCTIONS, name: "kedge, vsock to host", unit: Unit::Instructions, most: 7_500 },
    Budget { subject: "vsock-to-guest", figure: INSTRUCTIONS, name: "kedge, vsock to guest", unit: Unit::Instructions, most: 9_400 },
    Budget { subject: "rng-64",        figure: INSTRUCTIONS, name: "kedge, 64 random bytes", unit: Unit::Instructions, most: 4_000 },
    Budget { subject: "binary",     figure: "bytes",         name: "kedge, stripped",         unit: Unit::Mb,      most: 4_000 },
    Budget { subject: "api-start",  figure: "cpu_us",        name: "API answers, CPU time",   unit: Unit::Ms,      most: 4_000 },
];

/// Figures by subject and name.
#[derive(Debug, Default)]
pub(super) struct Measured(BTreeMap<(String, String), u64>);

impl Measured {
    pub(super) fn set(&mut self, subject: &str, figure: &str, value: u64) {
        self.0.insert((subject.to_owned(), figure.to_owned()), value);
    }

    /// Takes the figures of a line `bench SUBJECT FIGURE=N ...`; other lines say nothing.
    pub(super) fn line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (Some("bench"), Some(subject)) = (words.next(), words.next()) else { return };
        for (figure, value) in words.filter_map(|word| word.split_once('=')) {
            if let Ok(value) = value.parse() {
                self.set(subject, figure, value);
            }
        }
    }

    /// Takes what the first of `subjects` costs more than the second; nothing, where it
    /// costs less.
    pub(super) fn difference(
        &mut self,
        name: &str,
        figure: &str,
        subjects: [&str; 2],
    ) -> anyhow::Result<()> {
        let [with, without] = subjects;
        let more = self.get(with, figure)?.saturating_sub(self.get(without, figure)?);
        self.set(name, figure, more);
        Ok(())
    }

    /// What starting and ending a program costs by itself.
    pub(super) fn floor(&self) -> anyhow::Result<String> {
        let cpu = shown(Unit::Ms, self.get("floor", "cpu_us")?);
        let wall = shown(Unit::Ms, self.get("floor", "wall_us")?);
        let peak = shown(Unit::MbOfKib, self.get("floor", "peak_kib")?);
        Ok(format!("of which a program that does nothing: {cpu} CPU, {wall} wall, {peak}"))
    }

    fn get(&self, subject: &str, figure: &str) -> anyhow::Result<u64> {
        let key = (subject.to_owned(), figure.to_owned());
        let value = self.0.get(&key).copied();
        value.with_context(|| format!("nothing was measured of {subject}'s {figure}"))
    }
}

impl Budget {
    /// What is measured, if it is this figure of it.
    pub(super) fn subject_of(&self, figure: &str) -> Option<&'static str> {
        (self.figure == figure).then_some(self.subject)
    }

    /// The figure beside its budget, and whether it is within.
    pub(super) fn compare(&self, measured: &Measured) -> anyhow::Result<(String, bool)> {
        let Self { subject, figure, name, unit, most } = *self;
        let value = measured.get(subject, figure)?;
        let within = thousandths(unit, value) <= most;
        let verdict = if within { "ok" } else { "OVER" };
        let text = format!(
            "{name:<24} {:>10}  at most {:>9}  {verdict}",
            shown(unit, value),
            in_unit(unit, most)
        );
        Ok((text, within))
    }
}

/// A figure in thousandths of its unit, rounded up so that rounding never hides an excess.
fn thousandths(unit: Unit, value: u64) -> u64 {
    match unit {
        Unit::Ms | Unit::Instructions => value,
        Unit::KbOfKib => value.saturating_mul(1024),
        Unit::MbOfKib => value.saturating_mul(1024).div_ceil(1000),
        Unit::Mb => value.div_ceil(1000),
    }
}

fn shown(unit: Unit, value: u64) -> String {
    in_unit(unit, thousandths(unit, value))
}

fn in_unit(unit: Unit, thousandths: u64) -> String {
    let word = match unit {
        Unit::Ms => "ms",
        Unit::KbOfKib => "kB",
        Unit::MbOfKib | Unit::Mb => "MB",
        Unit::Instructions => "k instr.",
    };
    format!("{}.{:03} {word}", thousandths / 1000, thousandths % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Measured {
        let mut measured = Measured::default();
        measured.line("bench null-guest cpu_us=4500 wall_us=10001 peak_kib=4300");
        measured.line("bench floor cpu_us=1500 wall_us=1700 peak_kib=1074");
        measured.line("[    1.0] something else=1");
        measured.set("binary", "bytes", 2_900_001);
        measured
    }

    fn budget(subject: &str, figure: &str) -> &'static Budget {
        let is_it = |budget: &&Budget| (budget.subject, budget.figure) == (subject, figure);
        BUDGETS.iter().find(is_it).unwrap()
    }

    #[test]
    fn a_figure_stands_beside_its_budget() {
        let (text, within) = budget("null-guest", "cpu_us").compare(&measured()).unwrap();
        assert_eq!(text, "null guest, CPU time       4.500 ms  at most  4.500 ms  ok");
        assert!(within);
    }

    #[test]
    fn a_figure_over_its_budget_says_so() {
        let (text, within) = budget("null-guest", "wall_us").compare(&measured()).unwrap();
        assert_eq!(text, "null guest, wall time     10.001 ms  at most 10.000 ms  OVER");
        assert!(!within);
    }

    #[test]
    fn a_difference_is_a_figure_of_its_own() {
        let mut measured = measured();
        measured.line("bench host-guest cpu_us=4400");
        measured.difference("profile", "cpu_us", ["null-guest", "host-guest"]).unwrap();
        let (text, within) = budget("profile", "cpu_us").compare(&measured).unwrap();
        assert_eq!(text, "of it for its profile      0.100 ms  at most  0.500 ms  ok");
        assert!(within);
        measured.difference("profile", "cpu_us", ["host-guest", "null-guest"]).unwrap();
        assert!(budget("profile", "cpu_us").compare(&measured).unwrap().0.contains(" 0.000 ms"));
        assert!(measured.difference("none", "cpu_us", ["none", "null-guest"]).is_err());
    }

    #[test]
    fn memory_is_in_millions_of_bytes() {
        let texts = [budget("null-guest", "peak_kib"), budget("binary", "bytes")]
            .map(|budget| budget.compare(&measured()).unwrap().0);
        let expected = [
            "null guest, peak memory    4.404 MB  at most  4.500 MB  ok",
            "kedge, stripped            2.901 MB  at most  4.000 MB  ok",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn the_floor_is_told() {
        let expected =
            "of which a program that does nothing: 1.500 ms CPU, 1.700 ms wall, 1.100 MB";
        assert_eq!(measured().floor().unwrap(), expected);
    }

    #[test]
    fn a_figure_that_was_not_measured_is_an_error() {
        let error = budget("null-guest", "cpu_us").compare(&Measured::default()).unwrap_err();
        assert_eq!(error.to_string(), "nothing was measured of null-guest's cpu_us");
    }
}
