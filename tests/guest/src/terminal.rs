//! kedge on a terminal: keys go to the guest one by one, and the terminal is as
//! before whatever ended the machine.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};

use crate::host::Host;
use crate::kedge::SOON;
use crate::suite::{Outcome, Suite};

const CTRL_A: u8 = 1;

pub(crate) fn tests(suite: &mut Suite) {
    suite.once("terminal::keys_reach_the_guest_one_by_one", &[], |host| {
        let mut session = Session::start(host, "echo", "")?;
        session.wait_for("ECHO ready")?;
        session.press(b"k\x03")?;
        session.wait_for("ECHO 6b")?;
        session.wait_for("ECHO 03")?;
        session.press(&[CTRL_A, b'a'])?;
        session.wait_for("ECHO 01")?;
        session.press(b"q")?;
        session.ends_with(0)
    });
    suite.once("terminal::ctrl_a_x_ends_the_machine", &[], |host| {
        let mut session = Session::start(host, "echo", "")?;
        session.wait_for("ECHO ready")?;
        session.press(&[CTRL_A, b'x'])?;
        session.ends_with(0)
    });
    suite.once("terminal::ctrl_a_x_ends_a_guest_that_takes_no_keys", &[], |host| {
        let mut session = Session::start(host, "power", "spin")?;
        session.wait_for("POWER spin")?;
        session.press(&[b'k'; 256])?;
        session.press(&[CTRL_A, b'x'])?;
        session.ends_with(0)
    });
    suite.once("terminal::a_signal_ends_the_machine_first", &[], |host| {
        let session = Session::start(host, "echo", "")?;
        session.wait_for("ECHO ready")?;
        session.signal(Signal::TERM)?;
        session.ends_with(128 + 15)
    });
    suite.once("terminal::a_panic_of_the_guest_gives_the_terminal_back", &[], |host| {
        Session::start(host, "power", "panic")?.ends_with(3)
    });
    suite.once("terminal::an_error_gives_the_terminal_back", &[], |host| {
        let session = Session::start(host, "nothing-of-this-name", "")?;
        session.wait_for("error: ")?;
        session.ends_with(1)
    });
}

/// kedge on a terminal of its own.
struct Session {
    kedge: Child,
    user: File,
    program: File,
    before: Termios,
    shown: Arc<Mutex<String>>,
}

impl Session {
    fn start(host: &Host, payload: &str, cmdline: &str) -> anyhow::Result<Self> {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&user)?;
        unlockpt(&user)?;
        let path = ptsname(&user, Vec::new())?.into_string()?;
        let program = OpenOptions::new().read(true).write(true).open(path)?;
        let before = tcgetattr(&program)?;
        ensure!(before.local_modes.contains(LocalModes::ICANON), "a new terminal is raw");
        // A session of its own, whose terminal this is: keys could end it.
        let mut setsid = Command::new("setsid");
        setsid.args(["-c", "kedge", "run", "--memory", "16M", "--cmdline", cmdline, "--kernel"]);
        setsid.arg(host.payload(payload));
        let end = || anyhow::Ok(Stdio::from(OwnedFd::from(program.try_clone()?)));
        let kedge = setsid.stdin(end()?).stdout(end()?).stderr(end()?).spawn()?;
        let user = File::from(user);
        let shown = Arc::default();
        listen(user.try_clone()?, Arc::clone(&shown));
        Ok(Self { kedge, user, program, before, shown })
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wait_for(&self, text: &str) -> Outcome {
        let deadline = Instant::now() + SOON;
        while !self.shown().contains(text) {
            ensure!(Instant::now() < deadline, "`{text}` was not shown:\n{}", self.shown());
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn press(&mut self, keys: &[u8]) -> Outcome {
        let modes = tcgetattr(&self.program)?.local_modes;
        ensure!(!modes.contains(LocalModes::ICANON), "the terminal is not raw");
        Ok(self.user.write_all(keys)?)
    }

    fn signal(&self, signal: Signal) -> Outcome {
        let pid = i32::try_from(self.kedge.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("a process has a number")?, signal)?)
    }

    /// The end comes, with this status, and the terminal is as before.
    fn ends_with(mut self, status: i32) -> Outcome {
        let deadline = Instant::now() + SOON;
        let ended = loop {
            if let Some(ended) = self.kedge.try_wait()? {
                break ended;
            }
            if Instant::now() > deadline {
                bail!("kedge goes on:\n{}", self.shown());
            }
            thread::sleep(Duration::from_millis(5));
        };
        ensure!(ended.code() == Some(status), "{ended}:\n{}", self.shown());
        let (before, after) = (&self.before, tcgetattr(&self.program)?);
        let modes = |modes: &Termios| (modes.local_modes, modes.input_modes, modes.output_modes);
        ensure!(modes(before) == modes(&after), "the terminal was {before:?}, is {after:?}");
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.kedge.kill();
        let _ = self.kedge.wait();
    }
}

/// Takes what the terminal shows, until it is gone.
fn listen(mut user: File, shown: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut piece = [0; 1024];
        while let Ok(length) = user.read(&mut piece) {
            let text = String::from_utf8_lossy(piece.get(..length).unwrap_or_default());
            shown.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            if length == 0 {
                return;
            }
        }
    });
}
