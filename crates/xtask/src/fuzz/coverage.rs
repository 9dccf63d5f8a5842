//! Which lines of its part of the tree each fuzz target has reached with the inputs it has kept: rustc's counters, read
//! with LLVM's tools, which rustup has.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{
    build::{Flags, build},
    target::{Target, corpus, seeds},
};
use crate::{paths, process, setup};

/// How much of its part a target is to reach, in percent of the lines.
const WANTED: f64 = 85.0;

/// Prints, per target, how many of its lines were reached, and what was not.
///
/// # Errors
/// A target does not build or run, or LLVM's tools cannot be had.
pub(super) fn report(targets: &[&Target]) -> anyhow::Result<()> {
    let tools = setup::llvm_tools()?;
    let programs = build(Flags::Counted)?;
    for target in targets {
        let lines = reached(target, &programs, &tools)?;
        let (hit, all) = (lines.iter().map(|file| file.hit).sum::<u64>(), sum(&lines));
        let percent = percent(hit, all);
        let verdict = if percent >= WANTED { "ok" } else { "LESS THAN WANTED" };
        println!(
            "{:<12} {hit} of {all} lines, {percent:.1} % ({WANTED} %): {verdict}",
            target.name
        );
        for file in lines.iter().filter(|file| percent_of(file) < WANTED) {
            println!("    {:>5.1} % of {}", percent_of(file), file.path);
        }
        for (path, why) in target.left_out {
            println!("    not counted: {path}: {why}");
        }
    }
    Ok(())
}

/// A file, and how many of its lines were reached.
struct File {
    path: String,
    hit: u64,
    all: u64,
}

fn sum(files: &[File]) -> u64 {
    files.iter().map(|file| file.all).sum()
}

fn percent_of(file: &File) -> f64 {
    percent(file.hit, file.all)
}

fn percent(part: u64, whole: u64) -> f64 {
    let [part, whole] = [part, whole].map(|lines| u32::try_from(lines).map_or(f64::MAX, f64::from));
    100.0 * part / whole.max(1.0)
}

/// Runs what `target` has kept, and counts.
fn reached(target: &Target, programs: &Path, tools: &Path) -> anyhow::Result<Vec<File>> {
    let program = programs.join(target.name);
    let folder = paths::work().join("fuzz/profiles");
    std::fs::create_dir_all(&folder)?;
    let raw = folder.join(format!("{}.profraw", target.name));
    let mut run = Command::new(&program);
    run.env("LLVM_PROFILE_FILE", &raw).arg("-runs=0").args([corpus(target), seeds()?]);
    let ran = run.stdin(Stdio::null()).stderr(Stdio::null()).status();
    ensure!(ran.context("cannot run it")?.success(), "{} found something", target.name);
    let merged = raw.with_extension("profdata");
    let mut merge = Command::new(tools.join("llvm-profdata"));
    process::quiet(merge.args(["merge", "--sparse", "-o"]).args([&merged, &raw]))?;
    let mut export = Command::new(tools.join("llvm-cov"));
    export.args(["export", "--summary-only", "--instr-profile"]).args([&merged, &program]);
    let told: Value = serde_json::from_str(&process::output(&mut export)?)?;
    let files = told.pointer("/data/0/files").and_then(Value::as_array);
    Ok(files.into_iter().flatten().filter_map(|file| counted(file, target)).collect())
}

/// What LLVM tells of a file, where it is of the target's part. Tests and their tools are not.
fn counted(file: &Value, target: &Target) -> Option<File> {
    let path = PathBuf::from(file.get("filename")?.as_str()?);
    let path = path.strip_prefix(paths::workspace()).ok()?;
    let is_part = target.parts.iter().any(|part| path.starts_with(part));
    let is_part = is_part && !target.left_out.iter().any(|(part, _)| path.starts_with(part));
    let lines = |key: &str| file.pointer(&format!("/summary/lines/{key}"))?.as_u64();
    is_part.then_some(())?;
    let (hit, all) = (lines("covered")?, lines("count")?);
    Some(File { path: path.display().to_string(), hit, all })
}
