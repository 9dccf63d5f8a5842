//! One run of a command and what the kernel says it cost.
// UNSAFETY: no safe call returns one child's resource usage; wait4(2) does.
#![expect(unsafe_code)]

use std::{
    ffi::{OsStr, OsString},
    io, mem,
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

/// What one run cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// User and system time of the process and its threads.
    pub cpu: Duration,
    /// From before fork to after exit.
    pub wall: Duration,
    /// The most memory it had resident.
    pub peak_kib: u64,
    /// Page faults that needed no disk.
    pub faults: u64,
}

/// Runs a command that is to succeed. What it prints on standard output is lost.
pub(crate) fn run(program: &OsStr, arguments: &[OsString]) -> anyhow::Result<Cost> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start `{}`", program.display()))?;
    let (status, usage) = wait(child.id())?;
    let wall = start.elapsed();
    ensure!(status.success(), "`{}` ended with {status}", program.display());
    let cpu = duration(usage.ru_utime)? + duration(usage.ru_stime)?;
    let peak_kib = u64::try_from(usage.ru_maxrss)?;
    Ok(Cost { cpu, wall, peak_kib, faults: u64::try_from(usage.ru_minflt)? })
}

/// Waits for a child and takes its resource usage with its status.
fn wait(child: u32) -> anyhow::Result<(ExitStatus, libc::rusage)> {
    let pid = libc::pid_t::try_from(child)?;
    let mut status = 0;
    let mut usage = mem::MaybeUninit::uninit();
    loop {
        // SAFETY: both pointers are to locals of the types that wait4(2) fills, and it keeps neither.
        let ended = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        if ended == pid {
            break;
        }
        let error = io::Error::last_os_error();
        ensure!(error.kind() == io::ErrorKind::Interrupted, "cannot wait for the command: {error}");
    }
    // SAFETY: wait4 returned the child's id, so it has filled `usage` (wait4(2), "Return value").
    let usage = unsafe { usage.assume_init() };
    Ok((ExitStatus::from_raw(status), usage))
}

fn duration(time: libc::timeval) -> anyhow::Result<Duration> {
    let micros = u64::try_from(time.tv_usec)?;
    Ok(Duration::from_secs(u64::try_from(time.tv_sec)?) + Duration::from_micros(micros))
}
