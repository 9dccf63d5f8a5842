//! Whether fuzz targets find what is to be found: a bug is planted for each in a copy of the tree.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, ensure};

use super::{
    build::{Flags, build_in},
    for_seconds,
    target::{Target, run},
};
use crate::{paths, process, progress};

/// What of the tree fuzz targets are built from.
/// Its workspace names crates that are not.
const NEEDED: [&str; 12] = [
    "Cargo.toml",
    "Cargo.lock",
    "arch",
    "crates",
    "devices",
    "firmware",
    "resources",
    "tests/bench",
    "tests/conformance",
    "tests/fuzz",
    "tests/guest",
    "vmm",
];

/// Plants a bug for each of `targets` and feeds it, for so many seconds at most, until it is found.
///
/// # Errors
/// One is not found.
pub(super) fn find(targets: &[&Target], seconds: u32) -> anyhow::Result<ExitCode> {
    let mut missed = Vec::new();
    for target in targets {
        let tree = paths::work().join("fuzz/planted");
        copy(&tree)?;
        plant(target, &tree)?;
        let programs = build_in(&tree.join("tests/fuzz"), Flags::Guided)?;
        let what = format!("feed {} with a bug in {}", target.name, target.planted.file);
        let fed = progress::step(&what, || run(target, &programs, &for_seconds(seconds)))?;
        println!("{:<12} {}", target.name, fed.line());
        if fed.finding.is_none() {
            missed.push(target.name);
        }
    }
    ensure!(missed.is_empty(), "planted bugs were not found by {}", missed.join(", "));
    Ok(ExitCode::SUCCESS)
}

/// Makes `tree` a copy of this clone's, as far as it is needed; unchanged files stay as old as they are.
fn copy(tree: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(tree.join("tests"))?;
    for name in NEEDED {
        let (from, to) = (paths::workspace().join(name), tree.join(name));
        if to.is_dir() {
            fs::remove_dir_all(&to)?;
        }
        let mut copy = Command::new("cp");
        copy.args(["--recursive", "--preserve=timestamps", "--no-target-directory"]);
        process::quiet(copy.arg(from).arg(to))?;
    }
    Ok(())
}

fn plant(target: &Target, tree: &Path) -> anyhow::Result<()> {
    let bug = &target.planted;
    let path = tree.join(bug.file);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", bug.file))?;
    let places = text.matches(bug.from).count();
    ensure!(places == 1, "`{}` stands {places} times in {}, not once", bug.from, bug.file);
    fs::write(&path, text.replace(bug.from, bug.to))?;
    Ok(())
}
