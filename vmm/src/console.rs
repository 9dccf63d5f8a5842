//! The guest's serial console, from its user's side: where its output goes, how
//! input reaches it, and who hears of a panic. It outlives the machine's resets;
//! the port itself is made anew with each.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kedge_devices::serial::{LineWatch, SerialPort};
use kedge_diag::Fix;
use libc::EFD_CLOEXEC;
use vmm_sys_util::eventfd::EventFd;

use crate::events::MachineEvent;
use crate::run::Event;
use crate::spec::{MachineSpec, OnPanic, SerialSpec};
use crate::surroundings::Surroundings;

/// Why the console cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The file for the serial port's output cannot be opened.
    #[error("cannot write the serial port's output to `{}`", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The host has no more file descriptors.
    #[error("cannot make an event for the serial port")]
    Event(#[source] io::Error),
}

impl Fix for ConsoleError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Output { .. } => Some("name a file or FIFO that can be written".to_owned()),
            Self::Event(_) => Some("raise the limit of open files (ulimit -n)".to_owned()),
        }
    }
}

/// The console of a machine.
pub(crate) struct Console {
    sink: Sink,
    input: SerialInput,
    drained: EventFd,
}

impl Console {
    /// Opens the output that `spec` names.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open(
        spec: &MachineSpec,
        surroundings: &Surroundings,
        events: &Sender<Event>,
    ) -> Result<Self, ConsoleError> {
        let drained = EventFd::new(EFD_CLOEXEC).map_err(ConsoleError::Event)?;
        let input = SerialInput(Arc::new(Input {
            turn: Mutex::default(),
            port: Mutex::new(Port::Absent),
            drained: drained.try_clone().map_err(ConsoleError::Event)?,
        }));
        let output = match &spec.serial {
            SerialSpec::Stdio => Output::Given(Arc::clone(&surroundings.output)),
            SerialSpec::File(path) => Output::File(open_output(path)?),
        };
        let watch =
            LineWatch::new(output, PANIC, panic_listener(spec.on_panic, surroundings, events));
        Ok(Self { sink: Sink(Arc::new(Mutex::new(watch))), input, drained })
    }

    /// A writer for the port of a new machine.
    pub(crate) fn output(&self) -> Box<dyn Write + Send> {
        Box::new(self.sink.clone())
    }

    /// What the port of a new machine rings when it can take more.
    ///
    /// # Errors
    /// The host has no more file descriptors.
    pub(crate) fn drained(&self) -> io::Result<EventFd> {
        self.drained.try_clone()
    }

    /// From now on, input goes to `port`.
    pub(crate) fn attach(&self, port: &Arc<SerialPort>) {
        self.input.0.lead_to(Port::Attached(Arc::clone(port)));
    }

    /// From now on, input waits for the port of the next machine: what the last
    /// one took after its end would be lost.
    pub(crate) fn detach(&self) {
        self.input.0.lead_to(Port::Absent);
    }

    /// No machine comes any more.
    pub(crate) fn close(&self) {
        self.input.0.lead_to(Port::Gone);
    }

    pub(crate) fn input(&self) -> SerialInput {
        self.input.clone()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.close();
    }
}

/// The way to the guest's serial port, from any thread.
#[derive(Clone)]
pub struct SerialInput(Arc<Input>);

/// What all ways to a machine's serial port share.
struct Input {
    /// Held by whoever types: what is sent at once arrives in one piece, and only
    /// one waits for the event.
    turn: Mutex<()>,
    port: Mutex<Port>,
    drained: EventFd,
}

/// Where input goes.
enum Port {
    /// Nowhere yet: the machine is being built.
    Absent,
    /// To this port.
    Attached(Arc<SerialPort>),
    /// Nowhere any more.
    Gone,
}

impl SerialInput {
    /// Types `bytes`. Waits while the guest does not take them, for as long as the
    /// machine is there; over a reset, too, though what a guest has not read then
    /// is lost as on hardware.
    ///
    /// # Errors
    /// `BrokenPipe`: the machine has ended before the guest took all.
    pub fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        let _turn = self.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
        while !bytes.is_empty() {
            let taken = self.0.offer(bytes)?;
            bytes = bytes.get(taken..).unwrap_or_default();
            if !bytes.is_empty() {
                self.0.wait()?;
            }
        }
        Ok(())
    }
}

impl Input {
    fn lead_to(&self, port: Port) {
        *self.port() = port;
        // Whoever waits for the old port is to look at the new one.
        let _ = self.drained.write(1);
    }

    /// Gives the guest what it takes now, and says how much.
    fn offer(&self, bytes: &[u8]) -> io::Result<usize> {
        match &*self.port() {
            Port::Attached(port) => Ok(port.receive(bytes)),
            Port::Absent => Ok(0),
            Port::Gone => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Waits until another try is worth it.
    fn wait(&self) -> io::Result<()> {
        match self.drained.read() {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn port(&self) -> MutexGuard<'_, Port> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SerialInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SerialInput")
    }
}

/// What Linux prints first when it panics, and what its last line contains.
const PANIC: &str = "Kernel panic";
const END_OF_PANIC: &str = "end Kernel panic";

type Observer = Box<dyn FnMut(&str) + Send>;

fn panic_listener(
    on_panic: OnPanic,
    surroundings: &Surroundings,
    events: &Sender<Event>,
) -> Observer {
    let (listener, heard) = (Arc::clone(&surroundings.on_panic), surroundings.on_event.clone());
    let (events, mut times) = (events.clone(), 0_u64);
    Box::new(move |line| {
        let ended = line.contains(END_OF_PANIC);
        if let Some(heard) = heard.as_ref().filter(|_| !ended) {
            times = times.saturating_add(1);
            if times.is_power_of_two() {
                heard(&MachineEvent::Panicked { line: line.to_owned(), times });
            }
        }
        listener.lock().unwrap_or_else(PoisonError::into_inner)(line);
        if on_panic == OnPanic::Exit {
            // A machine that is gone has nobody to tell.
            let _ = events.send(if ended { Event::Panicked } else { Event::Panicking });
        }
    })
}

fn open_output(path: &PathBuf) -> Result<File, ConsoleError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).append(true);
    // A FIFO nobody reads must not hold up the machine.
    options.custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    options.open(path).map_err(|source| ConsoleError::Output { path: path.clone(), source })
}

/// Where the port's bytes end up.
enum Output {
    Given(Arc<Mutex<Box<dyn Write + Send>>>),
    File(File),
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Given(output) => {
                output.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
            }
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Given(output) => output.lock().unwrap_or_else(PoisonError::into_inner).flush(),
            Self::File(file) => file.flush(),
        }
    }
}

/// The one output that all ports of a machine's lives write to, one after another.
#[derive(Clone)]
struct Sink(Arc<Mutex<LineWatch<Output, Observer>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes)
    }
}
