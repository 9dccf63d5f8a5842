//! A machine's API at work: a thread that speaks HTTP at its socket and answers what can
//! be answered at once, and one that asks the machine for all else, in order. Before there
//! is a machine, whoever is to make it takes the place of the latter.

mod door;
mod refusal;
mod shown;
mod task;
mod told;
mod watch;
mod work;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use event_manager::{EventManager, RemoteEndpoint, SubscriberOps};
use kedge_api::http::{Limits, ListenError, Server};
use kedge_diag::Fix;
use kedge_vmm::Handle;
use tracing::info;

use crate::companions::Companions;
use crate::console::Offer;
use crate::events::Events;
use crate::logging::Control as LogControl;
use crate::machines::{Claim, ClaimError};

pub(crate) use door::Identity;
use door::MachineDoor;
pub(crate) use refusal::OrderError;
pub(crate) use shown::{Shown, View};
pub(crate) use told::Told;
use work::Work;
pub(crate) use work::{Ender, Message, Order, Orders, Pending, check};

/// How a machine is to be reached while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Reachable {
    /// Who it says it is.
    pub(crate) identity: Identity,
    /// Whether others are to find it by its name.
    pub(crate) named: bool,
    /// Its socket; that of its name where none is given.
    pub(crate) socket: Option<PathBuf>,
    /// What clients are held to.
    pub(crate) limits: Limits,
    /// The log, where clients may change it.
    pub(crate) log: Option<LogControl>,
    /// What it shows of itself, where that is not its specification.
    pub(crate) view: Option<View>,
    /// What is beside it.
    pub(crate) companions: Companions,
    /// Whether its serial port is offered in the folder of its name.
    pub(crate) offers_console: bool,
}

/// A machine's name and the way to it, before there is a machine.
#[derive(Debug)]
pub(crate) struct Claimed {
    reachable: Reachable,
    claim: Option<Claim>,
}

impl Reachable {
    /// By no name; with a log that clients have no say in.
    pub(crate) fn new(identity: Identity, socket: Option<PathBuf>, limits: Limits) -> Self {
        let companions = Companions::usual(&identity.id);
        let (log, view, named, offers_console) = (None, None, false, false);
        Self { identity, named, socket, limits, log, view, companions, offers_console }
    }

    /// The same, showing `view`, unless it shows another one.
    #[must_use]
    pub(crate) fn showing(self, view: View) -> Self {
        Self { view: self.view.or(Some(view)), ..self }
    }

    /// Takes the machine's name, so that two of one name do not come far.
    ///
    /// # Errors
    /// Another machine has it.
    pub(crate) fn claim(self) -> Result<Claimed, ApiError> {
        let claim = self.named.then(|| Claim::new(&self.identity.id)).transpose()?;
        Ok(Claimed { reachable: self, claim })
    }
}

impl Claimed {
    /// Answers for the machine behind `handle`.
    ///
    /// # Errors
    /// The socket's path is taken or cannot be written, or the host is out of resources.
    pub(crate) fn serve(self, handle: Handle) -> Result<Api, ApiError> {
        let (api, orders) = self.open()?;
        orders.hand_over(handle);
        Ok(api)
    }

    /// The serial port's place in the machine's folder, where it is to be offered there.
    ///
    /// # Errors
    /// Its socket cannot be had.
    pub(crate) fn offer(&self) -> Result<Option<Offer>, ApiError> {
        let claim = self.claim.as_ref().filter(|_| self.reachable.offers_console);
        claim.map(|claim| Offer::at(&claim.console())).transpose().map_err(ApiError::Console)
    }

    /// Answers before there is a machine: what is asked for reaches the caller.
    ///
    /// # Errors
    /// The socket's path is taken or cannot be written, or the host is out of resources.
    pub(crate) fn open(self) -> Result<(Api, Orders), ApiError> {
        let Self { reachable, claim } = self;
        let Reachable { identity, socket, limits, log, view, companions, .. } = reachable;
        let found = claim.as_ref().map(Claim::socket);
        if let (Some(socket), Some(claim)) = (&socket, &claim) {
            claim.lead_to(socket)?;
        }
        let socket = socket.or(found).unwrap_or_default();
        let (way, orders, work) = work::orders(&companions.metering);
        orders.shown().set(view.unwrap_or_default());
        let events = companions.events.clone();
        let door = MachineDoor::new(identity, way, log, companions);
        let mut api = Api::open(&socket, limits, door, work)?;
        (api.claim, api.events) = (claim, Some(events));
        Ok((api, orders))
    }
}

/// Why a machine has no API.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// Its name cannot be had.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// Its socket cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its serial port cannot be offered.
    #[error("cannot offer the serial port in the machine's folder")]
    Console(#[source] io::Error),
    /// The host has no more threads or events.
    #[error("cannot start the API's threads")]
    Start(#[source] io::Error),
}

impl Fix for ApiError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Claim(source) => source.fix(),
            Self::Listen(source) => source.fix(),
            Self::Console(_) => Some("choose a shorter name (--id)".to_owned()),
            Self::Start(_) => Some("raise the limits of the process (ulimit -a)".to_owned()),
        }
    }
}

/// An API. Dropped, its socket is gone, and who still waits there is told so.
pub(crate) struct Api {
    stop: Arc<AtomicBool>,
    endpoint: RemoteEndpoint<Server<MachineDoor>>,
    thread: Option<JoinHandle<()>>,
    /// Who hears of what becomes of the machine: nothing more, without its API.
    events: Option<Events>,
    /// The machine's name, which goes last.
    claim: Option<Claim>,
}

/// Neither thread keeps much on its stack, and a large one could end up on a huge page.
const STACK_BYTES: usize = 128 * 1024;

impl Api {
    fn open(
        socket: &Path,
        limits: Limits,
        door: MachineDoor,
        work: Work,
    ) -> Result<Self, ApiError> {
        let server = Server::listen(socket, limits, door)?;
        let mut manager =
            EventManager::new().map_err(|error| ApiError::Start(io::Error::other(error)))?;
        manager.add_subscriber(server);
        let endpoint = manager.remote_endpoint();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        // Started before anybody waits for what it does.
        thread("api-work", move || work.run())?;
        let place = socket.to_owned();
        let thread = thread("fc_api", move || {
            info!("API server started.");
            info!("Listening on API socket ({place:?}).");
            while !stopped.load(Ordering::Acquire) {
                // A signal may interrupt the wait; clients' errors are their own.
                let _ = manager.run();
            }
            // The last of what clients listen to may have come since.
            let _ = manager.run_with_timeout(0);
        })?;
        Ok(Self { stop, endpoint, thread: Some(thread), events: None, claim: None })
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ApiError> {
    let builder = Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
    builder.spawn(body).map_err(ApiError::Start)
}

impl Drop for Api {
    fn drop(&mut self) {
        self.events.iter().for_each(Events::end);
        self.stop.store(true, Ordering::Release);
        // If the kick fails the loop is gone already.
        let _ = self.endpoint.kick();
        // A panic there has been reported by its hook.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}
