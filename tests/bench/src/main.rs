//! `bench LABEL RUNS COMMAND...`: what a command costs from fork to exit, the median of so many runs.
//!
//! `bench snapshots RUNS KERNEL INITRD`: see [`snapshots`]; `bench devices` likewise: see [`devices`].
//! `bench api-start RUNS KEDGE`: see [`start`].
//!
//! One more run than asked for goes first and is dropped: it finds cold caches. Nothing is printed before the last run
//! is over, since under `-icount` the console's work would be counted. The one line printed is
//! `bench LABEL cpu_us=N wall_us=N peak_kib=N faults=N`.

mod api;
mod child;
mod devices;
mod snapshots;
mod start;

use std::{
    ffi::{OsStr, OsString},
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};

fn main() -> ExitCode {
    match measure(std::env::args_os().skip(1).collect()) {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(words: Vec<OsString>) -> anyhow::Result<Vec<String>> {
    let mut words = words.into_iter();
    let (Some(label), Some(runs), Some(program)) = (words.next(), words.next(), words.next())
    else {
        bail!("usage: bench LABEL RUNS COMMAND..., or bench snapshots|devices RUNS KERNEL INITRD");
    };
    let runs: usize = runs.to_string_lossy().parse().context("RUNS is not a number")?;
    ensure!(runs > 0, "RUNS is 0: there is no median of nothing");
    let arguments: Vec<_> = words.collect();
    match (label.to_str(), arguments.as_slice()) {
        (Some("snapshots"), [initrd]) => {
            snapshots::measure(runs, program.as_ref(), initrd.as_ref())
        }
        (Some("api-start"), []) => start::measure(runs, &program),
        (Some("devices"), [initrd]) => devices::measure(program.as_ref(), initrd.as_ref()),
        _ => Ok(vec![command(&label, runs, &program, &arguments)?]),
    }
}

/// Measures a command, so many times and once before.
fn command(
    label: &OsStr,
    runs: usize,
    program: &OsStr,
    arguments: &[OsString],
) -> anyhow::Result<String> {
    let mut costs = Vec::with_capacity(runs + 1);
    for _ in 0..=runs {
        costs.push(child::run(program, arguments)?);
    }
    let costs = &costs[1..];
    Ok(format!(
        "bench {} cpu_us={} wall_us={} peak_kib={} faults={}",
        label.display(),
        median(costs, |cost| cost.cpu.as_micros()),
        median(costs, |cost| cost.wall.as_micros()),
        median(costs, |cost| u128::from(cost.peak_kib)),
        median(costs, |cost| u128::from(cost.faults)),
    ))
}

/// The middle of these figures in order; of two, the upper.
fn median<T>(measured: &[T], figure: impl Fn(&T) -> u128) -> u128 {
    let mut figures: Vec<_> = measured.iter().map(figure).collect();
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::child::Cost;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_median_is_no_average() {
        let costs = [1, 900, 2].map(|peak_kib| Cost {
            cpu: Duration::ZERO,
            wall: Duration::ZERO,
            peak_kib,
            faults: 0,
        });
        assert_eq!(median(&costs, |cost| u128::from(cost.peak_kib)), 2);
    }

    #[test]
    fn a_command_is_measured() {
        let line = measure(words("floor 3 true")).unwrap();
        let names: Vec<_> = line[0].split(' ').filter_map(|word| word.split('=').next()).collect();
        assert_eq!(names, ["bench", "floor", "cpu_us", "wall_us", "peak_kib", "faults"]);
    }

    #[test]
    fn a_command_that_fails_is_no_figure() {
        let error = measure(words("floor 3 false")).unwrap_err();
        assert_eq!(error.to_string(), "`false` ended with exit status: 1");
    }

    #[test]
    fn a_command_that_is_not_there_is_named() {
        let error = measure(words("floor 3 no-such-program")).unwrap_err();
        assert_eq!(error.to_string(), "cannot start `no-such-program`");
    }

    #[test]
    fn no_runs_are_refused() {
        assert!(measure(words("floor 0 true")).is_err());
        assert!(measure(words("floor")).is_err());
    }
}
