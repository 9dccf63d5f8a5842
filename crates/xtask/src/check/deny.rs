//! What the dependencies are allowed to be: `cargo deny` with `deny.toml`.
//!
//! Advisories are left out: they need a network.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Outcome, cargo::run};
use crate::{build::cargo, paths, process};

const VERSION: &str = "0.20.2";
const CHECKS: [&str; 3] = ["bans", "licenses", "sources"];

/// The step of `cargo xtask check`.
pub(super) fn check() -> anyhow::Result<Outcome> {
    let deny = match process::find("cargo-deny") {
        Some(deny) => deny,
        None => built_once()?,
    };
    run(Command::new(deny)
        .current_dir(paths::workspace())
        .args(["--log-level", "warn", "check"])
        .args(CHECKS))
}

/// Our own cargo-deny, built once per machine.
fn built_once() -> anyhow::Result<PathBuf> {
    let root = paths::cache()?.join("tools").join(format!("cargo-deny-{VERSION}"));
    let root = paths::item(root, |root| {
        eprintln!("building cargo-deny {VERSION}, once for this machine: some minutes");
        process::quiet(&mut install(root))
    })?;
    Ok(root.join("bin/cargo-deny"))
}

fn install(root: &Path) -> Command {
    let mut install = cargo();
    install
        .args(["install", "--quiet", "--locked", "cargo-deny", "--version", VERSION, "--root"])
        .arg(root)
        // It runs for a second or two: what it costs is its building.
        .arg("--debug");
    // Nobody debugs it.
    install.env("CARGO_PROFILE_DEV_DEBUG", "false");
    // Or it would be built in this clone and stay there.
    install.env_remove("CARGO_TARGET_DIR");
    install
}
