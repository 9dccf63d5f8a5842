//! A machine that clients of the API are to name: until then the process waits, and where
//! one cannot be had, it waits for another.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use kedge_api::call::{Call, Clock as WantedClock, HugePages, LoadSnapshot, MemoryBackend};
use kedge_api::http::Response;
use kedge_devices::virtio::catalog::{KINDS, Kind};
use kedge_devices::virtio::overrides::{Override, OverrideError};
use kedge_diag::{Fix, one_line};
use kedge_firmware::{NoRegister, register_named};
use kedge_hv_kvm::Kvm;
use kedge_saved_state::OpenError;
use kedge_vmm::spec::SerialSpec;
use kedge_vmm::{Clock, Ended, Machine, Pages, RunError};
use serde_json::{Value, json};
use tracing::warn;

use crate::api::{Ender, Message, Order, Orders, Reachable};
use crate::console::{Console, Ending, Guest, Unconnected};
use crate::machine::{self, Connection, LoadRequest, MachineError, MemoryFrom, Opened, Outcome};
use crate::ready::{make_ready, tidy};

/// Why a client's snapshot is not loaded.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    /// There can be no such machine here.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// No such register.
    #[error(transparent)]
    Register(#[from] NoRegister),
}

impl Fix for LoadError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Machine(source) => source.fix(),
            Self::Register(source) => source.fix(),
        }
    }
}

impl From<OverrideError> for LoadError {
    fn from(error: OverrideError) -> Self {
        Self::Machine(error.into())
    }
}

/// Answers the API until a client has a snapshot loaded, and runs its machine.
///
/// # Errors
/// There can be no API, or the machine that was loaded cannot run on.
pub(crate) fn enter(reachable: Reachable) -> Result<Outcome, MachineError> {
    let claimed = reachable.claim()?;
    // Before there are other threads: they are to leave signals alone.
    let input = Unconnected::new(io::stdin()).map_err(MachineError::Input)?;
    let ending = Ending::hold();
    let (api, orders) = claimed.open()?;
    let ended_by = ending.connect(orders.ender()).map_err(MachineError::Input)?;
    // Where there is none, whoever asks for a machine is told.
    let hypervisor = Kvm::open().ok().map(Arc::new);
    hypervisor.iter().for_each(|hypervisor| make_ready(hypervisor));
    let mut site = Site { hypervisor, input: Some(input), console: None };
    let ended = site.serve(orders);
    drop(api);
    let console = site.console.as_ref().and_then(Console::signal);
    let signal = console.or_else(|| ended_by.get().copied());
    Ok(match ended? {
        Some(ended) => machine::conclude(ended, signal),
        None => Outcome::Signal(signal.unwrap_or_default()),
    })
}

/// What there is already for a machine.
struct Site {
    hypervisor: Option<Arc<Kvm>>,
    input: Option<Unconnected>,
    /// Where the machine is on standard input and output.
    console: Option<Console>,
}

impl Site {
    /// Makes the machines that clients ask for, until one has run: how it ended. None
    /// where the process is to end before there is one.
    fn serve(&mut self, mut orders: Orders) -> Result<Option<Ended>, RunError> {
        loop {
            let order = match orders.next() {
                Message::Order(order) => *order,
                Message::Stop => return Ok(None),
            };
            let Call::LoadSnapshot(load) = &order.call else {
                order.answer_too_early();
                continue;
            };
            match self.make(load) {
                Err(error) => {
                    let fault = fault(load, &error);
                    order.answer(Err(fault));
                }
                Ok(machine) => match self.run(machine, (order, orders)) {
                    Ok(ended) => return ended.map(Some),
                    Err(not_begun) => {
                        let (order, others, error) = *not_begun;
                        orders = others;
                        order.answer(Err(format!("Load snapshot error: {}", one_line(&error))));
                    }
                },
            }
        }
    }

    /// Makes the machine of a snapshot.
    fn make(&mut self, load: &LoadSnapshot) -> Result<Made, LoadError> {
        let request = request(load)?;
        let opened = request.open()?;
        let loading = request.read(&opened)?;
        let stdio = loading.is_on_stdio();
        let hypervisor = match &self.hypervisor {
            Some(open) => Arc::clone(open),
            None => Arc::new(Kvm::open().map_err(MachineError::from)?),
        };
        let machine = loading.restore(hypervisor, machine::surroundings())?;
        Ok(Made { machine, stdio, opened })
    }

    /// Runs a machine, and tells who asked for it once it does.
    ///
    /// # Errors
    /// It cannot; who asked for it was not told, and others may ask for another.
    fn run(
        &mut self,
        Made { mut machine, stdio, opened }: Made,
        clients: (Order, Orders),
    ) -> Result<Result<Ended, RunError>, NotBegun> {
        let (handle, guest) = (machine.handle(), stdio.then(|| Connection::to(&machine)));
        let mut waiting = Some((clients, opened));
        let ended = machine.run_telling(|| {
            let Some(((order, orders), opened)) = waiting.take() else { return };
            orders.hand_over(handle);
            order.answer(Ok(Response::done()));
            self.hypervisor.iter().for_each(|hypervisor| tidy(hypervisor));
            self.connect(guest);
            drop(opened);
        });
        match (ended, waiting) {
            (Err(error), Some(((order, orders), _))) => Err(Box::new((order, orders, error))),
            (ended, _) => Ok(ended),
        }
    }

    /// Gives `guest` standard input, if that is where its serial port is.
    fn connect(&mut self, guest: Option<Connection>) {
        let (Some(input), Some(guest)) = (self.input.take(), guest) else { return };
        match input.connect(guest) {
            Ok(console) => self.console = Some(console),
            Err(error) => warn!("standard input cannot be connected to the guest: {error}"),
        }
    }
}

/// Whom a machine that cannot begin was made for, who else asks for one, and why it cannot.
type NotBegun = Box<(Order, Orders, RunError)>;

/// A machine that was made for a client.
struct Made {
    machine: Machine,
    /// Whether its serial port is on standard input and output.
    stdio: bool,
    /// What it was made of: it takes a while to drop, and nobody is to wait for that.
    opened: Opened,
}

impl Guest for Ender {
    fn send(&self, _bytes: &[u8]) {
        // Signals come this way, and nothing that is typed.
    }

    fn stop(&self) {
        self.end();
    }
}

/// What a client's words ask for.
///
/// # Errors
/// They ask for something that there is not.
fn request(load: &LoadSnapshot) -> Result<LoadRequest, LoadError> {
    let memory = match &load.memory {
        MemoryBackend::File(path) => MemoryFrom::File(path.clone()),
        MemoryBackend::Uffd(socket) => MemoryFrom::Server(socket.clone()),
    };
    let pages = match load.huge_pages {
        HugePages::Snapshot => Pages::AsSaved,
        HugePages::None => Pages::Small,
        HugePages::Transparent => Pages::Transparent,
        HugePages::Huge2M => Pages::Huge2M,
    };
    let mut overrides = Vec::new();
    for change in &load.network_overrides {
        overrides.extend(other(NETWORK, json!(change))?);
    }
    for change in &load.drive_overrides {
        overrides.extend(other(DISKS, json!(change))?);
    }
    if let Some(change) = &load.vsock_override {
        overrides.extend(other(VSOCK, json!(change))?);
    }
    let allow = load.allow.iter().map(|name| register_named(name));
    let clock = match load.clock {
        WantedClock::Profile => Clock::Profile,
        WantedClock::Stop => Clock::Stop,
        WantedClock::Advance => Clock::Advance,
    };
    Ok(LoadRequest {
        state: load.snapshot_path.clone(),
        memory,
        pages,
        working_set: load.working_set_path.clone(),
        overrides,
        serial: load.serial_override.as_ref().map(|serial| output_to(&serial.serial_out_path)),
        allow: allow.collect::<Result<BTreeSet<_>, _>>()?,
        resume: load.resume_vm.then_some(clock),
        notes_changes: load.track_dirty_pages,
    })
}

fn output_to(path: &Path) -> SerialSpec {
    SerialSpec::File(path.to_owned())
}

/// The key of network interfaces, which can be given something else of the host's.
pub(crate) const NETWORK: &str = "network-interfaces";
/// That of disks.
pub(crate) const DISKS: &str = "drives";
/// That of the vsock device.
pub(crate) const VSOCK: &str = "vsock";

/// The kind of devices with this key.
pub(crate) fn kind(key: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.key == key)
}

/// What a device of the kind with this key uses here.
fn other(key: &str, change: Value) -> Result<Option<Override>, OverrideError> {
    kind(key).map(|kind| Override::from_json(kind, change)).transpose()
}

/// What a client is told: it begins as Firecracker's clients expect (FIRECRACKER_API.md,
/// 6).
fn fault(load: &LoadSnapshot, error: &LoadError) -> String {
    const STATE: &str = "Failed to get snapshot state from file: ";
    const MEMORY: &str = "Failed to load guest memory: Error creating guest memory from file: \
                          Failed to load guest memory: ";
    let begin = match error {
        LoadError::Machine(MachineError::Snapshot(error)) => match error {
            OpenError::File { path, source } if *path == load.snapshot_path => {
                format!("{STATE}Failed to open snapshot file: {source}: ")
            }
            OpenError::File { source, .. } => format!("{MEMORY}{source}: "),
            OpenError::State { .. } => STATE.to_owned(),
            OpenError::Memory { .. } => MEMORY.to_owned(),
        },
        LoadError::Machine(MachineError::Override(OverrideError::NoSuch { noun, .. }))
            if kind(NETWORK).is_some_and(|kind| kind.noun == *noun) =>
        {
            "Unknown Network Device. ".to_owned()
        }
        LoadError::Machine(MachineError::Override(OverrideError::Which {
            noun, count: 0, ..
        })) if kind(VSOCK).is_some_and(|kind| kind.noun == *noun) => {
            "Unknown Vsock Device. ".to_owned()
        }
        _ => String::new(),
    };
    format!("Load snapshot error: Failed to restore from snapshot: {begin}{}", one_line(error))
}
