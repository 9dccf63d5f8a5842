//! `cargo xtask setup`: installs what the other commands need and this machine lacks.

mod packages;
mod rust;

pub(crate) use packages::can_run_arm64_guests;
pub(crate) use rust::{Toolchain, llvm_tools};

use std::process::ExitCode;

use crate::progress;

/// `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs `cargo xtask setup`.
///
/// # Errors
/// Something could not be installed; the error says what to do.
pub(crate) fn main(_args: &Args) -> anyhow::Result<ExitCode> {
    ensure()?;
    progress::note("everything is installed");
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing; looks at a few files and no more if nothing is.
///
/// # Errors
/// Something could not be installed; the error says what to do.
pub(crate) fn ensure() -> anyhow::Result<()> {
    let toolchain = rust::wanted();
    packages::install(&toolchain)?;
    rust::install(&toolchain)
}
