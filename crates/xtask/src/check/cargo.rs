//! The steps that are one call of cargo each.

use std::process::{Command, Stdio};

use anyhow::Context;

use super::Outcome;
use crate::paths;

/// The formatting is rustfmt's.
pub(super) fn fmt() -> anyhow::Result<Outcome> {
    run(cargo().args(["fmt", "--all", "--check", "--", "--color", "never"]))
}

/// Clippy has nothing to say about this machine's build.
pub(super) fn clippy() -> anyhow::Result<Outcome> {
    run(cargo().args(CLIPPY).args(DENY_WARNINGS))
}

/// Clippy has nothing to say about the build that is shipped.
pub(super) fn clippy_arm64() -> anyhow::Result<Outcome> {
    run(cargo().args(CLIPPY).args(["--target", ARM64]).args(DENY_WARNINGS))
}

/// The documentation builds without a warning.
pub(super) fn doc() -> anyhow::Result<Outcome> {
    run(cargo().args(DOC).env("RUSTDOCFLAGS", "-D warnings"))
}

/// So does that of the code which exists on arm64 only.
pub(super) fn doc_arm64() -> anyhow::Result<Outcome> {
    run(cargo().args(DOC).args(["--target", ARM64]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// What is shipped: a static binary.
pub(super) const ARM64: &str = "aarch64-unknown-linux-musl";
const CLIPPY: [&str; 5] = ["clippy", "--workspace", "--all-targets", "--locked", "--quiet"];
const DENY_WARNINGS: [&str; 3] = ["--", "-D", "warnings"];
const DOC: [&str; 5] = ["doc", "--workspace", "--no-deps", "--locked", "--quiet"];

/// The cargo that runs us, for the whole workspace.
pub(super) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::workspace());
    cargo
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
