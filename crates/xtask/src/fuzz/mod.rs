//! `cargo xtask fuzz`: feeds fuzz targets, says how many inputs each was given, and which of the lines it is meant for
//! they reached.
//!
//! Inputs that lead somewhere new are kept in the work folder and are where the next run begins. What is found is written down as a file to run again.

mod build;
mod coverage;
mod planted;
mod target;

use std::process::ExitCode;

use anyhow::{bail, ensure};

pub(crate) use build::{Flags, build};
pub(crate) use target::{TARGETS, Target, corpus, run};

use crate::{progress, setup};

/// `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long to feed each target
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
    /// Say in the end which lines of its part of the tree each target has reached
    #[arg(long)]
    coverage: bool,
    /// Plant a bug in what each target is for, and fail unless it is found
    #[arg(long, conflicts_with = "coverage")]
    planted: bool,
    /// The targets; all where none is given
    targets: Vec<String>,
}

/// Runs `cargo xtask fuzz`.
///
/// # Errors
/// Something was found, does not build, or is no target.
pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let targets = named(&args.targets)?;
    setup::ensure()?;
    if args.planted {
        return planted::find(&targets, args.seconds);
    }
    let programs = build(Flags::Guided)?;
    let mut found = Vec::new();
    for target in &targets {
        let what = format!("feed {} for {} s", target.name, args.seconds);
        let fed = progress::step(&what, || {
            run(target, &programs, &corpus(target), &for_seconds(args.seconds))
        })?;
        println!("{:<12} {}", target.name, fed.line());
        found.extend(fed.finding.map(|finding| (target.name, finding)));
    }
    if args.coverage {
        coverage::report(&targets)?;
    }
    for (name, finding) in &found {
        println!("\nFOUND by {name}:\n{finding}");
    }
    ensure!(found.is_empty(), "{} of {} targets found something", found.len(), targets.len());
    Ok(ExitCode::SUCCESS)
}

/// What tells libFuzzer to go on for so long.
fn for_seconds(seconds: u32) -> [String; 1] {
    [format!("-max_total_time={seconds}")]
}

/// The targets of these names, or all.
fn named(names: &[String]) -> anyhow::Result<Vec<&'static Target>> {
    if names.is_empty() {
        return Ok(TARGETS.iter().collect());
    }
    let find = |name: &String| TARGETS.iter().find(|target| target.name == name);
    if let Some(unknown) = names.iter().find(|name| find(name).is_none()) {
        let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        bail!("there is no fuzz target `{unknown}`; there are {}", known.join(", "));
    }
    Ok(names.iter().filter_map(find).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_a_program_and_has_its_part_of_the_tree() {
        let fuzz = crate::paths::workspace().join("tests/fuzz/src/bin");
        for target in TARGETS {
            assert!(fuzz.join(target.name).with_extension("rs").is_file(), "{}", target.name);
            let left_out = target.left_out.iter().map(|(part, _)| part);
            for part in target.parts.iter().chain(left_out) {
                assert!(crate::paths::workspace().join(part).exists(), "{part}");
            }
        }
        let programs = std::fs::read_dir(fuzz).unwrap().count();
        assert_eq!(programs, TARGETS.len());
    }

    #[test]
    fn every_bug_has_one_place() {
        for Target { planted, .. } in TARGETS {
            let text =
                std::fs::read_to_string(crate::paths::workspace().join(planted.file)).unwrap();
            assert_eq!(text.matches(planted.from).count(), 1, "{planted:?}");
        }
    }

    #[test]
    fn an_unknown_target_names_the_known_ones() {
        let error = named(&["floppy".to_owned()]).unwrap_err().to_string();
        assert!(
            error.starts_with("there is no fuzz target `floppy`; there are block, "),
            "{error}"
        );
    }
}
