//! The steps that are one call of cargo each.

use std::process::{Command, Stdio};

use anyhow::Context;

use super::Outcome;
use crate::{
    build::{WITH_MODEL, cargo},
    setup::Toolchain,
};

/// The formatting is rustfmt's.
pub(super) fn fmt() -> anyhow::Result<Outcome> {
    run(cargo().args(["fmt", "--all", "--check", "--", "--color", "never"]))
}

/// Clippy has nothing to say about this machine's build.
pub(super) fn clippy() -> anyhow::Result<Outcome> {
    run(cargo().args(CLIPPY).args(WITH_MODEL).args(DENY_WARNINGS))
}

/// Clippy has nothing to say about the build that is shipped.
pub(super) fn clippy_arm64() -> anyhow::Result<Outcome> {
    run(for_arm64(cargo().args(CLIPPY))?.args(DENY_WARNINGS))
}

/// The documentation builds without a warning.
pub(super) fn doc() -> anyhow::Result<Outcome> {
    run(cargo().args(DOC).arg("--workspace").env("RUSTDOCFLAGS", "-D warnings"))
}

/// So does that of the code which exists on arm64 only.
pub(super) fn doc_arm64() -> anyhow::Result<Outcome> {
    let packages = ON_ARM64_ONLY.iter().flat_map(|package| ["--package", package]);
    let mut doc = cargo();
    doc.args(DOC).args(packages).env("RUSTDOCFLAGS", "-D warnings");
    run(for_arm64(&mut doc)?)
}

const CLIPPY: [&str; 6] =
    ["clippy", "--workspace", "--all-targets", "--keep-going", "--locked", "--quiet"];
const DENY_WARNINGS: [&str; 3] = ["--", "-D", "warnings"];
const DOC: [&str; 5] = ["doc", "--no-deps", "--keep-going", "--locked", "--quiet"];
/// Where KVM is named, and who looks at it: what else knows the architecture has the same documentation on all.
const ON_ARM64_ONLY: [&str; 2] = ["kedge-hv-kvm", "kedge-conformance"];

/// The same for the build that is shipped.
fn for_arm64(command: &mut Command) -> anyhow::Result<&mut Command> {
    let toolchain = Toolchain::installed()?;
    Ok(command.envs(toolchain.environment()).args(["--target", toolchain.target()]))
}

/// Runs a tool; all it printed is shown if it fails.
pub(super) fn run(command: &mut Command) -> anyhow::Result<Outcome> {
    let program = command.get_program().to_owned();
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if done.status.success() {
        return Ok(Outcome::Clean);
    }
    let mut said = String::from_utf8_lossy(&done.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&done.stderr));
    Ok(Outcome::Wrong(format!("{said}\n({})", done.status)))
}
