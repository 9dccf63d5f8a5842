//! Running programs: an error says which one failed and the last lines it printed.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

const LINES_SHOWN: usize = 15;

/// Runs `command` in silence.
///
/// # Errors
/// It cannot be started, or its status is not 0; what it printed is in the error.
pub(crate) fn quiet(command: &mut Command) -> anyhow::Result<()> {
    output(command).map(drop)
}

/// What `command` prints on standard output.
///
/// # Errors
/// It cannot be started, or its status is not 0; what it printed is in the error.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    command.stdin(Stdio::null());
    let done = command.output().with_context(|| cannot_start(command))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(text);
    }
    let all = format!("{text}{}", String::from_utf8_lossy(&done.stderr));
    let lines: Vec<&str> = all.lines().filter(|line| !line.trim().is_empty()).collect();
    let shown = lines.len().saturating_sub(LINES_SHOWN);
    let tail: Vec<String> = lines.iter().skip(shown).map(|line| format!("  {line}")).collect();
    bail!("`{}` ended with {}:\n{}", line(command), done.status, tail.join("\n"))
}

/// The program called `name`, where `PATH` or the folders of system programs hold it.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // A user's PATH often lacks these on Debian.
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|program| {
        fs::metadata(program)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", command.get_program().to_string_lossy())
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
