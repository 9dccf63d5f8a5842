//! `cargo xtask boot`: a Debian guest in kedge, from nothing. The only place that knows kedge's command line.

use std::{
    io::{IsTerminal, stderr, stdin, stdout},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{
    build,
    debian::kernels,
    host::{self, Guest, HostExit, HostJob, MachineArgs, Stdin},
    images, progress, setup,
};

/// What the guest's init prints when it is up.
const UP: &str = "GUEST-UP ";
/// How long a boot without a terminal may take in the emulated host.
const TIMEOUT: Duration = Duration::from_secs(300);

/// `cargo xtask boot`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    /// The guest's kernel [default: the host's own]
    #[arg(long, value_name = "KERNEL")]
    guest: Option<String>,
}

/// Runs `cargo xtask boot`.
///
/// # Errors
/// Something is missing and cannot be installed, built or fetched, or the guest does not come up.
pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    setup::ensure()?;
    let interactive = stdin().is_terminal() && stdout().is_terminal();
    let label = args.guest.as_ref().unwrap_or(&args.machine.kernel);
    let then = if interactive { "shell" } else { "poweroff" };
    if interactive {
        progress::note("Ctrl-A x ends the guest");
    }
    if setup::can_run_arm64_guests() {
        return here(label, then);
    }
    inside(args, label, then)
}

/// kedge's arguments for a guest that does `then` once it is up.
fn kedge_arguments(kernel: &str, initrd: &str, then: &str) -> Vec<String> {
    let cmdline = format!("console=ttyS0 kedge.then={then}");
    let words = ["run", "--kernel", kernel, "--initrd", initrd, "--cmdline", &cmdline];
    let machine = ["--cpus", "2", "--memory", "256M", "--rng"];
    words.into_iter().chain(machine).map(str::to_owned).collect()
}

/// Runs kedge on this machine.
fn here(label: &str, then: &str) -> anyhow::Result<ExitCode> {
    let kedge = build::kedge()?;
    let kernel = kernels::kernel(label, host::PageSize::K4)?;
    let initrd = images::initrd(&kernel)?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut command = Command::new(kedge);
    command.args(kedge_arguments(&text(&kernel.image()), &text(&initrd), then));
    if then == "shell" {
        let status = command.status().context("cannot start kedge")?;
        return Ok(status_code(status.code().and_then(|code| u8::try_from(code).ok())));
    }
    let ran =
        command.stdin(Stdio::null()).stderr(stderr()).output().context("cannot start kedge")?;
    let mut guest = Watched::default();
    String::from_utf8_lossy(&ran.stdout).lines().for_each(|line| guest.line(line));
    guest.result(ran.status.code().and_then(|code| u8::try_from(code).ok()))
}

/// Runs kedge in the emulated host.
fn inside(args: &Args, label: &str, then: &str) -> anyhow::Result<ExitCode> {
    let guest = Guest { label: label.to_owned(), page_size: host::PageSize::K4 };
    let mut files = vec![host::Overlay::copy("/kedge/bin/kedge", build::kedge()?)];
    files.extend(host::guest_files(&guest)?);
    let folder = format!("/kedge/guests/{label}");
    let mut command = vec!["kedge".to_owned()];
    command.extend(kedge_arguments(
        &format!("{folder}/Image"),
        &format!("{folder}/initrd.gz"),
        then,
    ));
    let mut job = HostJob::new(command, files);
    if then == "shell" {
        job.stdin = Stdin::Terminal;
        job.timeout = host::NO_TIMEOUT;
    } else {
        job.timeout = TIMEOUT;
    }
    let config = args.machine.config();
    progress::note(format_args!("starting the emulated arm64 host (kernel {})", config.kernel));
    let mut guest = Watched::default();
    let ended = host::run(&config, &job, &mut |line| guest.line(line))?;
    match ended {
        HostExit::Status(status) if then == "shell" => Ok(ExitCode::from(status)),
        HostExit::Status(status) => guest.result(Some(status)),
        HostExit::TimedOut => bail!("the guest was not done after {} s", TIMEOUT.as_secs()),
        HostExit::Died(_) => bail!("the emulated host died under kedge; its last lines are above"),
    }
}

fn status_code(status: Option<u8>) -> ExitCode {
    status.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// A guest's console without a terminal: every line is shown, and the one that counts noticed.
#[derive(Default)]
struct Watched {
    came_up: bool,
}

impl Watched {
    fn line(&mut self, line: &str) {
        println!("{line}");
        self.came_up |= line.contains(UP);
    }

    /// How kedge ended.
    ///
    /// # Errors
    /// The guest did not come up.
    fn result(&self, status: Option<u8>) -> anyhow::Result<ExitCode> {
        match status {
            Some(status) if self.came_up => Ok(ExitCode::from(status)),
            Some(status) => {
                bail!("the guest's init did not come up; kedge ended with status {status}")
            }
            None => bail!("kedge was killed by a signal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_never_came_up_is_a_failure_whatever_kedge_says() {
        assert!(Watched::default().result(Some(0)).is_err());
    }

    #[test]
    fn a_guest_that_came_up_ends_with_kedges_status() {
        let mut guest = Watched::default();
        guest.line("GUEST-UP 6.12.1 2.1 1.0");
        assert!(guest.result(Some(0)).is_ok());
    }
}
