//! `cargo xtask boot`: a Debian guest in kedge, from nothing. The only place that knows kedge's command line.

use std::{
    io::{BufRead, BufReader, IsTerminal, stdin, stdout},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{
    build,
    debian::kernels,
    host::{self, Guest, HostExit, HostJob, MachineArgs, Overlay, PageSize, Stdin},
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

/// Runs kedge, `$0`, with the default profile or, on a kernel that cannot honour it, with the one that kedge names. A
/// dry run that writes a device tree builds the machine, and judges the profile before it opens anything.
const ON_ANY_KERNEL: &str = r#"
profile=$("$0" "$@" --dry-run --dump-dtb /dev/null 2>&1 >/dev/null | sed -n 's/.*`--guest-abi \([^`]*\)`.*/\1/p')
if [ -n "$profile" ]; then
    echo "this kernel cannot honour the default profile: the guest gets $profile"
    set -- "$@" --guest-abi "$profile"
fi
exec "$0" "$@"
"#;

/// What the guest does once it is up: a word of its init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Shell,
    PowerOff,
}

/// Runs `cargo xtask boot`.
///
/// # Errors
/// Something is missing and cannot be installed, built or fetched, or the guest does not come up.
pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    setup::ensure()?;
    let kedge = build::kedge()?;
    let label = args.guest.as_ref().unwrap_or(&args.machine.kernel);
    let on_terminal = stdin().is_terminal() && stdout().is_terminal();
    let then = if on_terminal { Then::Shell } else { Then::PowerOff };
    if then == Then::Shell {
        progress::note("Ctrl-A x ends the guest");
    }
    if setup::can_run_arm64_guests() {
        return here(&kedge, label, then);
    }
    inside(args, kedge, label, then)
}

/// kedge's arguments for a guest that does `then` once it is up.
fn kedge_arguments(kernel: &str, initrd: &str, then: Then) -> Vec<String> {
    let cmdline = match then {
        Then::Shell => "console=ttyS0 kedge.then=shell",
        Then::PowerOff => "console=ttyS0 kedge.then=poweroff",
    };
    let words = ["run", "--kernel", kernel, "--initrd", initrd, "--cmdline", cmdline];
    let machine = ["--cpus", "2", "--memory", "256M", "--rng"];
    words.into_iter().chain(machine).map(str::to_owned).collect()
}

/// Runs kedge on this machine.
fn here(kedge: &Path, label: &str, then: Then) -> anyhow::Result<ExitCode> {
    let kernel = kernels::kernel(label, PageSize::K4)?;
    let initrd = images::initrd(&kernel)?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut command = Command::new("sh");
    command.args(["-c", ON_ANY_KERNEL]).arg(kedge);
    command.args(kedge_arguments(&text(&kernel.image()), &text(&initrd), then));
    let mut guest = Watched::default();
    if then == Then::PowerOff {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
    }
    let mut running = command.spawn().context("cannot start kedge")?;
    if let Some(console) = running.stdout.take() {
        for line in BufReader::new(console).split(b'\n') {
            guest.line(String::from_utf8_lossy(&line?).trim_end());
        }
    }
    let status = running.wait()?.code().and_then(|code| u8::try_from(code).ok());
    guest.result(status.context("kedge was killed by a signal")?, then)
}

/// Runs kedge in the emulated host.
fn inside(args: &Args, kedge: PathBuf, label: &str, then: Then) -> anyhow::Result<ExitCode> {
    let guest = Guest { label: label.to_owned(), page_size: PageSize::K4 };
    let mut files = vec![Overlay::copy("/kedge/bin/kedge", kedge)];
    files.extend(host::guest_files(&guest)?);
    let file = |name: &str| format!("/kedge/guests/{label}/{name}");
    let mut command = ["sh", "-c", ON_ANY_KERNEL, "kedge"].map(str::to_owned).to_vec();
    command.extend(kedge_arguments(&file("Image"), &file("initrd.gz"), then));
    let mut job = HostJob::new(command, files);
    (job.stdin, job.timeout) = match then {
        Then::Shell => (Stdin::Terminal, host::NO_TIMEOUT),
        Then::PowerOff => (Stdin::Nothing, TIMEOUT),
    };
    let config = args.machine.config();
    progress::note(format_args!("starting the emulated arm64 host (kernel {})", config.kernel));
    let mut guest = Watched::default();
    match host::run(&config, &job, &mut |line| guest.line(line))? {
        HostExit::Status(status) => guest.result(status, then),
        HostExit::TimedOut => bail!("the guest was not done after {} s", TIMEOUT.as_secs()),
        HostExit::Silent(_) | HostExit::Died(_) => {
            bail!("the emulated host died under kedge; its last lines are above")
        }
    }
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

    /// What kedge's exit status means for the command.
    ///
    /// # Errors
    /// The guest did not come up, as far as can be told: on a terminal the user has seen it.
    fn result(&self, status: u8, then: Then) -> anyhow::Result<ExitCode> {
        if then == Then::PowerOff && !self.came_up {
            bail!("the guest's init did not come up; kedge ended with status {status}");
        }
        Ok(ExitCode::from(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_never_came_up_is_a_failure_whatever_kedge_says() {
        assert!(Watched::default().result(0, Then::PowerOff).is_err());
    }

    #[test]
    fn a_guest_that_came_up_ends_with_kedges_status() {
        let mut guest = Watched::default();
        guest.line("GUEST-UP 6.12.1 2.1 1.0");
        assert_eq!(guest.result(3, Then::PowerOff).unwrap(), ExitCode::from(3));
    }

    #[test]
    fn the_guests_init_is_told_what_to_do() {
        let words = kedge_arguments("Image", "initrd.gz", Then::Shell).join(" ");
        assert!(words.contains("--cmdline console=ttyS0 kedge.then=shell --cpus 2"));
    }
}
