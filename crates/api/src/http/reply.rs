//! The way back to whoever made a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use vmm_sys_util::eventfd::EventFd;

use super::Response;

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
    pub(super) answers: Sender<(Ticket, Response)>,
    pub(super) wake: Arc<EventFd>,
}

/// Answers one request, from any thread. Dropped, it says that nobody will.
#[derive(Debug)]
pub struct Reply {
    ticket: Ticket,
    returns: Returns,
    gone: Arc<AtomicBool>,
    answered: bool,
}

impl Reply {
    pub(super) fn new(ticket: Ticket, returns: Returns, gone: Arc<AtomicBool>) -> Self {
        Self { ticket, returns, gone, answered: false }
    }

    /// Answers.
    pub fn send(mut self, response: Response) {
        self.deliver(response);
    }

    /// Whether the client has gone: nobody will read the answer. Who works long for it
    /// asks now and then.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    fn deliver(&mut self, response: Response) {
        self.answered = true;
        // A server that is gone has no connection left to answer on.
        if self.returns.answers.send((self.ticket, response)).is_ok() {
            // It only fails when 2^64 - 2 answers wait: the server is awake then.
            let _ = self.returns.wake.write(1);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.deliver(Response::fault("the machine ended before it answered"));
        }
    }
}
