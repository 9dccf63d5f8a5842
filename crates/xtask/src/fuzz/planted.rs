//! Whether fuzz targets find what is to be found: a bug is planted for each in a copy of the tree.

use std::{collections::BTreeMap, fs, io, path::Path, process::ExitCode};

use anyhow::{Context, ensure};

use super::{
    build::{Flags, build_in},
    for_seconds,
    target::{Target, run},
};
use crate::{paths, progress};

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

/// Plants a bug for each of `targets` and feeds it, for so many seconds at most, until it is found: from what every
/// clone begins with, and nothing that was kept.
///
/// # Errors
/// One is not found.
pub(super) fn find(targets: &[&Target], seconds: u32) -> anyhow::Result<ExitCode> {
    let mut missed = Vec::new();
    let tree = paths::work().join("fuzz/planted");
    let kept = paths::work().join("fuzz/corpus-planted");
    for round in rounds(targets) {
        copy(&tree)?;
        round.iter().try_for_each(|target| plant(target, &tree))?;
        let programs = build_in(&tree.join("tests/fuzz"), Flags::Guided)?;
        for target in round {
            if kept.exists() {
                fs::remove_dir_all(&kept)?;
            }
            let what = format!("feed {} with a bug in {}", target.name, target.planted.file);
            let fed =
                progress::step(&what, || run(target, &programs, &kept, &for_seconds(seconds)))?;
            println!("{:<12} {}", target.name, fed.line());
            if !fed.finding.is_some_and(|finding| finding.contains(target.planted.file)) {
                missed.push(target.name);
            }
        }
    }
    // What is built next has no bug.
    copy(&tree)?;
    ensure!(missed.is_empty(), "planted bugs were not found by {}", missed.join(", "));
    Ok(ExitCode::SUCCESS)
}

/// `targets` by whose bugs are planted at once: the programs are built as often, and that takes longer than to feed them.
fn rounds<'t>(targets: &[&'t Target]) -> Vec<Vec<&'t Target>> {
    let mut rounds = BTreeMap::<_, Vec<_>>::new();
    for &target in targets {
        rounds.entry(target.planted.round).or_default().push(target);
    }
    rounds.into_values().collect()
}

/// Makes `tree` a copy of this clone's, as far as it is needed.
fn copy(tree: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(tree.join("tests"))?;
    for name in NEEDED {
        equal(&paths::workspace().join(name), &tree.join(name))
            .with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(())
}

/// Makes `to` what `from` is, a file or a folder. What is so already is not touched: it need not be built again.
fn equal(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        let bytes = fs::read(from)?;
        return match fs::read(to) {
            Ok(there) if there == bytes => Ok(()),
            _ => fs::write(to, bytes),
        };
    }
    fs::create_dir_all(to)?;
    for there in fs::read_dir(to)? {
        let there = there?;
        let is_dir = there.file_type()?.is_dir();
        match from.join(there.file_name()).exists() {
            true => {}
            false if is_dir => fs::remove_dir_all(there.path())?,
            false => fs::remove_file(there.path())?,
        }
    }
    fs::read_dir(from)?.try_for_each(|here| {
        let here = here?;
        equal(&here.path(), &to.join(here.file_name()))
    })
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

#[cfg(test)]
mod tests {
    use super::super::TARGETS;
    use super::*;

    #[test]
    fn a_copy_is_made_equal_and_what_is_equal_is_not_touched() {
        let folder = tempfile::TempDir::new().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let write = |path: &Path, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(&from.join("src/same.rs"), "a");
        write(&from.join("src/changed.rs"), "b");
        equal(&from, &to).unwrap();
        let time = || fs::metadata(to.join("src/same.rs")).unwrap().modified().unwrap();
        let before = time();
        write(&to.join("src/changed.rs"), "a bug");
        write(&to.join("old/one.rs"), "c");
        equal(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("src/changed.rs")).unwrap(), "b");
        assert!(!to.join("old").exists());
        assert_eq!(time(), before);
    }

    #[test]
    fn every_bug_is_planted_once() {
        let all: Vec<_> = TARGETS.iter().collect();
        let rounds = rounds(&all);
        let mut planted: Vec<_> = rounds.iter().flatten().map(|target| target.name).collect();
        planted.sort_unstable();
        let mut named: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        named.sort_unstable();
        assert_eq!(planted, named);
        assert!(rounds.len() < TARGETS.len(), "each is built for");
    }
}
