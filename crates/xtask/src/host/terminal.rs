//! Our terminal in raw mode, put back whatever happens short of SIGKILL.

use std::{io::stdin, process, thread};

use anyhow::Context;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::{Handle, Signals},
};

/// Rows and columns of our terminal; those of the oldest ones where it does not know.
pub(super) fn size() -> (u16, u16) {
    match tcgetwinsize(stdin()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => (24, 80),
    }
}

/// While it lives, every key is passed on as it is typed.
pub(super) struct RawTerminal {
    before: Termios,
    signals: Handle,
}

impl RawTerminal {
    /// Puts the terminal on standard input into raw mode.
    ///
    /// # Errors
    /// It is not a terminal.
    pub(super) fn enter() -> anyhow::Result<Self> {
        let before = tcgetattr(stdin()).context("cannot read the terminal's mode")?;
        let mut signals =
            Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot await signals")?;
        let terminal = Self { before: before.clone(), signals: signals.handle() };
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                put_back(&before);
                // QEMU goes with us: it asked for that when it was started.
                process::exit(128 + signal);
            }
        });
        let mut raw = terminal.before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).context("cannot set the terminal's mode")?;
        Ok(terminal)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.signals.close();
        put_back(&self.before);
    }
}

fn put_back(mode: &Termios) {
    // Nothing is left to try if the terminal has gone away.
    let _ = tcsetattr(stdin(), OptionalActions::Drain, mode);
}
