//! Unit tests: what cargo runs, natively and as the arm64 build under user-mode emulation.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::Context;

use super::{libtest::Reader, tally::Tally};
use crate::{build, setup::Toolchain};

/// The longest any one test program may take, natively and emulated.
const SECONDS: u32 = 600;
/// Our programs for this machine only: emulating their tests shows nothing.
const NOT_EMULATED: [&str; 2] = ["kedge-xtask", "kedge-guest-tests"];
/// Property tests draw fewer cases where each is ten times slower.
const PROPTEST_CASES: &str = "32";

/// Everything that runs on this machine: unit tests, integration tests against the model, examples in the
/// documentation. Example programs are built.
pub(super) fn native(filter: Option<&str>, tally: &mut Tally) -> anyhow::Result<()> {
    let mut test = cargo_test(&build::native_target()?, "");
    test.arg("--workspace").args(build::WITH_MODEL);
    run("unit", with_filter(&mut test, filter), tally)
}

/// Unit tests of the arm64 build. Examples in the documentation are left to the native run.
pub(super) fn arm64(filter: Option<&str>, tally: &mut Tally) -> anyhow::Result<()> {
    let emulator = if env::consts::ARCH == "aarch64" { "" } else { " qemu-aarch64" };
    let toolchain = Toolchain::installed()?;
    let mut test = cargo_test(toolchain.target(), emulator);
    // The runner that is already set knows of no time limit.
    test.envs(toolchain.environment().into_iter().filter(|(name, _)| !name.ends_with("_RUNNER")));
    test.args(["--workspace", "--lib", "--bins", "--target", toolchain.target()]);
    for package in NOT_EMULATED {
        test.args(["--exclude", package]);
    }
    test.env("PROPTEST_CASES", PROPTEST_CASES);
    run("arm64", with_filter(&mut test, filter), tally)
}

/// `cargo test` that goes on after failures and stops each program of `target` that hangs.
fn cargo_test(target: &str, emulator: &str) -> Command {
    let runner = format!("timeout --foreground --kill-after=10 {SECONDS}{emulator}");
    let variable = format!("CARGO_TARGET_{}_RUNNER", target.to_uppercase().replace('-', "_"));
    let mut test = build::cargo();
    test.env("CARGO_TERM_COLOR", "never").env(variable, runner);
    test.args(["test", "--locked", "--no-fail-fast"]);
    test
}

fn with_filter<'a>(test: &'a mut Command, filter: Option<&str>) -> &'a mut Command {
    match filter {
        Some(filter) => test.args(["--", filter]),
        None => test,
    }
}

/// Runs cargo, shows each test as it ends and counts them.
fn run(name: &str, test: &mut Command, tally: &mut Tally) -> anyhow::Result<()> {
    // One pipe for both, so that what programs print stays in order with cargo's word on which program it is.
    let (output, input) = std::io::pipe()?;
    test.stderr(input.try_clone()?).stdout(input);
    let mut cargo = test.spawn().context("cannot run cargo")?;
    // It holds the other ends of the pipe, which would then never end.
    test.stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = Reader::new(name);
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        show_progress(&line);
        if let Some(test) = reader.line(&line) {
            println!("{name:<5} {} | test {} ... {}", test.program, test.name, test.outcome);
        }
    }
    let status = cargo.wait()?;
    let ended = (!status.success()).then(|| format!("cargo ended with {status}"));
    tally.add(reader.finish(ended.as_deref()));
    Ok(())
}

/// Building takes long enough that it should not be silent.
fn show_progress(line: &str) {
    if ["   Compiling ", "    Blocking "].iter().any(|what| line.starts_with(what)) {
        eprintln!("{line}");
    }
}
