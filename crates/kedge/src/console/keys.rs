//! A terminal's keys and the process's signals: what ends the machine, what the
//! guest is typed.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::escape::{Escape, Wish, help};
use super::signals::Signals;
use super::terminal::RawTerminal;
use super::{Guest, piece, spawn};
use crate::status::Status;

/// How long a machine may take to end before the process ends without it.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// Whoever watches the keys.
pub(super) struct Keys {
    /// Absent once the terminal has hung up.
    input: Option<OwnedFd>,
    escape: Escape,
    signals: Signals,
    terminal: Arc<RawTerminal>,
    signal: Arc<OnceLock<u8>>,
    /// When to end without the machine.
    deadline: Option<Instant>,
}

impl Keys {
    /// `signal` is set to the first of `signals` that comes.
    pub(super) fn new(
        input: OwnedFd,
        signals: Signals,
        terminal: Arc<RawTerminal>,
        signal: Arc<OnceLock<u8>>,
    ) -> Self {
        let escape = Escape::default();
        Self { input: Some(input), escape, signals, terminal, signal, deadline: None }
    }

    /// Watches for as long as the process lives.
    pub(super) fn watch(&mut self, guest: &impl Guest, typist: &Sender<Vec<u8>>) {
        loop {
            let (signal_came, key_came) = self.wait();
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.exit();
            }
            if signal_came && let Some(number) = self.signals.next() {
                let _ = self.signal.set(number);
                self.end(guest);
            }
            if key_came {
                self.type_in(guest, typist);
            }
        }
    }

    /// Waits for a signal, a key or the deadline.
    fn wait(&self) -> (bool, bool) {
        let left = self.deadline.map(|deadline| deadline.duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let signals = PollFd::new(&self.signals, PollFlags::IN);
        let mut events = vec![signals];
        events.extend(self.input.as_ref().map(|input| PollFd::new(input, PollFlags::IN)));
        // Only a signal that nobody holds can interrupt; then nothing came.
        if poll(&mut events, timeout.as_ref()).is_err() {
            return (false, false);
        }
        let came =
            |index: usize| events.get(index).is_some_and(|event| !event.revents().is_empty());
        (came(0), came(1))
    }

    fn type_in<G: Guest>(&mut self, guest: &G, typist: &Sender<Vec<u8>>) {
        let Some(typed) = self.input.as_ref().and_then(piece) else {
            self.input = None;
            return;
        };
        let mut bytes = Vec::new();
        for key in typed {
            match self.escape.take(key, &mut bytes) {
                Some(Wish::Quit) => self.end(guest),
                Some(Wish::Help) => {
                    let _ = io::stderr().write_all(help(G::QUITS).as_bytes());
                }
                None => {}
            }
        }
        if !bytes.is_empty() {
            // The typist lives as long as this sender.
            let _ = typist.send(bytes);
        }
    }

    /// Ends the machine or, when asked again, the process.
    fn end(&mut self, guest: &impl Guest) {
        if self.deadline.is_some() {
            self.exit();
        }
        self.deadline = Some(Instant::now() + GRACE);
        guest.stop();
    }

    fn exit(&self) -> ! {
        self.terminal.restore();
        let status = self.signal.get().map_or(Status::ERROR, |&number| Status::from_signal(number));
        process::exit(status.0.into())
    }
}

/// Starts a thread that types what it is sent: a guest that does not read must
/// not keep the user from ending it.
pub(super) fn typist(guest: impl Guest) -> io::Result<Sender<Vec<u8>>> {
    let (sender, typed) = mpsc::channel::<Vec<u8>>();
    spawn("typist", move || typed.iter().for_each(|bytes| guest.send(&bytes)))?;
    Ok(sender)
}
