//! One connection of a guest: what it has sent, and what it has yet to be sent.

use std::time::Instant;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Duration;

use crate::counters::{Counts, count};
use crate::guest_http::{Response, Rules, answer, read};
use crate::service::Service;

/// Bytes of a request, at most (FIRECRACKER_API.md, 15).
const LONGEST_REQUEST: usize = 2500;
/// Bytes that a connection has on their way to the guest, at most.
const WINDOW: usize = 8 << 10;
/// A guest that acknowledges nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(30);

/// The service's port.
pub(super) const PORT: u16 = 80;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) handle: SocketHandle,
    /// When it last had something to do.
    pub(super) active: Instant,
    /// Whether it is one already, and not waiting for one.
    pub(super) begun: bool,
    received: Vec<u8>,
    to_send: Vec<u8>,
    sent: usize,
    /// Whether it ends with what is to be sent.
    last: bool,
}

/// A socket that waits for a guest.
pub(super) fn listening() -> Socket<'static> {
    let buffer = |size| SocketBuffer::new(vec![0; size]);
    let mut socket = Socket::new(buffer(LONGEST_REQUEST), buffer(WINDOW));
    socket.set_timeout(Some(SILENCE));
    socket.set_ack_delay(None);
    socket.set_nagle_enabled(false);
    // Only a port of zero, or a socket that is in use, cannot listen.
    let _ = socket.listen(PORT);
    socket
}

impl Connection {
    pub(super) fn new(handle: SocketHandle, now: Instant) -> Self {
        Self {
            handle,
            active: now,
            begun: false,
            received: Vec::new(),
            to_send: Vec::new(),
            sent: 0,
            last: false,
        }
    }

    /// Does what can be done. Whether there was anything.
    pub(super) fn serve(
        &mut self,
        socket: &mut Socket<'_>,
        (service, rules): (&Service, Rules),
        now: Instant,
    ) -> bool {
        let mut did = false;
        while self.send(socket) | self.receive(socket) | self.answer((service, rules), now) {
            did = true;
        }
        if did {
            self.active = now;
        }
        let over = self.last || (socket.state() == State::CloseWait && !socket.can_recv());
        if self.to_send.is_empty() && over && socket.may_send() {
            socket.close();
            did = true;
        }
        did
    }

    /// Takes note of a guest that comes, or goes before it was there.
    pub(super) fn look(&mut self, socket: &Socket<'_>, counters: &Counts, now: Instant) {
        match (self.begun, socket.state()) {
            (false, State::Listen | State::Closed) => {}
            (false, _) => {
                (self.begun, self.active) = (true, now);
                count(&counters.connections_created);
            }
            (true, State::Listen) => {
                self.begun = false;
                count(&counters.connections_destroyed);
            }
            (true, _) => {}
        }
    }

    /// Whether anything was sent.
    fn send(&mut self, socket: &mut Socket<'_>) -> bool {
        let rest = &self.to_send[self.sent..];
        if rest.is_empty() || !socket.can_send() {
            return false;
        }
        let sent = socket.send_slice(rest).unwrap_or(0);
        self.sent += sent;
        if self.sent == self.to_send.len() {
            self.to_send = Vec::new();
            self.sent = 0;
        }
        sent > 0
    }

    /// Whether anything came. What comes while an answer is being sent waits in the socket.
    fn receive(&mut self, socket: &mut Socket<'_>) -> bool {
        let room = LONGEST_REQUEST - self.received.len();
        if self.last || !self.to_send.is_empty() || room == 0 || !socket.can_recv() {
            return false;
        }
        let taken = socket.recv(|bytes| {
            let taken = bytes.len().min(room);
            self.received.extend_from_slice(&bytes[..taken]);
            (taken, taken)
        });
        taken.is_ok_and(|taken| taken > 0)
    }

    /// Whether there was a request to answer.
    fn answer(&mut self, (service, rules): (&Service, Rules), now: Instant) -> bool {
        if self.last || !self.to_send.is_empty() || self.received.is_empty() {
            return false;
        }
        let (response, minor, last, length) = match read(&self.received) {
            Ok(Some((request, length))) => {
                let response = answer(service, rules, &request, now);
                (response, request.minor, request.last, length)
            }
            Ok(None) if self.received.len() < LONGEST_REQUEST => return false,
            Ok(None) => {
                let text = format!("a request has at most {LONGEST_REQUEST} bytes");
                (Response::text(400, text), 1, true, LONGEST_REQUEST)
            }
            Err(error) => (Response::text(400, error.to_string()), 1, true, self.received.len()),
        };
        self.to_send = response.write(minor, last);
        self.last = last;
        self.received.drain(..length);
        true
    }
}
