//! A guest that is saved and restored again and again while it works: with its disk, a
//! TCP connection to the host that lasts all its life, its timers, and four CPUs.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::host::Host;
use crate::kedge::{Kedge, Running, SOON};
use crate::moves::working;
use crate::suite::{Outcome, Suite, after, times};
use crate::tap::Tap;

/// A hundred times, or every day a few.
const TIMES: [u32; 2] = [100, 8];
/// How often the guest has to come to the end of a round before it is saved: most saves
/// find it somewhere within one.
const EVERY: u32 = 10;

const ID: &str = "again";
const SOCKET: &str = "/run/kedge/again/api.sock";
/// The longest that a host may take to write the guest's memory.
const COPY: Duration = Duration::from_secs(60);

pub(crate) fn tests(suite: &mut Suite) {
    let name = "again::a_working_guest_is_saved_and_restored_many_times";
    suite.once(name, &[], |host| many_times(host, times(TIMES[0], TIMES[1])));
}

fn many_times(host: &Host, times: u32) -> Outcome {
    let scratch = TempDir::new()?;
    let disk = scratch.path().join("disk.ext4");
    std::fs::copy(host.disk(), &disk)?;
    let tap = working::tap(working::FIRST_TAP)?;
    let echo = Echo::on(&tap)?;
    let stream = format!("kedge.stream={}", echo.port);
    let kedge = working::guest_with(&stream, host, &disk, &tap)?;
    let mut guest = kedge.flags("--cpus 4 --id again").start()?;
    working::works(&guest)?;
    let mut said = String::new();
    for time in 0..times {
        let next = save_and_restore(guest, scratch.path(), time, &mut said);
        guest = next.with_context(|| format!("time {time}"))?;
        if time % EVERY == 0 {
            working::works(&guest).with_context(|| format!("after time {time}"))?;
        }
        working::nothing_wrong(&said)?;
        thread::sleep(Duration::from_millis(u64::from(time * 37 % 400)));
    }
    let ended = working::end(guest, &disk)?;
    said += &ended.stdout;
    working::nothing_wrong(&said)?;
    let lines: usize = after(&said, "STREAM ")?.trim_end_matches(" lines").parse()?;
    let heard = echo.end()?;
    // The last line of all says that it was.
    ensure!(lines > 0 && heard == lines + 1, "the guest counts {lines} lines, the host {heard}");
    Ok(())
}

/// Saves `guest`, ends its process, and lets it go on in another one. What the old one
/// said goes behind `said`.
fn save_and_restore(
    guest: Running,
    folder: &Path,
    time: u32,
    said: &mut String,
) -> anyhow::Result<Running> {
    // The memory file of the last time is still mapped.
    let path = |name: &str| folder.join(format!("{name}.{}", time % 2));
    let (state, memory) = (path("state"), path("memory"));
    Kedge::new(["pause", ID]).finish()?.with_status(0)?;
    Kedge::new(["snapshot", "create", ID])
        .with(["--state".as_ref(), state.as_os_str()])
        .with(["--memory".as_ref(), memory.as_os_str()])
        .finish_within(COPY)?
        .with_status(0)?;
    let ended = guest.terminate()?.with_status(128 + Signal::TERM.as_raw())?;
    *said += &ended.stdout;
    let guest = Kedge::new(["snapshot".as_ref(), "load".as_ref(), state.as_os_str()])
        .with(["--memory".as_ref(), memory.as_os_str()])
        .flags("--id again")
        .start()?;
    until_reachable()?;
    Ok(guest)
}

/// Waits until a machine that was started answers by its name.
fn until_reachable() -> Outcome {
    let start = Instant::now();
    while !Path::new(SOCKET).exists() {
        ensure!(start.elapsed() < SOON, "there is no {SOCKET}");
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Sends back what it is sent, over one connection.
struct Echo {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<usize>>>,
}

/// How long it waits before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

impl Echo {
    /// On the host's side of `tap`, which is up.
    fn on(_tap: &Tap) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((working::HOST_IP, 0))?;
        listener.set_nonblocking(true)?;
        let (port, stop) = (listener.local_addr()?.port(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = Some(thread::spawn(move || serve(&listener, &stopped)));
        Ok(Self { port, stop, thread })
    }

    /// How many lines there were.
    fn end(mut self) -> anyhow::Result<usize> {
        let thread = self.thread.take().context("it ends once")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Serves one connection to its end. How many lines came over it.
fn serve(listener: &TcpListener, stop: &AtomicBool) -> anyhow::Result<usize> {
    let mut stream = accept(listener, stop)?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LOOK))?;
    let (mut buffer, mut lines) = ([0; 4096], 0);
    while !stop.load(Ordering::Acquire) {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(lines),
            Ok(length) => {
                lines += buffer[..length].iter().filter(|&&byte| byte == b'\n').count();
                stream.write_all(&buffer[..length])?;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(lines)
}

fn accept(listener: &TcpListener, stop: &AtomicBool) -> anyhow::Result<TcpStream> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
            Err(error) => return Err(error.into()),
        }
        ensure!(!stop.load(Ordering::Acquire), "nobody connected");
    }
}
