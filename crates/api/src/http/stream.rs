//! An answer without an end: its pieces are sent as they come (RFC 9112, 7.1), and who does
//! not read them costs others nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::reply::{Returned, Returns, Ticket};
use super::turn::Turn;

/// The bytes that may wait for a client to read them.
const MOST: usize = 64 << 10;

/// The last of its pieces.
const END: &[u8] = b"0\r\n\r\n";

/// An answer without an end, until it is dropped.
#[derive(Debug)]
pub struct Stream {
    ticket: Ticket,
    returns: Returns,
    turn: Arc<Turn>,
    /// Bytes that wait for the client.
    unread: Arc<AtomicUsize>,
}

/// What becomes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Yes,
    /// The client reads too slowly: it does not get this one.
    TooMuch,
    /// The client is gone.
    Gone,
}

impl Stream {
    pub(super) fn begin(
        content: &str,
        (ticket, returns): (Ticket, Returns),
        turn: Arc<Turn>,
    ) -> Self {
        let head = format!(
            "HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: close\r\n\
             Content-Type: {content}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let unread = Arc::new(AtomicUsize::new(head.len()));
        returns.send(ticket, Returned::Head(head.into_bytes(), Arc::clone(&unread)));
        Self { ticket, returns, turn, unread }
    }

    /// Whether the client is gone.
    pub fn is_gone(&self) -> bool {
        self.turn.is_gone()
    }

    /// Sends a piece, which must not be empty.
    pub fn send(&self, piece: &str) -> Sent {
        if self.is_gone() {
            return Sent::Gone;
        }
        if self.unread.load(Ordering::Relaxed) > MOST {
            return Sent::TooMuch;
        }
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len()).into_bytes();
        self.unread.fetch_add(chunk.len(), Ordering::Relaxed);
        match self.returns.send(self.ticket, Returned::More(chunk)) {
            true => Sent::Yes,
            false => Sent::Gone,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.returns.send(self.ticket, Returned::End(END.to_vec()));
    }
}
