//! One connection: a stream of the host's and the guest's end of it, how much each may
//! send (Virtio 1.2, 5.10.6.3), and who has said that it is done (5.10.6.6.1).
//!
//! It is told of the stream's events by edges and remembers what the stream can do, so that
//! a side that does not read costs nothing while it does not.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use kedge_ids::{u64_from, usize_from};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown};
use vmm_sys_util::epoll::EventSet;

use super::messages::{Messages, Next};
use super::packet::{Header, Kind, op, shut};
use crate::virtio::buffers::Buffers;

/// The bytes of the guest's that wait until the host's program takes them; `buf_alloc`.
pub(super) const BUFFER: u32 = 64 * 1024;

/// The most payload in a packet to the guest, so that connections take turns.
const LONGEST: usize = 64 * 1024;

/// How long the guest may take to answer, and a connection that ends to be done (fuzzed: less).
pub(super) const PATIENCE: Duration = Duration::from_millis(if cfg!(fuzzing) { 5 } else { 2000 });

/// What tells a connection from others: its two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on.
    Lives,
    /// It ends, and the guest is to be told.
    Reset,
    /// It ends by the guest's word.
    Gone,
}

/// What there is to tell the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A packet, whose payload is in place.
    Packet(Header),
    /// Nothing now.
    None,
    /// That it has ended.
    Broken,
}

/// Who has agreed to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The host's program; the guest is asked.
    Asked,
    /// Both.
    Open,
}

/// Packets without payload that are to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Due {
    request: bool,
    response: bool,
    /// The guest may send more than it knows.
    credit: bool,
}

/// What each side will not do any more, as flags of [`shut`].
#[derive(Clone, Copy, Debug, Default)]
struct Ended {
    guest: u32,
    host: u32,
    /// What of the host's the guest knows.
    told: u32,
    /// Whether the stream knows that the guest sends nothing more.
    stream_told: bool,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: OwnedFd,
    ports: Ports,
    /// Where it carries messages.
    messages: Option<Messages>,
    phase: Phase,
    due: Due,
    ended: Ended,
    /// What the stream can do, as far as is known.
    readable: bool,
    writable: bool,
    hung_up: bool,
    /// The guest's bytes that the stream has not taken yet.
    buffer: VecDeque<u8>,
    /// Of the guest's bytes, how many the stream has taken, and how many of them the guest
    /// knows of.
    forwarded: u32,
    forwarded_told: u32,
    /// Bytes sent to the guest; the room it has; how many have left that.
    sent: u32,
    guest_alloc: u32,
    guest_forwarded: u32,
    /// Whether the guest was asked for room since it last had some.
    asked_for_room: bool,
    /// When it ends unless something happens.
    deadline: Option<Instant>,
    /// Whether something has happened since the deadline was set.
    progress: bool,
    /// Whether it waits for its turn to tell the guest something.
    pub(super) queued: bool,
}

impl Connection {
    /// One that the host's program at `stream` asks for, and the guest has to accept.
    pub(super) fn asked((ports, kind): (Ports, Kind), stream: OwnedFd) -> Self {
        Self {
            stream,
            ports,
            messages: (kind == Kind::Seqpacket).then(Messages::default),
            phase: Phase::Asked,
            due: Due { request: true, ..Due::default() },
            ended: Ended::default(),
            readable: true,
            writable: true,
            hung_up: false,
            buffer: VecDeque::new(),
            forwarded: 0,
            forwarded_told: 0,
            sent: 0,
            guest_alloc: 0,
            guest_forwarded: 0,
            asked_for_room: false,
            deadline: None,
            progress: false,
            queued: false,
        }
    }

    /// One that the guest has asked for with `request`, to the host's program at `stream`.
    pub(super) fn opened((ports, kind): (Ports, Kind), stream: OwnedFd, request: &Header) -> Self {
        let mut opened = Self::asked((ports, kind), stream);
        opened.phase = Phase::Open;
        opened.due = Due { response: true, ..Due::default() };
        opened.learn(request);
        opened
    }

    /// Takes the guest's packet with this header and payload.
    pub(super) fn receive(&mut self, header: &Header, payload: Buffers<'_>) -> Fate {
        self.learn(header);
        match (self.phase, header.op) {
            (_, op::RST) => Fate::Gone,
            (Phase::Asked, op::RESPONSE) => self.accepted(),
            (Phase::Open, op::RW) => self.take(payload, header.flags),
            (Phase::Open, op::SHUTDOWN) => self.guest_ends(header.flags),
            (Phase::Open, op::CREDIT_UPDATE) => Fate::Lives,
            (Phase::Open, op::CREDIT_REQUEST) => {
                self.due.credit = true;
                Fate::Lives
            }
            _ => Fate::Reset,
        }
    }

    /// The stream's state has changed to `events`.
    pub(super) fn ready(&mut self, events: EventSet) -> Fate {
        let lost = EventSet::HANG_UP | EventSet::ERROR;
        self.readable |= events.intersects(EventSet::IN | EventSet::READ_HANG_UP | lost);
        self.writable |= events.intersects(EventSet::OUT | lost);
        self.hung_up |= events.intersects(lost);
        self.forward()
    }

    /// The next packet for the guest: its header, and its payload in `room`.
    pub(super) fn next(&mut self, room: Buffers<'_>) -> News {
        if std::mem::take(&mut self.due.request) {
            return self.packet(op::REQUEST, 0, 0);
        }
        if std::mem::take(&mut self.due.response) {
            return self.packet(op::RESPONSE, 0, 0);
        }
        if std::mem::take(&mut self.due.credit) {
            return self.packet(op::CREDIT_UPDATE, 0, 0);
        }
        if self.can_read() {
            match self.read(room) {
                Ok(Some((length, flags))) => return self.packet(op::RW, flags, length),
                Ok(None) => {}
                Err(_) => return News::Broken,
            }
        }
        let end = self.ended.host & !self.ended.told;
        if end != 0 && self.phase == Phase::Open {
            self.ended.told |= end;
            self.progress = true;
            return self.packet(op::SHUTDOWN, self.ended.told, 0);
        }
        if self.wants_room() {
            self.asked_for_room = true;
            return self.packet(op::CREDIT_REQUEST, 0, 0);
        }
        News::None
    }

    /// Whether there is, or may be, something to tell the guest.
    pub(super) fn has_news(&self) -> bool {
        let ended = self.phase == Phase::Open && self.ended.host & !self.ended.told != 0;
        self.due != Due::default() || ended || self.can_read() || self.wants_room()
    }

    /// When it ends unless something happens: counted from `now` on where that is new.
    pub(super) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let ends = self.ended.guest == shut::BOTH || self.ended.told == shut::BOTH;
        let progress = std::mem::take(&mut self.progress);
        self.deadline = match self.deadline {
            _ if self.phase == Phase::Open && !ends => None,
            Some(deadline) if !progress => Some(deadline),
            _ => Some(now + PATIENCE),
        };
        self.deadline
    }

    /// The deadline that is set.
    pub(super) fn current_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Forgets the deadline: time has stood still.
    pub(super) fn forget_deadline(&mut self) {
        self.deadline = None;
    }

    /// What it carries.
    pub(super) fn kind(&self) -> Kind {
        if self.messages.is_some() { Kind::Seqpacket } else { Kind::Stream }
    }

    /// Whether the guest has accepted it, or asked for it.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the guest knows of it.
    pub(super) fn is_known(&self) -> bool {
        self.is_open() || !self.due.request
    }

    /// Every packet says how much room the guest has.
    fn learn(&mut self, header: &Header) {
        self.guest_alloc = header.buf_alloc;
        self.guest_forwarded = header.fwd_cnt;
        if self.room() >= self.needed() {
            self.asked_for_room = false;
        }
    }

    /// The bytes that the guest has room for. None where it counts bytes that it was never
    /// sent.
    fn room(&self) -> u32 {
        let underway = self.sent.wrapping_sub(self.guest_forwarded);
        self.guest_alloc.saturating_sub(underway)
    }

    fn wants_more(&self) -> bool {
        let may_send = self.ended.guest & shut::RECEIVE == 0 && self.ended.host & shut::SEND == 0;
        self.phase == Phase::Open && self.readable && may_send
    }

    /// The room that the guest has to have for something to be sent.
    fn needed(&self) -> u32 {
        self.messages.as_ref().map_or(1, Messages::needed)
    }

    fn can_read(&self) -> bool {
        self.wants_more() && self.room() >= self.needed()
    }

    fn wants_room(&self) -> bool {
        self.wants_more() && self.room() < self.needed() && !self.asked_for_room
    }

    /// A packet, to an address to be filled in.
    fn packet(&mut self, op: u16, flags: u32, len: u32) -> News {
        self.forwarded_told = self.forwarded;
        News::Packet(Header {
            src_port: self.ports.host,
            dst_port: self.ports.guest,
            len,
            kind: self.kind().number(),
            op,
            flags,
            buf_alloc: BUFFER,
            fwd_cnt: self.forwarded,
            ..Header::default()
        })
    }

    /// Reads from the stream into `room`, as much as the guest has room for: how much, with
    /// the flags of that.
    fn read(&mut self, mut room: Buffers<'_>) -> Result<Option<(u32, u32)>, Errno> {
        if self.messages.is_some() {
            return self.read_message(room);
        }
        let most = room.len().min(usize_from(u64::from(self.room()))).min(LONGEST);
        let Some(room) = room.split_front(most).filter(|room| !room.is_empty()) else {
            return Ok(None);
        };
        loop {
            match room.read_from(&self.stream).map_err(|error| errno(&error)) {
                Ok(0) => {
                    self.ended.host |= shut::SEND;
                    return Ok(None);
                }
                Ok(length) => {
                    let length = u32::try_from(length).unwrap_or(u32::MAX);
                    self.sent = self.sent.wrapping_add(length);
                    return Ok(Some((length, 0)));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads from the next message, or goes on with the last one.
    fn read_message(&mut self, mut room: Buffers<'_>) -> Result<Option<(u32, u32)>, Errno> {
        let limits = (self.room(), self.guest_alloc);
        let Some(messages) = &mut self.messages else { return Ok(None) };
        match messages.next(&self.stream, &mut room, limits)? {
            Next::Part { length, flags } => {
                self.sent = self.sent.wrapping_add(length);
                return Ok(Some((length, flags)));
            }
            Next::Closed => self.ended.host |= shut::SEND,
            Next::None => self.readable = false,
            Next::NotNow => {}
        }
        Ok(None)
    }

    /// The guest accepts: the host's program is told.
    fn accepted(&mut self) -> Fate {
        self.phase = Phase::Open;
        self.due = Due::default();
        let answer = format!("OK {}\n", self.ports.host);
        match send(&self.stream, answer.as_bytes(), SendFlags::NOSIGNAL) {
            Ok(sent) if sent == answer.len() => {}
            // It does not read; what it sent before is the guest's nevertheless.
            Err(Errno::PIPE | Errno::CONNRESET) => self.host_does_not_read(),
            // It is the first thing that is sent, so there is room.
            Ok(_) | Err(_) => return Fate::Reset,
        }
        self.forward()
    }

    /// Takes payload of the guest's.
    fn take(&mut self, mut payload: Buffers<'_>, flags: u32) -> Fate {
        let length = u64_from(payload.len());
        let waiting = u64_from(self.buffer.len());
        let sends = self.ended.guest & shut::SEND == 0;
        if !sends || waiting + length > u64::from(BUFFER) {
            return Fate::Reset;
        }
        if self.ended.host & shut::RECEIVE != 0 {
            // It was on its way when the guest was told.
            self.count_forwarded(payload.len());
            return self.forward();
        }
        if let Some(messages) = &mut self.messages {
            messages.note(payload.len(), flags);
        }
        let is_stream = self.messages.is_none();
        while is_stream && self.buffer.is_empty() && self.writable && !payload.is_empty() {
            match payload.send_first(&self.stream).map_err(|error| errno(&error)) {
                Ok(count) => {
                    payload.split_front(count);
                    self.count_forwarded(count);
                    self.progress = true;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.writable = false,
                Err(_) => {
                    self.count_forwarded(payload.len());
                    self.host_does_not_read();
                    return self.forward();
                }
            }
        }
        let mut rest = vec![0; payload.len()];
        payload.copy_to(&mut rest);
        self.buffer.extend(rest);
        if !is_stream {
            // The guest may wait for room to send the rest of a message.
            self.count_forwarded(0);
        }
        self.forward()
    }

    /// The guest says what it will not do any more.
    fn guest_ends(&mut self, flags: u32) -> Fate {
        let new = flags & shut::BOTH & !self.ended.guest;
        self.ended.guest |= new;
        if new & shut::RECEIVE != 0 && self.ended.guest != shut::BOTH {
            // Who writes on is told; where the stream has gone, nobody does.
            let _ = shutdown(&self.stream, Shutdown::Read);
        }
        self.forward()
    }

    /// Writes to the stream what it takes of the guest's bytes.
    fn forward(&mut self) -> Fate {
        if self.phase == Phase::Asked {
            return Fate::Lives;
        }
        if self.hung_up {
            self.host_does_not_read();
        }
        while self.writable
            && let Some(length) = self.waiting()
        {
            if self.messages.is_some() && self.buffer.as_slices().0.len() < length {
                self.buffer.make_contiguous();
            }
            let front = self.buffer.as_slices().0;
            let next = front.get(..length).unwrap_or(front);
            match send(&self.stream, next, SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.buffer.drain(..count);
                    self.messages.iter_mut().for_each(Messages::sent);
                    self.count_forwarded(count);
                    self.progress = true;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.writable = false,
                Err(_) => self.host_does_not_read(),
            }
        }
        if self.waiting().is_some() {
            return Fate::Lives;
        }
        if self.buffer.is_empty() {
            // A buffer once needed may never be again.
            self.buffer = VecDeque::new();
        }
        if self.ended.guest == shut::BOTH {
            return Fate::Reset;
        }
        if self.ended.guest & shut::SEND != 0
            && !std::mem::replace(&mut self.ended.stream_told, true)
        {
            // Where the stream has gone, nobody reads.
            let _ = shutdown(&self.stream, Shutdown::Write);
        }
        Fate::Lives
    }

    /// How much of the buffer the stream is to take next: a message, or what there is.
    fn waiting(&self) -> Option<usize> {
        match &self.messages {
            Some(messages) => messages.first(),
            None => Some(self.buffer.len()).filter(|length| *length > 0),
        }
    }

    /// What the guest has sent, and will send, is nobody's.
    fn host_does_not_read(&mut self) {
        self.ended.host |= shut::RECEIVE;
        self.count_forwarded(self.buffer.len());
        self.buffer = VecDeque::new();
        self.messages.iter_mut().for_each(Messages::forget);
    }

    /// `count` bytes have left the buffer. The guest is told before it has to wait.
    fn count_forwarded(&mut self, count: usize) {
        // At most a buffer.
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.forwarded = self.forwarded.wrapping_add(count);
        let waiting = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        let untold = self.forwarded.wrapping_sub(self.forwarded_told);
        let in_use = untold.saturating_add(waiting);
        self.due.credit |= untold > 0 && in_use > BUFFER / 2;
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
