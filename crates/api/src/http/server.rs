//! A server on an event loop: its socket, its clients, and their answers.

use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use event_manager::{EventOps, Events, MutEventSubscriber};
use kedge_diag::Fix;
use tracing::{debug, warn};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::connection::{Connection, Next};
use super::reply::{Returned, Returns, Ticket};
use super::{Limits, Reply, Request, Response};

/// Where requests go.
pub trait Door: Send {
    /// Takes `request`. Must not wait: other clients are served by the same thread.
    fn enter(&mut self, request: Request, reply: Reply);
}

impl<F: FnMut(Request, Reply) + Send> Door for F {
    fn enter(&mut self, request: Request, reply: Reply) {
        self(request, reply);
    }
}

/// Why there can be no server.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// There is something at the path.
    #[error("there is something at the socket's path `{0}`")]
    Exists(PathBuf),
    /// The host does not allow it.
    #[error("cannot listen at `{path}`")]
    Bind {
        /// The socket's path.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The host has no more resources.
    #[error("cannot make an event for the API's answers")]
    Event(#[source] io::Error),
}

impl Fix for ListenError {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Exists(path) => format!(
                "stop the machine that listens there; if there is none, remove it: rm {}",
                path.display()
            ),
            Self::Bind { .. } => {
                "name a path of at most 107 bytes in a folder that can be written".to_owned()
            }
            Self::Event(_) => "raise the limit of open files (ulimit -n)".to_owned(),
        })
    }
}

/// Data of the events: who is ready. Connections come behind.
const LISTENER: u32 = 0;
const ANSWERS: u32 = 1;
const CONNECTIONS: u32 = 2;

/// A server. It works once an event loop has it; dropped, its socket is gone.
pub struct Server<D> {
    listener: UnixListener,
    path: PathBuf,
    limits: Limits,
    door: D,
    clients: Vec<Option<Client>>,
    /// How many there have been.
    count: u64,
    /// Whether the host had no file descriptor for one more: nobody is accepted until
    /// one goes.
    full: bool,
    answers: Receiver<(Ticket, Returned)>,
    returns: Returns,
}

struct Client {
    connection: Connection,
    number: u64,
    interest: EventSet,
}

impl<D: Door> Server<D> {
    /// Listens at `path`, to send requests through `door`.
    ///
    /// # Errors
    /// Something is there already, or the host does not allow it.
    pub fn listen(path: &Path, limits: Limits, door: D) -> Result<Self, ListenError> {
        let listener = UnixListener::bind(path).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::Exists(path.to_owned()),
            _ => ListenError::Bind { path: path.to_owned(), source },
        })?;
        let path = path.to_owned();
        listener.set_nonblocking(true).map_err(ListenError::Event)?;
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(ListenError::Event)?);
        let (sender, answers) = mpsc::channel();
        let returns = Returns { answers: sender, wake };
        let clients = Vec::new();
        Ok(Self { listener, path, limits, door, clients, count: 0, full: false, answers, returns })
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, ops),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Else the loop would be told again and again of who waits.
                    warn!("the API takes no more clients for now: {error}");
                    self.full = ops.remove(self.listening()).is_ok();
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: UnixStream, ops: &mut EventOps<'_>) {
        let connection = match Connection::new(stream) {
            Ok(connection) => connection,
            Err(error) => return debug!("a client of the API is lost: {error}"),
        };
        let free = self.clients.iter().position(Option::is_none);
        let place = free.unwrap_or(self.clients.len());
        let data = u32::try_from(place).ok().and_then(|place| place.checked_add(CONNECTIONS));
        let Some(data) = data.filter(|_| place < self.limits.connections) else {
            return connection.refuse(&Response::too_many());
        };
        let interest = connection.interest();
        if let Err(error) = ops.add(Events::with_data(connection.stream(), data, interest)) {
            return debug!("a client of the API is lost: {error}");
        }
        self.count += 1;
        let client = Some(Client { connection, number: self.count, interest });
        match self.clients.get_mut(place) {
            Some(free) => *free = client,
            None => self.clients.push(client),
        }
    }

    fn serve(&mut self, place: usize, events: EventSet, ops: &mut EventOps<'_>) {
        let limits = self.limits;
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else { return };
        let next = client.connection.ready(events, &limits);
        self.follow(place, next, ops);
    }

    fn deliver(&mut self, ops: &mut EventOps<'_>) {
        while let Ok((ticket, returned)) = self.answers.try_recv() {
            let client = self.clients.get_mut(ticket.place).and_then(Option::as_mut);
            // Who asked may have gone, and another come to its place.
            let Some(client) = client.filter(|client| client.number == ticket.number) else {
                continue;
            };
            let next = match returned {
                Returned::Rest(rest) => client.connection.answered(&rest, &self.limits),
                returned => client.connection.streamed(returned),
            };
            self.follow(ticket.place, next, ops);
        }
    }

    fn follow(&mut self, place: usize, next: Next, ops: &mut EventOps<'_>) {
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else { return };
        match next {
            Next::Close => return self.close(place, ops),
            Next::Wait => {}
            Next::Answer(request) => {
                let ticket = Ticket { place, number: client.number };
                let way = client.connection.way_back();
                self.door.enter(request, Reply::new(ticket, self.returns.clone(), way));
            }
        }
        self.look_again(place, ops);
    }

    /// Tells the loop what the client waits for now.
    fn look_again(&mut self, place: usize, ops: &mut EventOps<'_>) {
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else { return };
        let interest = client.connection.interest();
        let Some(data) = u32::try_from(place).ok().map(|place| place + CONNECTIONS) else { return };
        if interest == client.interest {
            return;
        }
        client.interest = interest;
        let events = Events::with_data(client.connection.stream(), data, interest);
        if ops.modify(events).is_err() {
            self.close(place, ops);
        }
    }

    fn close(&mut self, place: usize, ops: &mut EventOps<'_>) {
        let Some(client) = self.clients.get_mut(place).and_then(Option::take) else { return };
        // It may not be there any more; it closes either way.
        let _ = ops.remove(Events::empty(client.connection.stream()));
        drop(client);
        if std::mem::take(&mut self.full) {
            self.full = ops.add(self.listening()).is_err();
        }
    }

    fn listening(&self) -> Events {
        Events::with_data(&self.listener, LISTENER, EventSet::IN)
    }
}

impl<D: Door> MutEventSubscriber for Server<D> {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            LISTENER => self.accept(ops),
            ANSWERS => self.deliver(ops),
            data => {
                let place = usize::try_from(data - CONNECTIONS).unwrap_or(usize::MAX);
                self.serve(place, events.event_set(), ops);
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        // Told of each ring once, so that it need not be read.
        let each = EventSet::IN | EventSet::EDGE_TRIGGERED;
        let wake = Events::with_data(self.returns.wake.as_ref(), ANSWERS, each);
        if let Err(error) = ops.add(self.listening()).and_then(|()| ops.add(wake)) {
            warn!("the API cannot be served: {error}");
        }
    }
}

impl<D> Drop for Server<D> {
    fn drop(&mut self) {
        // Nobody answers there any more. Where it is gone already, so be it.
        let _ = fs::remove_file(&self.path);
    }
}

impl<D> std::fmt::Debug for Server<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("path", &self.path).finish_non_exhaustive()
    }
}
