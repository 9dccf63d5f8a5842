//! The kedge program, as a shell sees it.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// What a run of the program left: its status, then what it printed, then what
/// it complained about.
pub(crate) fn kedge(words: &[&str]) -> String {
    run("kedge", words)
}

/// The same, called `name`.
pub(crate) fn run(name: &str, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kedge"));
    let output =
        command.arg0(name).args(words).stdin(Stdio::null()).output().expect("the program starts");
    format!(
        "{}\n{}{}",
        output.status.code().expect("no signal ends it"),
        String::from_utf8(output.stdout).expect("text"),
        String::from_utf8(output.stderr).expect("text")
    )
}
