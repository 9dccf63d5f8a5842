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

use kedge_ids::RegId;
use kedge_saved_state::{Snapshot, StateFile, open_state};
use kedge_vmm::spec::{MachineSpec, SerialSpec};
use kedge_vmm::{
    BuildError, Clock, Ended, Lost, Machine, Pages, Reset, Restoration, RestoreError, RunError,
    SerialInput, Stopper, Surroundings,
};
use tracing::{info, warn};

use crate::api::{ApiError, Claimed, Reachable, View};
use crate::companions::Companions;
use crate::console::{Console, Ending, Guest, Unconnected};
use crate::host_notes::HostNotes;
use crate::hypervisor::Host;
use crate::report::Report;
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
    /// Whether what changes is noted, so that differences can be saved.
    pub(crate) notes_changes: bool,
    /// How it is to be reached while it runs, if it is.
    pub(crate) reachable: Option<Reachable>,
    /// What is beside it, where anybody can ask for that.
    pub(crate) companions: Option<Companions>,
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
    /// Whether what changes is noted, so that differences can be saved.
    pub(crate) notes_changes: bool,
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
    let Request { spec, companions, dry_run, dump_dtb, notes_changes, reachable } = request;
    if dry_run {
        print(&spec)?;
        if dump_dtb.is_none() {
            return Ok(Outcome::Done);
        }
    }
    let hypervisor = Arc::new(Host::open()?);
    let habits = Habits::of(&spec);
    let reachable =
        reachable.map(|reachable| reachable.showing(View::of_spec(&spec, notes_changes)));
    let build = |surroundings| {
        let mut machine = Machine::build(spec, hypervisor, surroundings)?;
        if notes_changes {
            machine.note_changes()?;
        }
        if let Some(path) = dump_dtb {
            write_device_tree(&path, &machine)?;
        }
        Ok(machine)
    };
    if dry_run {
        return build(surroundings(companions.as_ref())).map(|_| Outcome::Done);
    }
    operate(habits, (reachable, None), companions.as_ref(), build)
}

/// Lets the machine of a snapshot go on; `reachable` says how it is to be reached, `report`
/// is told once it runs.
///
/// # Errors
/// The snapshot cannot be loaded here, there is no hypervisor, or the machine cannot run
/// on.
pub(crate) fn load(
    request: LoadRequest,
    reachable: Option<Reachable>,
    report: Option<Report>,
) -> Result<Outcome, MachineError> {
    let opened = request.open()?;
    let loading = request.read(&opened)?;
    let hypervisor = Arc::new(Host::open()?);
    let habits = Habits::of(&loading.restoration.spec);
    let reachable = reachable.map(|reachable| reachable.showing(loading.view()));
    let companions = reachable.as_ref().map(|reachable| reachable.companions.clone());
    operate(habits, (reachable, report), companions.as_ref(), |surroundings| {
        loading.restore(hypervisor, surroundings)
    })
}

impl LoadRequest {
    /// Opens its files.
    ///
    /// # Errors
    /// They are no snapshot.
    pub(crate) fn open(&self) -> Result<Opened, MachineError> {
        Ok(match &self.memory {
            MemoryFrom::File(memory) => Opened::Whole(Snapshot::open(&self.state, memory)?),
            MemoryFrom::Server(socket) => Opened::Served(open_state(&self.state)?, socket.clone()),
        })
    }

    /// The machine in what was `opened`, as it is asked for.
    ///
    /// # Errors
    /// It holds none, or one that cannot be so.
    pub(crate) fn read(self, opened: &Opened) -> Result<Loading<'_>, MachineError> {
        let Self { pages, working_set, overrides, serial, allow, resume, notes_changes, .. } = self;
        let mut restoration = match opened {
            Opened::Whole(snapshot) => Restoration::of(snapshot)?,
            Opened::Served(state, socket) => Restoration::served(state, socket.clone())?,
        };
        restoration.pages = pages;
        restoration.working_set = working_set;
        overrides::apply(&mut restoration.spec.devices, &overrides)?;
        restoration.spec.serial = serial.unwrap_or(restoration.spec.serial);
        restoration.allow.extend(allow);
        restoration.resume = resume;
        Ok(Loading { restoration, notes_changes })
    }
}

/// What of a snapshot is open.
pub(crate) enum Opened {
    /// Both of its files.
    Whole(Snapshot),
    /// Its state file; its memory is with the page server on this socket.
    Served(StateFile, PathBuf),
}

/// A saved machine, read and not made yet.
pub(crate) struct Loading<'s> {
    restoration: Restoration<'s>,
    notes_changes: bool,
}

impl Loading<'_> {
    /// Whether its serial port is on standard input and output.
    pub(crate) fn is_on_stdio(&self) -> bool {
        self.restoration.spec.serial == SerialSpec::Stdio
    }

    /// What is shown of it.
    pub(crate) fn view(&self) -> View {
        View::of_spec(&self.restoration.spec, self.notes_changes)
    }

    /// Makes it.
    ///
    /// # Errors
    /// This host cannot be what its guest knows.
    pub(crate) fn restore(
        self,
        hypervisor: Arc<Host>,
        surroundings: Surroundings,
    ) -> Result<Machine, MachineError> {
        let mut machine = Machine::restore(self.restoration, hypervisor, surroundings)?;
        if self.notes_changes {
            machine.note_changes()?;
        }
        Ok(machine)
    }
}

/// What of a machine its process has to know.
#[derive(Clone, Copy, Debug)]
struct Habits {
    /// Its serial port is on standard input and output.
    on_stdio: bool,
    /// Something of it is to be removed when it ends.
    leaves_behind: bool,
}

impl Habits {
    fn of(spec: &MachineSpec) -> Self {
        Self {
            on_stdio: spec.serial == SerialSpec::Stdio,
            leaves_behind: spec.devices.iter().any(|device| device.leaves_behind()),
        }
    }
}

/// Makes a machine and runs it, with its console on standard input and output where its
/// serial port leads there, and with its API.
fn operate(
    habits: Habits,
    (reachable, report): (Option<Reachable>, Option<Report>),
    companions: Option<&Companions>,
    make: impl FnOnce(Surroundings) -> Result<Machine, MachineError>,
) -> Result<Outcome, MachineError> {
    let reachable = reachable.map(Reachable::claim).transpose()?;
    let offer = reachable.as_ref().map(Claimed::offer).transpose()?.flatten();
    let input =
        (habits.on_stdio && offer.is_none()).then(|| Unconnected::new(io::stdin())).transpose();
    let input = input.map_err(MachineError::Input)?;
    let on_terminal = input.as_ref().is_some_and(Unconnected::is_terminal);
    // Its name and its sockets are to go with it.
    let is_to_tidy = reachable.is_some() || habits.leaves_behind;
    let ending = (is_to_tidy && !on_terminal).then(Ending::hold);
    let mut machine = make(match &offer {
        Some(offer) => around(companions, offer.port()),
        None => surroundings(companions),
    })?;
    if let Some(offer) = offer {
        offer.connect(Connection::to(&machine)).map_err(MachineError::Input)?;
    }
    let console = input.map(|input| input.connect(Connection::to(&machine))).transpose();
    let console = console.map_err(MachineError::Input)?;
    let ending = ending.map(|ending| ending.connect(Connection::to(&machine))).transpose();
    let ending = ending.map_err(MachineError::Input)?;
    let api = reachable.map(|reachable| reachable.serve(machine.handle())).transpose()?;
    let stopper = machine.stopper();
    let ended = machine.run_telling(|| {
        companions.iter().for_each(|companions| companions.metering.begin());
        // A machine that nobody can be told of is nobody's.
        if let Some(Err(_)) = report.map(Report::send) {
            stopper.stop();
        }
    });
    // Clients that wait learn that it has ended.
    drop(api);
    let signal = console.as_ref().and_then(Console::signal);
    Ok(conclude(ended?, signal.or_else(|| ending.and_then(|by| by.get().copied()))))
}

/// What came of a machine that `ended`, perhaps by a signal.
pub(crate) fn conclude(ended: Ended, signal: Option<u8>) -> Outcome {
    info!("Vmm is stopping.");
    if let Some(news) = news(ended) {
        // Nothing is lost where nobody reads it.
        let _ = writeln!(io::stderr(), "{news}");
    }
    outcome(ended, signal)
}

/// What is around a machine on standard output.
pub(crate) fn surroundings(companions: Option<&Companions>) -> Surroundings {
    around(companions, io::stdout())
}

/// What begins the names of vCPUs' threads: Firecracker's, by which tools give them CPUs.
const VCPU_THREADS: &str = "fc_vcpu ";

fn around(companions: Option<&Companions>, output: impl Write + Send + 'static) -> Surroundings {
    let surroundings = Surroundings::new(output)
        .on_panic(repeat)
        .guarding(guard)
        .on_stuck(give_up)
        .naming_vcpus(VCPU_THREADS)
        .with_notes(HostNotes::beside_machines());
    match companions {
        Some(companions) => companions.around(surroundings),
        None => surroundings,
    }
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
pub(crate) struct Connection {
    input: SerialInput,
    stopper: Stopper,
}

impl Connection {
    pub(crate) fn to(machine: &Machine) -> Self {
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
