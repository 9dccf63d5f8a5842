//! The way back to whoever made a request.

use std::fmt;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::Sender;

use vmm_sys_util::eventfd::EventFd;

use super::Response;
use super::response::Closing;
use super::stream::Stream;
use super::turn::Turn;

/// Which request an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The connection's place in the server.
    pub(super) place: usize,
    /// Which of the connections that had this place.
    pub(super) number: u64,
}

/// Answers on their way to the server.
#[derive(Clone, Debug)]
pub(super) struct Returns {
    pub(super) answers: Sender<(Ticket, Returned)>,
    pub(super) wake: Arc<EventFd>,
}

/// What the server gets of an answer.
#[derive(Debug)]
pub(super) enum Returned {
    /// It is given; its client has this much of it yet to be sent.
    Rest(Vec<u8>),
    /// This is its head, and more follows.
    Head(Vec<u8>, Arc<AtomicUsize>),
    /// More of it.
    More(Vec<u8>),
    /// The end of it.
    End(Vec<u8>),
}

impl Returns {
    /// Sends `returned` to the server, and whether there still is one.
    pub(super) fn send(&self, ticket: Ticket, returned: Returned) -> bool {
        // A server that is gone has no connection left to answer on.
        let sent = self.answers.send((ticket, returned)).is_ok();
        if sent {
            // It only fails when 2^64 - 2 answers wait: the server is awake then.
            let _ = self.wake.write(1);
        }
        sent
    }
}

/// The way to one client, who waits for an answer.
#[derive(Debug)]
pub(super) struct WayBack {
    /// Whether the connection ends behind the answer.
    pub(super) closing: Closing,
    /// Its socket, which takes what it can at once. None, where the server has something
    /// to send there before.
    pub(super) stream: Option<Arc<UnixStream>>,
    /// Shared with the server.
    pub(super) turn: Arc<Turn>,
}

/// Answers one request, from any thread. Dropped, it says that nobody will.
#[derive(Debug)]
pub struct Reply {
    ticket: Ticket,
    returns: Returns,
    way: WayBack,
    answered: bool,
    witness: Option<Witness>,
}

/// A client that waits for an answer, as whoever works for it sees it.
#[derive(Clone, Debug)]
pub struct Client(Arc<Turn>);

impl Client {
    /// Whether it has gone: nobody will read the answer. Who works long for it asks now and
    /// then.
    pub fn is_gone(&self) -> bool {
        self.0.is_gone()
    }
}

/// What hears of an answer.
struct Witness(Box<dyn FnOnce(&Response) -> Afterwards + Send>);

/// What is to be done once the client has its answer.
pub type Afterwards = Box<dyn FnOnce(&Response)>;

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness")
    }
}

impl Reply {
    pub(super) fn new(ticket: Ticket, returns: Returns, way: WayBack) -> Self {
        Self { ticket, returns, way, answered: false, witness: None }
    }

    /// With `witness` to hear of the answer, whoever gives it, before the client does; what
    /// it returns is called behind that, where the client need not wait for it.
    #[must_use]
    pub fn heard_by(
        mut self,
        witness: impl FnOnce(&Response) -> Afterwards + Send + 'static,
    ) -> Self {
        self.witness = Some(Witness(Box::new(witness)));
        self
    }

    /// Answers.
    pub fn send(mut self, response: &Response) {
        self.deliver(response);
    }

    /// Who waits for the answer.
    pub fn client(&self) -> Client {
        Client(Arc::clone(&self.way.turn))
    }

    /// Sends the client what it takes at once: it need not wait for the server's thread,
    /// which gets the rest, and is not woken where there is none and nothing else to do.
    fn deliver(&mut self, response: &Response) {
        self.answered = true;
        let afterwards = self.witness.take().map(|Witness(hear)| hear(response));
        self.write(response);
        afterwards.into_iter().for_each(|act| act(response));
    }

    fn write(&mut self, response: &Response) {
        let mut bytes = Vec::new();
        response.write(self.way.closing, &mut bytes);
        // Whatever goes wrong, it goes wrong again for the server, who closes then.
        let stream = self.way.stream.take();
        let sent = stream.map_or(0, |stream| (&*stream).write(&bytes).unwrap_or(0));
        bytes.drain(..sent);
        if bytes.is_empty() && !self.way.turn.end() {
            return;
        }
        self.returns.send(self.ticket, Returned::Rest(bytes));
    }

    /// Answers with a body of the type `content` that has no end yet.
    pub fn stream(mut self, content: &'static str) -> Stream {
        self.answered = true;
        let response = Response::text(content, String::new());
        let afterwards = self.witness.take().map(|Witness(hear)| hear(&response));
        afterwards.into_iter().for_each(|act| act(&response));
        Stream::begin(content, (self.ticket, self.returns.clone()), Arc::clone(&self.way.turn))
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.deliver(&Response::fault("the machine ended before it answered"));
        }
    }
}
