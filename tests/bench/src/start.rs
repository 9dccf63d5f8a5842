//! `bench api-start RUNS KEDGE`: what it takes a program that waits for its machine to answer its first request, from fork
//! to reply: a line as `bench api-start cpu_us=N wall_us=N`.
// UNSAFETY: no safe call reads another process's CPU clock.
#![expect(unsafe_code)]

use std::{
    ffi::OsStr,
    fs, io, mem,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{api, median};

const SOCKET: &str = "/tmp/bench-start.sock";
/// Between two looks at whether it listens: what it does meanwhile, before it is asked, counts.
const LOOK: Duration = Duration::from_micros(200);
const PATIENCE: Duration = Duration::from_secs(120);

/// What one start cost.
#[derive(Clone, Copy)]
struct Cost {
    cpu: Duration,
    wall: Duration,
}

/// Measures; the line to print.
pub(crate) fn measure(runs: usize, program: &OsStr) -> anyhow::Result<Vec<String>> {
    let mut costs = Vec::with_capacity(runs + 1);
    for _ in 0..=runs {
        costs.push(start(program)?);
    }
    let costs = &costs[1..];
    let cpu = median(costs, |cost| cost.cpu.as_micros());
    let wall = median(costs, |cost| cost.wall.as_micros());
    Ok(vec![format!("bench api-start cpu_us={cpu} wall_us={wall}")])
}

fn start(program: &OsStr) -> anyhow::Result<Cost> {
    // It is there after a run that was killed.
    let _ = fs::remove_file(SOCKET);
    let mut command = Command::new(program);
    command.args(["--api-sock", SOCKET, "--level", "off"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let mut child =
        command.spawn().with_context(|| format!("cannot start `{}`", program.display()))?;
    let cost = until_answer(&child, start);
    let _ = child.kill();
    child.wait()?;
    cost
}

fn until_answer(child: &Child, start: Instant) -> anyhow::Result<Cost> {
    let mut stream = loop {
        match UnixStream::connect(Path::new(SOCKET)) {
            Ok(stream) => break stream,
            Err(_) => thread::sleep(LOOK),
        }
        ensure!(start.elapsed() < PATIENCE, "nobody listens at {SOCKET}");
    };
    api::exchange(&mut stream, "GET / HTTP/1.1\r\n\r\n")?;
    Ok(Cost { cpu: cpu_time(child)?, wall: start.elapsed() })
}

/// The CPU time of a child and its threads so far.
fn cpu_time(child: &Child) -> anyhow::Result<Duration> {
    let pid = libc::pid_t::try_from(child.id())?;
    let (mut clock, mut time) = (0, mem::MaybeUninit::uninit());
    // SAFETY: the pointer is to a local of the type that clock_getcpuclockid(3) fills.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    ensure!(error == 0, "a child has no CPU clock: {}", io::Error::from_raw_os_error(error));
    // SAFETY: the pointer is to a local of the type that clock_gettime(2) fills.
    let read = unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) };
    ensure!(read == 0, "cannot read a child's CPU clock: {}", io::Error::last_os_error());
    // SAFETY: clock_gettime has filled it: it returned 0.
    let time: libc::timespec = unsafe { time.assume_init() };
    let nanoseconds = u32::try_from(time.tv_nsec)?;
    Ok(Duration::new(u64::try_from(time.tv_sec)?, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_cpu_time_is_its_own() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let cpu = cpu_time(&child).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(cpu < Duration::from_secs(10), "{cpu:?}");
    }
}
