//! What is typed on standard input, on its way to the guest.
//!
//! A file or a pipe is handed on as it is. On a terminal the keys after Ctrl-A
//! are kedge's own, and signals that would end the process end the machine
//! first, so that the terminal is never left raw.

mod ending;
mod escape;
mod keys;
mod offer;
mod signals;
mod terminal;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, retry_on_intr};

pub(crate) use ending::Ending;
use keys::Keys;
pub(crate) use offer::Offer;
use signals::Signals;
use terminal::{Input, RawTerminal};

/// What a console needs of a machine.
pub(crate) trait Guest: Clone + Send + 'static {
    /// What [`Self::stop`] does, for a list of keys.
    const QUITS: &str = "end the machine";

    /// Types `bytes` on the serial port. May wait for the guest to take them.
    fn send(&self, bytes: &[u8]);

    /// Ends the machine, or what there is of it here.
    fn stop(&self);
}

/// Bytes read at once.
const PIECE: usize = 4096;

/// Threads here wait most of the time and need little stack.
const STACK_BYTES: usize = 64 * 1024;

/// Standard input, connected to a guest. Dropping it gives the terminal back.
#[derive(Debug)]
pub(crate) struct Console {
    terminal: Option<Arc<RawTerminal>>,
    signal: Arc<OnceLock<u8>>,
}

/// Standard input before the machine's threads exist.
#[derive(Debug)]
pub(crate) struct Unconnected {
    input: OwnedFd,
    kind: Input,
    signals: Option<Signals>,
}

impl Unconnected {
    /// Looks at `input`. Where it is a terminal, threads started from now on
    /// leave signals to the console.
    ///
    /// # Errors
    /// The host has no more file descriptors.
    pub(crate) fn new(input: impl AsFd) -> io::Result<Self> {
        let kind = Input::of(&input);
        let signals = match kind {
            Input::Terminal => Some(Signals::hold()?),
            Input::Background | Input::Plain => None,
        };
        Ok(Self { input: input.as_fd().try_clone_to_owned()?, kind, signals })
    }

    /// Whether a person sits there, who ends the machine by its keys.
    pub(crate) fn is_terminal(&self) -> bool {
        self.kind == Input::Terminal
    }

    /// Connects it to `guest`.
    ///
    /// # Errors
    /// The terminal is gone, or the host has no more threads.
    pub(crate) fn connect(self, guest: impl Guest) -> io::Result<Console> {
        let signal = Arc::new(OnceLock::new());
        let mut console = Console { terminal: None, signal: Arc::clone(&signal) };
        match (self.kind, self.signals) {
            (Input::Terminal, Some(signals)) => {
                let terminal = Arc::new(RawTerminal::enter(&self.input)?);
                console.terminal = Some(Arc::clone(&terminal));
                let mut keys = Keys::new(self.input, signals, terminal, signal);
                let typist = keys::typist(guest.clone())?;
                spawn("keys", move || keys.watch(&guest, &typist))?;
            }
            (Input::Plain, _) => {
                if let Some(first) = first_piece(&self.input) {
                    spawn("input", move || hand_on(&self.input, &first, &guest))?;
                }
            }
            (Input::Terminal | Input::Background, _) => {}
        }
        Ok(console)
    }
}

impl Console {
    /// The signal that ended the machine, if one did.
    pub(crate) fn signal(&self) -> Option<u8> {
        self.signal.get().copied()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(terminal) = &self.terminal {
            terminal.restore();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
    builder.spawn(work).map(drop)
}

/// What can be read at once; nothing where the input is at its end already, which
/// spares the usual machine without input a thread.
fn first_piece(input: impl AsFd) -> Option<Vec<u8>> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut wait = [PollFd::new(&input, PollFlags::IN)];
    match poll(&mut wait, Some(&now)) {
        Ok(0) | Err(Errno::INTR) => Some(Vec::new()),
        Ok(_) => piece(&input),
        Err(_) => None,
    }
}

/// The next bytes of `input`; nothing at its end.
fn piece(input: impl AsFd) -> Option<Vec<u8>> {
    let mut bytes = vec![0; PIECE];
    let length = retry_on_intr(|| read(&input, &mut bytes)).ok().filter(|&length| length > 0)?;
    bytes.truncate(length);
    Some(bytes)
}

fn hand_on(input: &OwnedFd, first: &[u8], guest: &impl Guest) {
    if !first.is_empty() {
        guest.send(first);
    }
    while let Some(bytes) = piece(input) {
        guest.send(&bytes);
    }
}
