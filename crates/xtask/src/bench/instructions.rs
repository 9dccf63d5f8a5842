//! What kedge itself does for a request or a packet, in instructions of its process on this machine, as callgrind counts
//! them: what the kernel does for it is not among them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

use super::budget::{BUDGETS, INSTRUCTIONS, Measured};
use crate::{build, paths, progress};

/// The program with the devices (`tests/instructions`), and what of it is counted.
const PROGRAM: &str = "instructions";
const COUNTED: &str = "*a_turn_of_the_loop*";
/// Requests in the shorter of two runs; the longer one has twice as many. What is not done for each is in both.
const REQUESTS: u64 = 200;

/// Counts, for each subject that has a budget of instructions.
///
/// # Errors
/// The program does not build, or a device does not do what it is asked for.
pub(super) fn measure(measured: &mut Measured) -> anyhow::Result<()> {
    let program = build()?;
    progress::step("count instructions", || {
        for subject in BUDGETS.iter().filter_map(|budget| budget.subject_of(INSTRUCTIONS)) {
            let [once, twice] =
                [REQUESTS, 2 * REQUESTS].map(|count| count_in(&program, subject, count));
            measured.set(subject, INSTRUCTIONS, (twice? - once?) / REQUESTS);
        }
        Ok(())
    })
}

/// Builds the program as releases are built, but for the names of its functions.
fn build() -> anyhow::Result<PathBuf> {
    let target = build::native_target()?;
    let mut cargo = build::cargo();
    cargo.args(["build", "--release", "--package", "kedge-instructions", "--target", &target]);
    cargo.arg("--target-dir").arg(paths::work().join("native"));
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "false");
    let built = progress::step("build the devices for this machine", || Ok(cargo.status()?))?;
    ensure!(built.success(), "the devices do not build");
    Ok(paths::work().join("native").join(target).join("release").join(PROGRAM))
}

/// The instructions of so many requests.
fn count_in(program: &Path, subject: &str, count: u64) -> anyhow::Result<u64> {
    let mut callgrind = Command::new("valgrind");
    callgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    callgrind.arg(format!("--toggle-collect={COUNTED}"));
    callgrind.arg(program).args([subject, &count.to_string()]).stdin(Stdio::null());
    let ended = callgrind.output().context("cannot run valgrind")?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{subject} cannot be counted:\n{said}");
    collected(&said).with_context(|| format!("valgrind counts nothing of {subject}:\n{said}"))
}

/// The number in `==1== Collected : 42`.
fn collected(said: &str) -> Option<u64> {
    said.rsplit_once("Collected :")?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callgrind_says_is_understood() {
        assert_eq!(
            collected("==7== Events    : Ir\n==7== Collected : 1250870\n==7==\n"),
            Some(1_250_870)
        );
        assert_eq!(collected("==7== Events    : Ir\n"), None);
    }
}
