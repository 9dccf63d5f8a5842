//! A machine that clients of the API are to name: until then the process waits, and where
//! one cannot be had, it waits for another.

mod load;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kedge_api::call::{Call, LoadSnapshot, Setting};

use kedge_vmm::spec::SerialSpec;
use kedge_vmm::{Ended, Machine, RunError, Surroundings};
use tracing::warn;

pub(crate) use load::{DISKS, LoadError, NETWORK, VSOCK, kind};

use crate::api::{self, Ender, Message, Order, OrderError, Orders, Pending, Reachable, View};
use crate::companions::Companions;
use crate::console::{Console, Ending, Guest, Unconnected};
use crate::firecracker::{Beside, Draft};
use crate::hypervisor::Host;
use crate::machine::{self, Connection, MachineError, Opened, Outcome};
use crate::metering::Act;
use crate::ready::{make_ready, tidy};
use load::BadLoad;

/// Answers the API until a client has described a machine and started it, or has had a
/// snapshot loaded, and runs that machine; `beside` says what clients leave out.
///
/// # Errors
/// There can be no API, or the machine cannot run on.
pub(crate) fn enter(reachable: Reachable, beside: Beside) -> Result<Outcome, MachineError> {
    let companions = reachable.companions.clone();
    let claimed = reachable.claim()?;
    // Before there are other threads: they are to leave signals alone.
    let input = Unconnected::new(io::stdin()).map_err(MachineError::Input)?;
    let ending = Ending::hold();
    let (api, orders) = claimed.open()?;
    let ended_by = ending.connect(orders.ender()).map_err(MachineError::Input)?;
    let draft = Draft::new(beside);
    let mut site = Site { hypervisor: None, input: Some(input), console: None, draft, companions };
    let ended = site.serve(orders);
    drop(api);
    let console = site.console.as_ref().and_then(Console::signal);
    let signal = console.or_else(|| ended_by.get().copied());
    Ok(match ended? {
        Some(ended) => machine::conclude(ended, signal),
        None => Outcome::Signal(signal.unwrap_or_default()),
    })
}

/// How long nobody asks for anything before a machine is made ready: whoever comes as soon as
/// there is an API is to be answered, not to wait for that.
const IDLE: Duration = Duration::from_millis(3);

/// What there is already for a machine.
struct Site {
    hypervisor: Option<Arc<Host>>,
    input: Option<Unconnected>,
    /// Where the machine is on standard input and output.
    console: Option<Console>,
    /// What clients have said of it.
    draft: Draft,
    /// What is beside it.
    companions: Companions,
}

impl Site {
    /// Makes the machines that clients ask for, until one has run: how it ended. None
    /// where the process is to end before there is one.
    fn serve(&mut self, mut orders: Orders) -> Result<Option<Ended>, RunError> {
        loop {
            let Order { call, pending } = match self.next(&orders) {
                Message::Order(order) => *order,
                Message::Stop => return Ok(None),
            };
            let asked = Act::of(&call).map(|act| (act, Instant::now()));
            let made = match call {
                Call::Set(setting) => {
                    self.set(setting, &orders, pending);
                    continue;
                }
                Call::CheckSnapshot(wanted) => {
                    api::check(wanted, pending);
                    continue;
                }
                Call::Start => self.build(),
                Call::LoadSnapshot(load) => self.load(&load),
                _ => Err(OrderError::NotStarted),
            };
            match made {
                Err(error) => pending.fail(&error),
                Ok(machine) => match self.run(machine, asked, (pending, orders)) {
                    Ok(ended) => return ended.map(Some),
                    Err(not_begun) => {
                        let (pending, others, error) = *not_begun;
                        orders = others;
                        pending.fail(&MachineError::from(error).into());
                    }
                },
            }
        }
    }

    /// What clients ask for next. Once they ask for nothing, a machine is made ready.
    fn next(&mut self, orders: &Orders) -> Message {
        if self.hypervisor.is_some() {
            return orders.next();
        }
        orders.next_within(IDLE).unwrap_or_else(|| {
            // Where there is none, whoever asks for a machine is told.
            self.hypervisor = Host::open().ok().map(Arc::new);
            self.hypervisor.iter().for_each(|hypervisor| make_ready(hypervisor));
            orders.next()
        })
    }

    /// Takes what a client says of the machine.
    fn set(&mut self, setting: Setting, orders: &Orders, pending: Pending) {
        match self.draft.set(setting) {
            Ok(()) => {
                orders.shown().set(View::of(self.draft.configuration()));
                pending.done();
            }
            Err(error) => pending.fail(&error.into()),
        }
    }

    /// The hypervisor.
    fn hypervisor(&self) -> Result<Arc<Host>, MachineError> {
        match &self.hypervisor {
            Some(open) => Ok(Arc::clone(open)),
            None => Ok(Arc::new(Host::open()?)),
        }
    }

    fn surroundings(&self) -> Surroundings {
        machine::surroundings(Some(&self.companions))
    }

    /// Makes the machine that clients have described.
    fn build(&self) -> Result<Made, OrderError> {
        let spec = self.draft.spec()?;
        let stdio = spec.serial == SerialSpec::Stdio;
        let notes_changes = self.draft.configuration().size().is_ok_and(|size| size.notes_changes);
        let surroundings = self.surroundings().with_open(self.draft.open_devices());
        let built = Machine::build(spec, self.hypervisor()?, surroundings);
        let mut machine = built.map_err(MachineError::from)?;
        if notes_changes {
            machine.note_changes().map_err(MachineError::from)?;
        }
        Ok(Made { machine, stdio, view: None, opened: None })
    }

    /// Makes the machine of a snapshot.
    fn load(&self, load: &LoadSnapshot) -> Result<Made, OrderError> {
        if self.draft.configuration().is_begun() {
            return Err(LoadError::Described.into());
        }
        Ok(self.restore(load).map_err(|error| error.of(&load.snapshot_path))?)
    }

    fn restore(&self, load: &LoadSnapshot) -> Result<Made, BadLoad> {
        let mut request = load::request(load)?;
        let serial = &self.draft.configuration().serial;
        request.serial = request.serial.or(serial.clone().map(SerialSpec::File));
        let opened = request.open()?;
        let loading = request.read(&opened)?;
        let (stdio, view) = (loading.is_on_stdio(), Some(loading.view()));
        let machine = loading.restore(self.hypervisor()?, self.surroundings())?;
        Ok(Made { machine, stdio, view, opened: Some(opened) })
    }

    /// Runs a machine, and tells who asked for it once it does; `asked` is when, and for
    /// what, where that is measured.
    ///
    /// # Errors
    /// It cannot; who asked for it was not told, and others may ask for another.
    fn run(
        &mut self,
        Made { mut machine, stdio, view, opened }: Made,
        asked: Option<(Act, Instant)>,
        clients: (Pending, Orders),
    ) -> Result<Result<Ended, RunError>, NotBegun> {
        let (handle, guest) = (machine.handle(), stdio.then(|| Connection::to(&machine)));
        let mut waiting = Some((clients, opened));
        let ended = machine.run_telling(|| {
            let Some(((pending, orders), opened)) = waiting.take() else { return };
            view.into_iter().for_each(|view| orders.shown().set(view));
            orders.hand_over(handle);
            let metering = &self.companions.metering;
            asked.into_iter().for_each(|(act, since)| metering.done(act, since.elapsed()));
            pending.done();
            self.hypervisor.iter().for_each(|hypervisor| tidy(hypervisor));
            metering.begin();
            self.connect(guest);
            drop(opened);
        });
        match (ended, waiting) {
            (Err(error), Some(((pending, orders), _))) => Err(Box::new((pending, orders, error))),
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
type NotBegun = Box<(Pending, Orders, RunError)>;

/// A machine that was made for a client.
struct Made {
    machine: Machine,
    /// Whether its serial port is on standard input and output.
    stdio: bool,
    /// What is shown of it, where that is not what clients said.
    view: Option<View>,
    /// What it was made of: it takes a while to drop, and nobody is to wait for that.
    opened: Option<Opened>,
}

impl Guest for Ender {
    fn send(&self, _bytes: &[u8]) {
        // Signals come this way, and nothing that is typed.
    }

    fn stop(&self) {
        self.end();
    }
}
