//! `kedge stop`.

use std::io::{self, Write};
use std::time::Duration;

use clap::{ArgMatches, Command};
use kedge_diag::Fix;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Machine, RemoteError};
use crate::flags::{help, is_set, option, switch, text};
use crate::status::{Failure, Status};

const WHAT_IT_IS: &str = "\
The machine ends as if its power was cut: machines have no power key that kedge could press, so
the guest is not asked. What it has flushed to its disks is there. To have it end by itself, let
it power off. A machine's process ends with it, and removes its folder and sockets.";

/// `kedge stop`.
pub(super) fn command() -> Command {
    Command::new("stop")
        .bin_name("kedge stop")
        .about("End a machine, whatever its guest does")
        .disable_help_flag(true)
        .after_help(WHAT_IT_IS)
        .args(Machine::flags())
        .arg(
            option("timeout", "SECONDS")
                .default_value("10")
                .help("How long its process may take to end"),
        )
        .arg(switch("force").help("Kill its process: for one that does not answer any more"))
        .arg(help())
}

/// No count of seconds.
#[derive(Debug, thiserror::Error)]
#[error("`--timeout` cannot be `{0}`")]
struct BadTimeout(String);

impl Fix for BadTimeout {
    fn fix(&self) -> Option<String> {
        Some("write a whole number of seconds".to_owned())
    }
}

/// Why a machine is not stopped.
#[derive(Debug, thiserror::Error)]
enum StopError {
    /// There is none.
    #[error(transparent)]
    Machine(#[from] RemoteError),
    /// Its process cannot be told.
    #[error("cannot end the machine's process {pid}")]
    Signal {
        /// The process.
        pid: Pid,
        /// What the host said.
        source: io::Error,
    },
    /// It is still there.
    #[error("the machine's process {pid} has not ended after {seconds} s")]
    Stays {
        /// The process.
        pid: Pid,
        /// How long it was waited for.
        seconds: u32,
    },
}

impl Fix for StopError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Machine(source) => source.fix(),
            Self::Signal { .. } => Some("stop it as the user who started it".to_owned()),
            Self::Stays { .. } => Some("kill it: add --force".to_owned()),
        }
    }
}

/// Does it.
///
/// # Errors
/// There is no such machine, it is somebody else's, or it does not end.
pub(super) fn enter(flags: &ArgMatches) -> Result<Status, Failure> {
    let timeout = text(flags, "timeout");
    let seconds = timeout.parse().map_err(|_| BadTimeout(timeout.to_owned()));
    let seconds = seconds.map_err(|error| Failure::new(Status::USAGE, error))?;
    let signal = if is_set(flags, "force") { Signal::KILL } else { Signal::TERM };
    let stopped = stop(&Machine::of(flags), signal, seconds);
    let pid = stopped.map_err(|error| Failure::new(Status::ERROR, error))?;
    // Where stderr is gone, nobody is to be told.
    let _ = writeln!(io::stderr(), "ended, with its process {pid}; its guest was not asked");
    Ok(Status::OK)
}

fn stop(machine: &Machine, signal: Signal, seconds: u32) -> Result<Pid, StopError> {
    let pid = machine.process()?;
    let failed = |error: rustix::io::Errno| StopError::Signal { pid, source: error.into() };
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
    pidfd_send_signal(&process, signal).map_err(failed)?;
    let patience = Duration::from_secs(seconds.into());
    let patience = Timespec::try_from(patience).ok();
    let mut end = [PollFd::new(&process, PollFlags::IN)];
    match poll(&mut end, patience.as_ref()).map_err(failed)? {
        0 => Err(StopError::Stays { pid, seconds }),
        _ => Ok(pid),
    }
}
