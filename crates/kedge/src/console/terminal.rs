//! A terminal in raw mode, and back again whatever happens: on drop, and in a
//! panic's hook, since a release build aborts on panic and drops nothing.
//!
//! Only SIGKILL leaves a terminal raw; then `stty sane` mends it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic;
use std::sync::Arc;

use rustix::process::getpgrp;
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr,
};

/// How the terminal was.
#[derive(Debug)]
struct Before {
    terminal: OwnedFd,
    modes: Termios,
}

impl Before {
    fn restore(&self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.modes);
    }
}

/// A terminal in raw mode until this is dropped.
#[derive(Debug)]
pub(super) struct RawTerminal(Arc<Before>);

impl RawTerminal {
    /// Makes `terminal` raw: keys come one by one and unchanged, Ctrl-C among
    /// them. Output stays as it is, so that kedge's own lines begin at the left;
    /// the guest's bring a carriage return that a second one does not harm.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn enter(terminal: impl AsFd) -> io::Result<Self> {
        let modes = tcgetattr(&terminal)?;
        let mut raw = modes.clone();
        raw.make_raw();
        raw.output_modes |= modes.output_modes & OutputModes::OPOST;
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = Arc::new(Before { terminal, modes });
        restore_on_panic(&before);
        tcsetattr(&before.terminal, OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }

    /// Puts the terminal back as it was.
    pub(super) fn restore(&self) {
        self.0.restore();
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.restore();
    }
}

fn restore_on_panic(before: &Arc<Before>) {
    let before = Arc::downgrade(before);
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if let Some(before) = before.upgrade() {
            before.restore();
        }
        report(panic);
    }));
}

/// What the input is, as seen by a process that may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A terminal that takes this process's keys.
    Terminal,
    /// A terminal that takes another's: to touch it would stop this process.
    Background,
    /// A file, a pipe, nothing.
    Plain,
}

impl Input {
    /// What `input` is.
    pub(super) fn of(input: impl AsFd) -> Self {
        if !isatty(&input) {
            return Self::Plain;
        }
        match tcgetpgrp(&input) {
            Ok(foreground) if foreground != getpgrp() => Self::Background,
            // Not this session's terminal: nobody stops who touches it.
            Ok(_) | Err(_) => Self::Terminal,
        }
    }
}

// Not under qemu-user, which runs arm64's unit tests and knows no `TCGETS2`; on
// arm64, real guests show it (tests/guest).
#[cfg(not(target_arch = "aarch64"))]
#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::path::PathBuf;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    /// Both ends of a terminal of its own, the user's first.
    fn terminal() -> (OwnedFd, File) {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let path = PathBuf::from(ptsname(&user, Vec::new()).unwrap().into_string().unwrap());
        let program = OpenOptions::new().read(true).write(true).open(path).unwrap();
        (user, program)
    }

    fn echoes(terminal: &File) -> bool {
        tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    #[test]
    fn a_terminal_is_raw_only_as_long_as_wanted() {
        let (_user, program) = terminal();
        let raw = RawTerminal::enter(&program).unwrap();
        assert!(!echoes(&program));
        drop(raw);
        assert!(echoes(&program));
    }

    #[test]
    fn output_is_processed_as_before() {
        let (_user, program) = terminal();
        let _raw = RawTerminal::enter(&program).unwrap();
        assert!(tcgetattr(&program).unwrap().output_modes.contains(OutputModes::OPOST));
    }

    #[test]
    fn a_panic_on_any_thread_restores_the_terminal() {
        let (_user, program) = terminal();
        let _raw = RawTerminal::enter(&program).unwrap();
        let thread = std::thread::spawn(|| panic!("to show that the hook restores"));
        assert!(thread.join().is_err());
        assert!(echoes(&program));
    }

    #[test]
    fn a_pipe_is_no_terminal() {
        let (read, _write) = io::pipe().unwrap();
        assert_eq!(Input::of(&read), Input::Plain);
    }
}
