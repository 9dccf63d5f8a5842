//! How fuzz targets are built: a workspace of its own, with the compiler's help for whoever feeds them.

use std::path::PathBuf;

use anyhow::ensure;

use crate::{build, paths, progress};

/// What the compiler adds to the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flags {
    /// Counters that guide libFuzzer to what it has not reached.
    Guided,
    /// The same for targets that are fed for a moment: what they cost is their building.
    GuidedBriefly,
    /// Counters of lines, for a report.
    Counted,
}

impl Flags {
    const fn name(self) -> &'static str {
        match self {
            Self::Guided | Self::GuidedBriefly => "guided",
            Self::Counted => "counted",
        }
    }

    /// Cargo's profile, after which it names a folder.
    const fn profile(self) -> &'static str {
        match self {
            Self::GuidedBriefly => "brief",
            Self::Guided | Self::Counted => "release",
        }
    }

    /// LLVM's coverage for sanitizers (clang's documentation, SanitizerCoverage), as libFuzzer wants it; or rustc's own.
    const fn rustc(self) -> &'static [&'static str] {
        match self {
            Self::Guided | Self::GuidedBriefly => &[
                "-Cpasses=sancov-module",
                "-Cllvm-args=-sanitizer-coverage-level=4",
                "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
                "-Cllvm-args=-sanitizer-coverage-pc-table",
                "-Cllvm-args=-sanitizer-coverage-trace-compares",
                "--cfg=fuzzing",
            ],
            Self::Counted => &["-Cinstrument-coverage", "--cfg=fuzzing"],
        }
    }
}

/// Builds all targets of this clone; the folder with their programs.
///
/// # Errors
/// They do not build.
pub(crate) fn build(flags: Flags) -> anyhow::Result<PathBuf> {
    build_in(&paths::workspace().join("tests/fuzz"), flags)
}

/// Builds all targets of the tree that has this folder with them.
///
/// # Errors
/// They do not build.
pub(super) fn build_in(folder: &std::path::Path, flags: Flags) -> anyhow::Result<PathBuf> {
    let target = build::native_target()?;
    let into = paths::work().join("fuzz").join(flags.name());
    let mut cargo = build::cargo();
    // Its lock follows the crates of ours, whose dependencies change more often than it is built. Flags for a target
    // that is named are not for build scripts and macros.
    cargo.current_dir(folder).args(["build", "--profile", flags.profile(), "--bins"]);
    cargo.args(["--target", &target, "--target-dir"]).arg(&into);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.rustc().join("\x1f"));
    let built = progress::step("build the fuzz targets", || Ok(cargo.status()?))?;
    ensure!(built.success(), "the fuzz targets do not build");
    Ok(into.join(target).join(flags.profile()))
}
