//! One client: what it has sent and what it has yet to read.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vmm_sys_util::epoll::EventSet;

use super::reply::{Returned, WayBack};
use super::request::{self, Progress};
use super::response::{CONTINUE, Closing};
use super::turn::Turn;
use super::{Limits, Request, Response};

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The rest of a request, or a first byte of the next.
    Reading,
    /// The answer to the request that it has made.
    Answer(Closing),
    /// More of an answer that has no end yet.
    More,
    /// Nothing: it closes once all is sent.
    Ending,
}

/// What is to be done about a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing but waiting.
    Wait,
    /// A request is to be answered.
    Answer(Request),
    /// It is over.
    Close,
}

/// One client. Requests that it sends ahead wait in its own buffers, of which it fills
/// one of bounded size.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Arc<UnixStream>,
    state: State,
    received: Vec<u8>,
    to_send: Vec<u8>,
    told_to_go_on: bool,
    /// Whether it has sent something that has to wait. Until then it is listened to while
    /// it waits for its answer: to stop and begin again would be two system calls a request.
    sends_ahead: bool,
    /// Whether it has closed its own end: it may still read.
    sends_no_more: bool,
    /// Shared with whoever works on its request.
    turn: Arc<Turn>,
    /// Bytes of an answer without an end that it has not been sent: shared with who gives
    /// it.
    unread: Option<Arc<AtomicUsize>>,
}

/// Bytes taken from a client at a time.
const PIECE: usize = 4096;

impl Connection {
    /// A client that has said nothing yet.
    ///
    /// # Errors
    /// The socket cannot be made not to block.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: Arc::new(stream),
            state: State::Reading,
            received: Vec::new(),
            to_send: Vec::new(),
            told_to_go_on: false,
            sends_ahead: false,
            sends_no_more: false,
            turn: Arc::default(),
            unread: None,
        })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The way for the answer to its request, which is read.
    pub(super) fn way_back(&self) -> WayBack {
        let closing = match self.state {
            State::Answer(closing) => closing,
            State::Reading | State::More | State::Ending => Closing::Yes,
        };
        let stream = self.to_send.is_empty().then(|| Arc::clone(&self.stream));
        WayBack { closing, stream, turn: Arc::clone(&self.turn) }
    }

    /// What it waits for. A client that hangs up is heard of in any case.
    pub(super) fn interest(&self) -> EventSet {
        let mut events = match self.sends_no_more {
            true => EventSet::empty(),
            false => EventSet::READ_HANG_UP,
        };
        let listens = match self.state {
            State::Reading => true,
            State::Answer(_) => !self.sends_ahead,
            State::More | State::Ending => false,
        };
        if listens {
            events |= EventSet::IN;
        }
        if !self.to_send.is_empty() {
            events |= EventSet::OUT;
        }
        events
    }

    /// Its socket is ready for something.
    pub(super) fn ready(&mut self, events: EventSet, limits: &Limits) -> Next {
        if events.contains(EventSet::OUT) && self.send().is_err() {
            return Next::Close;
        }
        self.sends_no_more |= events.contains(EventSet::READ_HANG_UP);
        if matches!(self.state, State::Answer(_)) && !self.turn.wait() {
            (self.state, self.sends_ahead) = (State::Reading, false);
        }
        let next = match self.state {
            State::Reading if events.intersects(EventSet::IN | EventSet::READ_HANG_UP) => {
                self.receive(limits)
            }
            _ if events.intersects(EventSet::HANG_UP | EventSet::ERROR) => Next::Close,
            _ => {
                self.sends_ahead |= events.contains(EventSet::IN);
                Next::Wait
            }
        };
        self.unless_over(next)
    }

    /// Sends the `rest` of the answer and looks for a request that came ahead.
    pub(super) fn answered(&mut self, rest: &[u8], limits: &Limits) -> Next {
        let State::Answer(closing) = self.state else { return Next::Wait };
        self.to_send.extend_from_slice(rest);
        self.state = match closing {
            Closing::Yes => State::Ending,
            Closing::No => State::Reading,
        };
        self.sends_ahead = false;
        if self.send().is_err() {
            return Next::Close;
        }
        let next = match self.state {
            State::Reading => self.look(limits),
            State::Answer(_) | State::More | State::Ending => Next::Wait,
        };
        self.unless_over(next)
    }

    /// Sends a piece of an answer that has no end yet. What the client sends meanwhile is
    /// not looked at.
    pub(super) fn streamed(&mut self, returned: Returned) -> Next {
        let (bytes, state) = match (self.state, returned) {
            (State::Answer(_), Returned::Head(head, unread)) => {
                unread.fetch_add(self.to_send.len(), Ordering::Relaxed);
                self.unread = Some(unread);
                (head, State::More)
            }
            (State::More, Returned::More(piece)) => (piece, State::More),
            (State::More, Returned::End(end)) => {
                self.unread = None;
                (end, State::Ending)
            }
            _ => return Next::Wait,
        };
        self.to_send.extend_from_slice(&bytes);
        self.state = state;
        let next = self.send().map_or(Next::Close, |()| Next::Wait);
        self.unless_over(next)
    }

    /// Says why there can be no connection, as far as the client's buffers take it.
    pub(super) fn refuse(mut self, response: &Response) {
        response.write(Closing::Yes, &mut self.to_send);
        // A client that does not take it will see the connection end.
        let _ = self.send();
    }

    fn unless_over(&self, next: Next) -> Next {
        let over = self.state == State::Ending && self.to_send.is_empty();
        if over { Next::Close } else { next }
    }

    fn receive(&mut self, limits: &Limits) -> Next {
        let mut piece = [0; PIECE];
        match (&*self.stream).read(&mut piece) {
            Ok(0) => Next::Close,
            Ok(count) => {
                self.received.extend_from_slice(&piece[..count]);
                self.look(limits)
            }
            Err(error) if would_block(&error) => Next::Wait,
            Err(_) => Next::Close,
        }
    }

    /// Looks for a request in what was received.
    fn look(&mut self, limits: &Limits) -> Next {
        if self.received.is_empty() {
            return Next::Wait;
        }
        match request::read(&self.received, limits) {
            Ok(Progress::Partial { wants_to_go_on }) => {
                if wants_to_go_on && !std::mem::replace(&mut self.told_to_go_on, true) {
                    self.to_send.extend_from_slice(CONTINUE);
                }
                self.send().map_or(Next::Close, |()| Next::Wait)
            }
            Ok(Progress::Whole(request, length)) => {
                self.received.drain(..length);
                self.told_to_go_on = false;
                let closing = if request.last { Closing::Yes } else { Closing::No };
                self.state = State::Answer(closing);
                // A connection that ends is the server's to close.
                self.turn.begin(request.last || !self.received.is_empty());
                Next::Answer(request)
            }
            Err(error) => {
                Response::no_request(&error.to_string()).write(Closing::Yes, &mut self.to_send);
                self.state = State::Ending;
                self.send().map_or(Next::Close, |()| Next::Wait)
            }
        }
    }

    /// Sends as much as the socket takes.
    fn send(&mut self) -> io::Result<()> {
        while !self.to_send.is_empty() {
            match (&*self.stream).write(&self.to_send) {
                Ok(count) => {
                    self.to_send.drain(..count);
                    self.unread.iter().for_each(|unread| {
                        unread.fetch_sub(count, Ordering::Relaxed);
                    });
                }
                Err(error) if would_block(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.turn.leave();
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
