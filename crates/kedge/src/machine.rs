//! The one place where a machine is put together: hypervisor, specification,
//! terminal.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

use kedge_devices::virtio::overrides::{self, Override, OverrideError};
use kedge_diag::Fix;
use kedge_hv::OpenError;
use kedge_hv_kvm::Kvm;
use kedge_ids::RegId;
use kedge_saved_state::{Snapshot, open_state};
use kedge_vmm::spec::{MachineSpec, SerialSpec};
use kedge_vmm::{
    BuildError, Clock, Ended, Lost, Machine, Pages, Reset, Restoration, RestoreError, RunError,
    SerialInput, Stopper, Surroundings,
};
use tracing::warn;

use crate::api::{ApiError, Reachable};
use crate::console::{Console, Ending, Guest, Unconnected};
use crate::status::Status;
use crate::{lost_memory, output};

/// What a command line asks for.
#[derive(Debug)]
pub(crate) struct Request {
    /// The machine.
    pub(crate) spec: MachineSpec,
    /// Whether to print the machine instead of running it.
    pub(crate) dry_run: bool,
    /// Where its device tree goes.
    pub(crate) dump_dtb: Option<PathBuf>,
    /// How it is to be reached while it runs, if it is.
    pub(crate) reachable: Option<Reachable>,
}

/// A saved machine that is to go on.
#[derive(Debug)]
pub(crate) struct LoadRequest {
    /// Its state file.
    pub(crate) state: PathBuf,
    /// Who has its memory.
    pub(crate) memory: MemoryFrom,
    /// How large the host's pages behind it are to be.
    pub(crate) pages: Pages,
    /// The file with the pages that its guest needs first.
    pub(crate) working_set: Option<PathBuf>,
    /// What its devices use of this host, where that is something else.
    pub(crate) overrides: Vec<Override>,
    /// Where its serial port leads, where that is elsewhere.
    pub(crate) serial: Option<SerialSpec>,
    /// The registers whose loss is accepted.
    pub(crate) allow: BTreeSet<RegId>,
    /// Whether it goes on at once, and what the time since is to its guest.
    pub(crate) resume: Option<Clock>,
    /// How it is to be reached while it runs, if it is.
    pub(crate) reachable: Option<Reachable>,
}

/// Who has the memory of a saved machine.
#[derive(Debug)]
pub(crate) enum MemoryFrom {
    /// This memory file.
    File(PathBuf),
    /// The page server on this socket.
    Server(PathBuf),
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All that was asked for is done.
    Done,
    /// The guest's kernel panicked.
    GuestPanic,
    /// A signal with this number ended the machine.
    Signal(u8),
}

/// How a command of kedge's own ends with it.
impl From<Outcome> for Status {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::OK,
            Outcome::GuestPanic => Self::GUEST_PANIC,
            Outcome::Signal(signal) => Self::from_signal(signal),
        }
    }
}

/// Why it did not go.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    /// There is no hypervisor.
    #[error(transparent)]
    Hypervisor(#[from] OpenError),
    /// There can be no such machine here.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A snapshot's files cannot be used.
    #[error(transparent)]
    Snapshot(#[from] kedge_saved_state::OpenError),
    /// A saved machine has no such devices.
    #[error(transparent)]
    Override(#[from] OverrideError),
    /// A saved machine cannot go on here.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A file or standard output does not take what was asked for.
    #[error("cannot write {what} to {place}")]
    Write {
        /// What was to be written.
        what: &'static str,
        /// Where to.
        place: String,
        /// What the host said.
        source: io::Error,
    },
    /// Standard input cannot be connected to the guest.
    #[error("cannot connect standard input to the guest")]
    Input(#[source] io::Error),
    /// It cannot be reached as it is to be.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The machine ended early.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl Fix for MachineError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Hypervisor(source) => source.fix(),
            Self::Build(source) => source.fix(),
            Self::Snapshot(source) => source.fix(),
            Self::Override(source) => source.fix(),
            Self::Restore(source) => source.fix(),
            Self::Run(source) => source.fix(),
            Self::Api(source) => source.fix(),
            Self::Write { .. } => None,
            Self::Input(_) => Some("run it with `< /dev/null`".to_owned()),
        }
    }
}

/// Does what `request` asks for.
///
/// # Errors
/// There is no hypervisor, the machine cannot be built, or it cannot run on.
pub(crate) fn enter(request: Request) -> Result<Outcome, MachineError> {
    let Request { spec, dry_run, dump_dtb, reachable } = request;
    if dry_run {
        print(&spec)?;
        if dump_dtb.is_none() {
            return Ok(Outcome::Done);
        }
    }
    let hypervisor = Arc::new(Kvm::open()?);
    let stdio = spec.serial == SerialSpec::Stdio;
    let build = |surroundings| {
        let machine = Machine::build(spec, hypervisor, surroundings)?;
        if let Some(path) = dump_dtb {
            write_device_tree(&path, &machine)?;
        }
        Ok(machine)
    };
    if dry_run {
        return build(surroundings()).map(|_| Outcome::Done);
    }
    operate(stdio, reachable, build)
}

/// Lets the machine of a snapshot go on.
///
/// # Errors
/// The snapshot cannot be loaded here, there is no hypervisor, or the machine cannot run
/// on.
pub(crate) fn load(request: &LoadRequest) -> Result<Outcome, MachineError> {
    let LoadRequest { state, memory, overrides, serial, allow, resume, reachable, .. } = request;
    let (snapshot, state_file);
    let mut restoration = match memory {
        MemoryFrom::File(memory) => {
            snapshot = Snapshot::open(state, memory)?;
            Restoration::of(&snapshot)?
        }
        MemoryFrom::Server(socket) => {
            state_file = open_state(state)?;
            Restoration::served(&state_file, socket.clone())?
        }
    };
    restoration.pages = request.pages;
    restoration.working_set.clone_from(&request.working_set);
    overrides::apply(&mut restoration.spec.devices, overrides)?;
    restoration.spec.serial = serial.clone().unwrap_or(restoration.spec.serial);
    restoration.allow.extend(allow);
    restoration.resume = *resume;
    let hypervisor = Arc::new(Kvm::open()?);
    let stdio = restoration.spec.serial == SerialSpec::Stdio;
    operate(stdio, reachable.clone(), |surroundings| {
        Ok(Machine::restore(restoration, hypervisor, surroundings)?)
    })
}

/// Makes a machine and runs it, with its console on standard input and output where its
/// serial port leads there, and with its API.
fn operate(
    stdio: bool,
    reachable: Option<Reachable>,
    make: impl FnOnce(Surroundings) -> Result<Machine, MachineError>,
) -> Result<Outcome, MachineError> {
    let reachable = reachable.map(Reachable::claim).transpose()?;
    let input = stdio.then(|| Unconnected::new(io::stdin())).transpose();
    let input = input.map_err(MachineError::Input)?;
    let on_terminal = input.as_ref().is_some_and(Unconnected::is_terminal);
    // Its name and its socket are to go with it.
    let ending = reachable.as_ref().filter(|_| !on_terminal).map(|_| Ending::hold());
    let ending = ending.transpose().map_err(MachineError::Input)?;
    let mut machine = make(surroundings())?;
    let console = input.map(|input| input.connect(Connection::to(&machine))).transpose();
    let console = console.map_err(MachineError::Input)?;
    let ending = ending.map(|ending| ending.connect(Connection::to(&machine))).transpose();
    let ending = ending.map_err(MachineError::Input)?;
    let api = reachable.map(|reachable| reachable.serve(machine.handle())).transpose()?;
    let ended = machine.run();
    // Clients that wait learn that it has ended.
    drop(api);
    let ended = ended?;
    if let Some(news) = news(ended) {
        // Nothing is lost where nobody reads it.
        let _ = writeln!(io::stderr(), "{news}");
    }
    let signal = console.as_ref().and_then(Console::signal);
    Ok(outcome(ended, signal.or_else(|| ending.and_then(|by| by.get().copied()))))
}

fn surroundings() -> Surroundings {
    Surroundings::new(io::stdout()).on_panic(repeat).guarding(guard).on_stuck(give_up)
}

/// Handles the end of memory that is a file's.
fn guard(lost: Arc<Lost>) {
    if let Err(error) = lost_memory::guard(lost) {
        warn!(%error, "kedge cannot outlive the loss of the guest's memory file");
    }
}

/// Ends the process where its machine cannot end.
fn give_up(error: &RunError) {
    let _ = writeln!(io::stderr(), "{}", kedge_diag::report(error));
    process::exit(Status::ERROR.0.into());
}

fn outcome(ended: Ended, signal: Option<u8>) -> Outcome {
    match (ended, signal) {
        (Ended::Panicked, _) => Outcome::GuestPanic,
        (Ended::Stopped, Some(signal)) => Outcome::Signal(signal),
        (Ended::Off | Ended::Hibernated | Ended::Reset(_) | Ended::Stopped, _) => Outcome::Done,
    }
}

/// What its user has to know of a guest's end, where the status does not tell.
fn news(ended: Ended) -> Option<String> {
    match ended {
        Ended::Hibernated => {
            Some("the guest hibernated: it goes on from its disks, keep them".to_owned())
        }
        Ended::Reset(Reset::Chosen { kind, cookie }) => {
            Some(format!("the guest reset in its own way: type {kind:#x}, cookie {cookie:#x}"))
        }
        Ended::Off | Ended::Reset(Reset::Cold) | Ended::Stopped | Ended::Panicked => None,
    }
}

/// The console's way to a machine.
#[derive(Clone)]
struct Connection {
    input: SerialInput,
    stopper: Stopper,
}

impl Connection {
    fn to(machine: &Machine) -> Self {
        Self { input: machine.serial_input(), stopper: machine.stopper() }
    }
}

impl Guest for Connection {
    fn send(&self, bytes: &[u8]) {
        // A machine that has ended takes nothing more.
        let _ = self.input.send(bytes);
    }

    fn stop(&self) {
        self.stopper.stop();
    }
}

/// Repeats a line of a panic where it is seen.
fn repeat(line: &str) {
    let _ = writeln!(io::stderr(), "guest: {line}");
}

fn print(spec: &MachineSpec) -> Result<(), MachineError> {
    let failed = |source| MachineError::Write {
        what: "the machine",
        place: "standard output".to_owned(),
        source,
    };
    let text = serde_json::to_string_pretty(spec).map_err(io::Error::from);
    text.and_then(|text| output::print(&(text + "\n"))).map_err(failed)
}

fn write_device_tree(path: &Path, machine: &Machine) -> Result<(), MachineError> {
    fs::write(path, machine.device_tree()).map_err(|source| MachineError::Write {
        what: "the device tree",
        place: format!("`{}`", path.display()),
        source,
    })
}
