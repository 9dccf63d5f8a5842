//! The program under test: started, listened to, and ended whatever happens.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{evidence, host};

/// The longest that anything but a Linux guest may take.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A guest's output comes byte by byte: to be woken for each would cost a small
/// host more than the guest does.
const BETWEEN_READS: Duration = Duration::from_millis(3);

const GUEST_ABI: &str = "--guest-abi";
/// The first kernel that can give the default profile.
const SINCE_ARM64_V1: (u32, u32) = (5, 19);

/// A command line.
pub(crate) struct Kedge(Command);

impl Kedge {
    /// `kedge` followed by `words`.
    pub(crate) fn new<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Self {
        Self::of("kedge").with(words)
    }

    /// A program that embeds kedge's machine.
    pub(crate) fn embedded(program: &str) -> Self {
        Self::of(program)
    }

    fn of(program: &str) -> Self {
        let mut command = Command::new(program);
        command.env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command)
    }

    /// `kedge run` with a kernel.
    pub(crate) fn run(kernel: impl AsRef<OsStr>) -> Self {
        Self::new(["run".as_ref(), "--kernel".as_ref(), kernel.as_ref()])
    }

    /// More words.
    pub(crate) fn with<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.0.args(words);
        self
    }

    /// Words with values: `--memory 16M`.
    pub(crate) fn flags(self, text: &str) -> Self {
        self.with(text.split_whitespace())
    }

    /// The kernel's command line.
    pub(crate) fn cmdline(self, text: &str) -> Self {
        self.with(["--cmdline", text])
    }

    /// Under another name.
    pub(crate) fn called(mut self, name: &str) -> Self {
        self.0.arg0(name);
        self
    }

    /// As a user who owns nothing.
    pub(crate) fn by_nobody(mut self) -> Self {
        self.0.uid(65534).gid(65534);
        self
    }

    /// Starts it with a pipe as standard input.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn start(mut self) -> anyhow::Result<Running> {
        self.0.stdin(Stdio::piped());
        self.spawn()
    }

    /// Runs it to its end, without input.
    ///
    /// # Errors
    /// It does not start, or is not done after `limit`.
    pub(crate) fn finish_within(self, limit: Duration) -> anyhow::Result<Ended> {
        self.spawn()?.finish_within(limit)
    }

    /// Runs it to its end, which is near, without input.
    ///
    /// # Errors
    /// It does not start or does not end.
    pub(crate) fn finish(self) -> anyhow::Result<Ended> {
        self.finish_within(SOON)
    }

    /// The command, for whoever starts it in a way of their own. Where the host cannot give
    /// the default profile, and no other was asked for, it gets the one that every host
    /// can give.
    pub(crate) fn into_command(mut self) -> Command {
        let asked = self.0.get_args().any(|word| word == GUEST_ABI);
        let is_run = self.0.get_args().next().is_some_and(|word| word == "run");
        if is_run && !asked && host::kernel() < SINCE_ARM64_V1 {
            self.0.args([GUEST_ABI, "arm64-v0"]);
        }
        self.0
    }

    fn spawn(self) -> anyhow::Result<Running> {
        let mut child = self.into_command().spawn().context("cannot start the program")?;
        let stdin = child.stdin.take();
        let stdout = Listener::new(child.stdout.take().context("stdout is a pipe")?);
        let stderr = Listener::new(child.stderr.take().context("stderr is a pipe")?);
        Ok(Running { child, stdin, stdout, stderr })
    }
}

/// A started process; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Listener,
    stderr: Listener,
}

impl Running {
    /// Waits until standard output has `text` for the `times`th time.
    ///
    /// # Errors
    /// It has not after `limit`, or standard output ends before.
    pub(crate) fn wait_for(&self, text: &str, times: usize, limit: Duration) -> anyhow::Result<()> {
        let enough = self.wait_until(|said| said.matches(text).count() >= times, limit);
        enough.with_context(|| format!("`{text}` was not said {times} times"))
    }

    /// Waits until standard output is `enough`.
    ///
    /// # Errors
    /// It is not after `limit`, or standard output ends before.
    pub(crate) fn wait_until(
        &self,
        enough: impl Fn(&str) -> bool,
        limit: Duration,
    ) -> anyhow::Result<()> {
        self.stdout.until(limit, enough).map_err(|said| {
            let (errors, evidence) = (self.stderr.text(), self.evidence());
            anyhow::anyhow!("all that was said:\n{said}\nstderr:\n{errors}\n{evidence}")
        })
    }

    /// How it ended, or what it is doing.
    fn evidence(&self) -> String {
        self.pid().map_or_else(|error| error.to_string(), evidence::of)
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.context("a process has a number")
    }

    /// What came on standard output so far.
    pub(crate) fn said(&self) -> String {
        self.stdout.text()
    }

    /// Types on standard input.
    ///
    /// # Errors
    /// It is closed.
    pub(crate) fn type_in(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is no pipe")?;
        stdin.write_all(bytes)?;
        Ok(stdin.flush()?)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has ended.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Ends it as a user would.
    ///
    /// # Errors
    /// It does not end.
    pub(crate) fn terminate(self) -> anyhow::Result<Ended> {
        self.signal(Signal::TERM)?;
        self.finish_within(SOON)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It is not done after `limit`.
    pub(crate) fn finish_within(mut self, limit: Duration) -> anyhow::Result<Ended> {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                let evidence = self.evidence();
                let (said, errors) = (self.stdout.text(), self.stderr.text());
                bail!("not done after {limit:?}:\n{said}\nstderr:\n{errors}\n{evidence}");
            }
            thread::sleep(Duration::from_millis(5));
        };
        let (stdout, stderr) = (self.stdout.end(), self.stderr.end());
        Ok(Ended { status, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    status: ExitStatus,
    /// What it wrote.
    pub(crate) stdout: String,
    /// What it complained about.
    pub(crate) stderr: String,
}

impl Ended {
    /// Its exit status, unless a signal killed it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Fails unless this is the exit status.
    ///
    /// # Errors
    /// It is another.
    pub(crate) fn with_status(self, status: i32) -> anyhow::Result<Self> {
        let Self { status: real, stdout, stderr } = &self;
        ensure!(real.code() == Some(status), "{real}, not {status}:\n{stdout}\nstderr:\n{stderr}");
        Ok(self)
    }

    /// Fails unless this signal killed it.
    ///
    /// # Errors
    /// Another did, or none.
    pub(crate) fn by_signal(self, signal: Signal) -> anyhow::Result<Self> {
        let Self { status: real, stdout, stderr } = &self;
        let killed = real.signal() == Some(signal.as_raw());
        ensure!(killed, "{real}, not {signal:?}:\n{stdout}\nstderr:\n{stderr}");
        Ok(self)
    }
}

/// What a process writes to one of its outputs.
struct Listener {
    heard: Arc<(Mutex<Heard>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    ended: bool,
}

impl Listener {
    fn new(mut output: impl Read + Send + 'static) -> Self {
        let heard = Arc::<(Mutex<Heard>, Condvar)>::default();
        let shared = Arc::clone(&heard);
        let thread = thread::spawn(move || {
            let mut piece = [0; 4096];
            loop {
                let length = output.read(&mut piece).unwrap_or(0);
                let mut heard = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                heard.bytes.extend(piece.iter().take(length));
                heard.ended = length == 0;
                shared.1.notify_all();
                if heard.ended {
                    return;
                }
                drop(heard);
                thread::sleep(BETWEEN_READS);
            }
        });
        Self { heard, thread: Some(thread) }
    }

    fn text(&self) -> String {
        let heard = self.heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&heard.bytes).into_owned()
    }

    /// Waits until `enough` says so; the text where it never does.
    fn until(&self, limit: Duration, enough: impl Fn(&str) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        let mut heard = self.heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let text = String::from_utf8_lossy(&heard.bytes).into_owned();
            if enough(&text) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if heard.ended || left.is_zero() {
                return Err(text);
            }
            let waited = self.heard.1.wait_timeout(heard, left);
            heard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// All of it, once the process has ended.
    fn end(&mut self) -> String {
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
        self.text()
    }
}
