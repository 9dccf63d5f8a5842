//! The house lints: rules of style that neither rustc nor clippy knows.
//!
//! [`LINTS`] is the list; each looks at one file and says on which line what is wrong. A lint that could be had from
//! clippy is not here but in the workspace's manifest.

mod attributes;
mod errors;
mod layout;
mod mmap;
mod output;
mod places;
mod process_state;
mod promises;
mod signatures;
mod source;
mod statics;
mod unsafety;

use std::{
    fmt::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use source::Source;

use super::Outcome;
use crate::paths;

/// One rule.
struct Lint {
    /// How it is called in the output.
    name: &'static str,
    /// Finds what breaks it in a file.
    find: fn(&Source) -> Vec<Finding>,
}

/// What is wrong, and where in the file.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// From 1.
    line: usize,
    /// What is wrong; the cure, where it is not obvious.
    what: String,
}

impl Finding {
    fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

const LINTS: &[Lint] = &[
    Lint { name: "module-docs", find: layout::module_docs },
    Lint { name: "file-length", find: layout::file_length },
    Lint { name: "file-name", find: layout::file_name },
    Lint { name: "safety-comment", find: unsafety::safety_comment },
    Lint { name: "unsafe-opt-in", find: unsafety::opt_in },
    Lint { name: "static-state", find: statics::mutable },
    Lint { name: "ignored-test", find: attributes::ignored_test },
    Lint { name: "error-text", find: errors::text },
    Lint { name: "boolean-parameter", find: signatures::boolean_parameter },
    Lint { name: "silent-library", find: output::silent_library },
    Lint { name: "process-state", find: process_state::untouched },
    Lint { name: "panic", find: output::panic },
    Lint { name: "mmap-owner", find: mmap::owner },
    Lint { name: "open-promise", find: promises::without_issue },
    Lint { name: "registry-host", find: places::registry_host },
    Lint { name: "machine-path", find: places::machine_path },
];

/// The step of `cargo xtask check`.
pub(super) fn check() -> anyhow::Result<Outcome> {
    let mut text = String::new();
    let root = paths::workspace();
    for path in files(&root)? {
        // A file that was deleted but not yet from the index, a symbolic link to nowhere, or not text.
        let Ok(content) = std::fs::read_to_string(root.join(&path)) else { continue };
        let source = Source::new(&path, content);
        for (lint, finding) in findings(&source) {
            let Finding { line, what } = finding;
            writeln!(text, "{path}:{line}: {what} [{lint}]")?;
        }
    }
    Ok(if text.is_empty() { Outcome::Clean } else { Outcome::Wrong(text) })
}

fn findings(source: &Source) -> impl Iterator<Item = (&'static str, Finding)> {
    LINTS
        .iter()
        .flat_map(move |lint| (lint.find)(source).into_iter().map(|found| (lint.name, found)))
}

/// Every file that is in the repository or about to be, by its path from the root.
fn files(root: &Path) -> anyhow::Result<Vec<String>> {
    let done = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .context("cannot run git")?;
    if !done.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    let list = String::from_utf8(done.stdout).context("a file's name is not UTF-8")?;
    Ok(list.split_terminator('\0').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lints_share_a_name() {
        let mut names: Vec<_> = LINTS.iter().map(|lint| lint.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), LINTS.len());
    }

    #[test]
    fn a_clean_file_has_no_findings() {
        let text = "//! A clock.\n\n/// Its rate in Hz.\npub const RATE: u32 = 1;\n";
        let found: Vec<_> = findings(&Source::new("devices/src/clock.rs", text)).collect();
        assert_eq!(found, []);
    }

    #[test]
    fn every_lint_that_a_file_breaks_is_named() {
        let text = "static mut TICKS: u32 = 0;\n";
        let found: Vec<_> =
            findings(&Source::new("devices/src/util.rs", text)).map(|f| f.0).collect();
        assert_eq!(found, ["module-docs", "file-name", "static-state"]);
    }
}
