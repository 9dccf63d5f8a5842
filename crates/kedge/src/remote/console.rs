//! `kedge console`: the serial port of a machine that was started elsewhere.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Arg, ArgMatches, Command};
use kedge_diag::Fix;

use crate::console::{Guest, Unconnected};
use crate::flags::{help, text};
use crate::machines;
use crate::status::{Failure, Status};

const HOW: &str = "\
For machines that were started with `--serial socket`, one terminal at a time. What the guest
printed last comes first. On a terminal, Ctrl-A x leaves: the machine goes on.";

/// `kedge console`.
pub(super) fn command() -> Command {
    Command::new("console")
        .bin_name("kedge console")
        .about("Sit at the serial port of a machine that was started elsewhere")
        .disable_help_flag(true)
        .after_help(HOW)
        .arg(
            Arg::new("machine")
                .value_name("ID")
                .required(true)
                .help("The machine's name: what it was given with --id"),
        )
        .arg(help())
}

/// Why nobody sits there.
#[derive(Debug, thiserror::Error)]
enum ConsoleError {
    /// There is no such socket.
    #[error("no serial port is offered at `{path}`")]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// Standard input or output.
    #[error("cannot connect the terminal to the guest")]
    Terminal(#[source] io::Error),
}

impl Fix for ConsoleError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Connect { .. } => {
                Some("name a machine that runs with `--serial socket` (`kedge ps`)".to_owned())
            }
            Self::Terminal(_) => None,
        }
    }
}

/// The guest at the other end.
#[derive(Clone)]
struct Attached(Arc<UnixStream>);

impl Guest for Attached {
    const QUITS: &str = "leave; the machine goes on";

    fn send(&self, bytes: &[u8]) {
        // Where the machine has ended, so has what it prints.
        let _ = (&*self.0).write_all(bytes);
    }

    fn stop(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Does it.
///
/// # Errors
/// There is no such machine, or no terminal.
pub(super) fn enter(flags: &ArgMatches) -> Result<Status, Failure> {
    let signal = sit(machines::console_of(text(flags, "machine")));
    let signal = signal.map_err(|error| Failure::new(Status::ERROR, error))?;
    Ok(signal.map_or(Status::OK, Status::from_signal))
}

/// Sits there until the user leaves or the machine ends; the signal that the user left by.
fn sit(path: PathBuf) -> Result<Option<u8>, ConsoleError> {
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => Arc::new(stream),
        Err(source) => return Err(ConsoleError::Connect { path, source }),
    };
    // Before there are other threads: they are to leave signals alone.
    let input = Unconnected::new(io::stdin()).map_err(ConsoleError::Terminal)?;
    let console = input.connect(Attached(Arc::clone(&stream))).map_err(ConsoleError::Terminal)?;
    let copied = copy(&stream);
    // The terminal is whole again before anything is said.
    let signal = console.signal();
    drop(console);
    copied.map_err(ConsoleError::Terminal)?;
    Ok(signal)
}

/// Prints what comes, as it comes.
fn copy(mut stream: &UnixStream) -> io::Result<()> {
    let (mut piece, mut output) = ([0; 4096], io::stdout());
    loop {
        let length = match stream.read(&mut piece) {
            Ok(0) | Err(_) => return Ok(()),
            Ok(length) => length,
        };
        output.write_all(piece.get(..length).unwrap_or_default())?;
        output.flush()?;
    }
}
