//! What a connection has to know to carry messages (Virtio 1.2, 5.10.6.6.2): where those of
//! the guest's end that wait in its buffer, and the one of the host's that is on its way.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::packet::END_OF_MESSAGE;
use crate::virtio::buffers::Buffers;

/// The longest message of the host's in bytes; one of the guest's fits its buffer.
const LONGEST: usize = 64 * 1024;

/// What comes next of the host's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// So much of one, with these flags.
    Part { length: u32, flags: u32 },
    /// One that waits for room, or for another look.
    NotNow,
    /// Nothing yet.
    None,
    /// Nothing any more.
    Closed,
}

/// The messages of a connection, both ways.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The lengths less one of those that are whole: 64 KiB fit.
    whole: VecDeque<u16>,
    /// The bytes that there are of the next one.
    begun: usize,
    /// The one on its way to the guest, and how much of it the guest has.
    underway: Vec<u8>,
    given: usize,
    /// The length of the one that waits for room at the guest.
    next: u32,
}

impl Messages {
    /// The guest has sent `length` bytes more. A message of none is nobody's: to the program
    /// of the host it would be the end.
    pub(super) fn note(&mut self, length: usize, flags: u32) {
        self.begun += length;
        if flags & END_OF_MESSAGE == 0 {
            return;
        }
        let whole = mem::take(&mut self.begun).checked_sub(1);
        self.whole.extend(whole.and_then(|less_one| u16::try_from(less_one).ok()));
    }

    /// The length of the first that is whole.
    pub(super) fn first(&self) -> Option<usize> {
        self.whole.front().map(|less_one| usize::from(*less_one) + 1)
    }

    /// The first is gone.
    pub(super) fn sent(&mut self) {
        self.whole.pop_front();
    }

    /// So are all of the guest's.
    pub(super) fn forget(&mut self) {
        (self.whole, self.begun) = (VecDeque::new(), 0);
    }

    /// The room that the guest has to have for the next one, or for the rest of one.
    pub(super) fn needed(&self) -> u32 {
        if self.is_underway() { 1 } else { self.next.max(1) }
    }

    /// Whether one is on its way to the guest.
    fn is_underway(&self) -> bool {
        !self.underway.is_empty()
    }

    /// Puts the next part of a message of the program at `stream` into `room`. A message is
    /// begun as soon as `guest_has` room for all of it, where it would wait for the rest
    /// else, and its buffer has `most`.
    ///
    /// # Errors
    /// The stream is broken, or the message is longer than anybody could take.
    pub(super) fn next(
        &mut self,
        stream: &OwnedFd,
        room: &mut Buffers<'_>,
        (guest_has, most): (u32, u32),
    ) -> Result<Next, Errno> {
        if self.is_underway() {
            return Ok(self.give(room));
        }
        // With the latter flag, the length of all of it.
        let length = match recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::TRUNC) {
            Ok((_, 0)) => return Ok(Next::Closed),
            Ok((_, length)) => length,
            Err(Errno::AGAIN) => return Ok(Next::None),
            Err(Errno::INTR) => return Ok(Next::NotNow),
            Err(error) => return Err(error),
        };
        self.next = match u32::try_from(length) {
            Ok(next) if length <= LONGEST && next <= most => next,
            _ => return Err(Errno::MSGSIZE),
        };
        if self.next > guest_has {
            return Ok(Next::NotNow);
        }
        let mut message = vec![0; length];
        let (length, _) = recv(stream, &mut message[..], RecvFlags::empty())?;
        message.truncate(length);
        (self.underway, self.given, self.next) = (message, 0, 0);
        Ok(self.give(room))
    }

    /// Puts more of the one on its way into `room`.
    fn give(&mut self, room: &mut Buffers<'_>) -> Next {
        let rest = self.underway.get(self.given..).unwrap_or_default();
        let length = room.copy_from(rest);
        let is_last = length == rest.len();
        self.given += length;
        if is_last {
            self.underway = Vec::new();
        }
        let flags = if is_last { END_OF_MESSAGE } else { 0 };
        Next::Part { length: u32::try_from(length).unwrap_or(u32::MAX), flags }
    }
}
