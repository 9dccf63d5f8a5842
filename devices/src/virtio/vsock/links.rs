//! All connections of a device: who they are, whose turn it is to tell the guest something,
//! and which of them take too long.
//!
//! What a guest or a program can make it hold is bounded: the connections in number, each
//! of them in what it buffers, and the refusals, beyond which the guest's packets wait.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use event_manager::{EventOps, EventSet, Events};
use rustix::io::Errno;

use super::connection::{Connection, Fate, News, Ports};
use super::listen::{Listener, Wish, wish};
use super::metrics::{VsockMetrics, add};
use super::packet::{HEADER_SIZE, HOST_CID, Header, Kind, op};
use super::{FIRST_PORT, MOST_CONNECTIONS};
use crate::virtio::buffers::Buffers;

/// Event data of the streams, told apart by their file descriptors.
pub(super) const STREAMS: u32 = 16;

/// Refusals that wait for the guest's buffers, at most.
const MOST_REPLIES: usize = 256;

/// Who the device is to both sides.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) guest_cid: u64,
    pub(super) listener: Arc<Listener>,
    /// Whether the driver knows messages.
    pub(super) has_messages: bool,
    pub(super) metrics: Arc<VsockMetrics>,
}

/// The connections.
#[derive(Debug)]
pub(super) struct Links {
    connections: HashMap<Ports, Connection>,
    /// Whose stream it is.
    streams: HashMap<RawFd, Ports>,
    /// Programs that have not said yet what they want. They may take their time: a user
    /// may type.
    callers: HashMap<RawFd, (Kind, OwnedFd)>,
    /// Who has something to tell the guest, in turns.
    turns: VecDeque<Ports>,
    /// Refusals to be sent.
    replies: VecDeque<Header>,
    deadlines: BTreeSet<(Instant, Ports)>,
    /// The host's port of the next connection to the guest.
    pub(super) next_port: u32,
    /// Whether the guest is to be told that all its connections are gone.
    pub(super) reset_due: bool,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            connections: HashMap::new(),
            streams: HashMap::new(),
            callers: HashMap::new(),
            turns: VecDeque::new(),
            replies: VecDeque::new(),
            deadlines: BTreeSet::new(),
            next_port: FIRST_PORT,
            reset_due: false,
        }
    }
}

impl Links {
    /// Has `ops` tell of the streams there are.
    ///
    /// # Errors
    /// The host has no resources.
    pub(super) fn watch(&self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        let connected = self.connections.values().map(|connection| &connection.stream);
        connected
            .chain(self.callers.values().map(|(_, caller)| caller))
            .try_for_each(|stream| ops.add(all_edges(stream)))
    }

    /// Lets the deadlines begin again: time has stood still.
    pub(super) fn rewind(&mut self, now: Instant) {
        self.deadlines.clear();
        for (ports, connection) in &mut self.connections {
            connection.forget_deadline();
            let deadline = connection.deadline(now);
            self.deadlines.extend(deadline.map(|deadline| (deadline, *ports)));
        }
    }

    /// When to look after those who take too long.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|first| first.0)
    }

    /// Whether refusals wait for so long that no more packets are taken.
    pub(super) fn is_full_of_replies(&self) -> bool {
        self.replies.len() >= MOST_REPLIES
    }

    /// Whether there is, or may be, something to tell the guest.
    pub(super) fn has_news(&self) -> bool {
        !self.replies.is_empty() || !self.turns.is_empty()
    }

    /// Takes the guest's packet with this header and what follows it.
    pub(super) fn receive(
        &mut self,
        header: &Header,
        mut rest: Buffers<'_>,
        ends: &Ends,
        ops: &mut EventOps<'_>,
    ) {
        if header.src_cid != ends.guest_cid {
            // Nobody of that name is here to be refused (5.10.6.4).
            return add(&ends.metrics.bad_packets, 1);
        }
        let kind = Kind::of(header.kind);
        let kind = kind.filter(|kind| *kind == Kind::Stream || ends.has_messages);
        let (HOST_CID, Some(kind)) = (header.dst_cid, kind) else {
            return self.refuse(header, ends);
        };
        let ports = Ports { host: header.dst_port, guest: header.src_port };
        let Some(connection) = self.connections.get_mut(&ports) else {
            return match header.op {
                op::REQUEST => self.open((ports, kind), header, ends, ops),
                _ => self.refuse(header, ends),
            };
        };
        if connection.kind() != kind {
            return self.refuse(header, ends);
        }
        let length = if header.op == op::RW { header.len } else { 0 };
        let payload = usize::try_from(length).ok().and_then(|length| rest.split_front(length));
        let was_open = connection.is_open();
        // None where the packet is shorter than it says.
        let fate = payload.map_or(Fate::Reset, |payload| connection.receive(header, payload));
        match (fate, was_open) {
            (Fate::Lives, true) => add(&ends.metrics.sent_bytes, length.into()),
            (Fate::Lives, false) => add(&ends.metrics.connected_in, 1),
            (Fate::Reset | Fate::Gone, _) => {}
        }
        self.follow(ports, fate, ends, ops);
    }

    /// Puts the next packet for the guest into `room`: its length, or none where there is
    /// none.
    pub(super) fn tell(
        &mut self,
        mut room: Buffers<'_>,
        ends: &Ends,
        ops: &mut EventOps<'_>,
    ) -> Option<u32> {
        let mut head = room.split_front(HEADER_SIZE)?;
        let header = loop {
            if let Some(reply) = self.replies.pop_front() {
                break reply;
            }
            let ports = self.turns.pop_front()?;
            let Some(connection) = self.connections.get_mut(&ports) else { continue };
            connection.queued = false;
            match connection.next(room.clone()) {
                News::Packet(header) => {
                    self.follow(ports, Fate::Lives, ends, ops);
                    break Header { src_cid: HOST_CID, dst_cid: ends.guest_cid, ..header };
                }
                News::None => {}
                News::Broken => self.follow(ports, Fate::Reset, ends, ops),
            }
        };
        head.copy_from(&header.to_bytes());
        add(&ends.metrics.received_bytes, header.len.into());
        // A header is that long.
        u32::try_from(HEADER_SIZE).ok()?.checked_add(header.len)
    }

    /// The state of the stream `fd` has changed to `events`.
    pub(super) fn ready(
        &mut self,
        fd: RawFd,
        events: EventSet,
        ends: &Ends,
        ops: &mut EventOps<'_>,
    ) {
        if let Some(&ports) = self.streams.get(&fd) {
            let Some(connection) = self.connections.get_mut(&ports) else { return };
            let fate = connection.ready(events);
            return self.follow(ports, fate, ends, ops);
        }
        let Some((_, caller)) = self.callers.get(&fd) else { return };
        let gone = events.intersects(EventSet::READ_HANG_UP | EventSet::HANG_UP | EventSet::ERROR);
        match wish(caller) {
            Wish::Unknown if !gone => {}
            Wish::Port(port) => {
                let Some((kind, stream)) = self.callers.remove(&fd) else { return };
                let ports = self.free_ports(port);
                self.streams.insert(fd, ports);
                self.connections.insert(ports, Connection::asked((ports, kind), stream));
                if let Some(connection) = self.connections.get_mut(&ports) {
                    connection.ready(events);
                }
                self.follow(ports, Fate::Lives, ends, ops);
            }
            Wish::Unknown | Wish::None => {
                add(&ends.metrics.refused, 1);
                self.callers.remove(&fd).into_iter().for_each(|(_, caller)| forget(&caller, ops));
            }
        }
    }

    /// Takes the next program that asks for something.
    ///
    /// # Errors
    /// Nobody does, or the host has no file descriptor for it.
    pub(super) fn accept(&mut self, ends: &Ends, ops: &mut EventOps<'_>) -> Result<(), Errno> {
        let (kind, caller) = ends.listener.accept()?;
        // Who is one too many finds the socket closed.
        let is_known = kind == Kind::Stream || ends.has_messages;
        if !is_known || self.is_full() || ops.add(all_edges(&caller)).is_err() {
            add(&ends.metrics.refused, 1);
        } else {
            self.callers.insert(caller.as_raw_fd(), (kind, caller));
        }
        Ok(())
    }

    /// Ends those that took too long.
    pub(super) fn expire(&mut self, now: Instant, ends: &Ends, ops: &mut EventOps<'_>) {
        while let Some(&(deadline, ports)) = self.deadlines.first() {
            if deadline > now {
                return;
            }
            self.deadlines.pop_first();
            let known = self.connections.get(&ports).is_some_and(Connection::is_known);
            self.follow(ports, if known { Fate::Reset } else { Fate::Gone }, ends, ops);
        }
    }

    /// Forgets all connections. The streams close.
    pub(super) fn clear(&mut self) {
        *self = Self { next_port: self.next_port, ..Self::default() };
    }

    fn is_full(&self) -> bool {
        self.connections.len() + self.callers.len() >= MOST_CONNECTIONS
    }

    /// The guest asks for a connection.
    fn open(
        &mut self,
        (ports, kind): (Ports, Kind),
        request: &Header,
        ends: &Ends,
        ops: &mut EventOps<'_>,
    ) {
        let reached = || ends.listener.reach(ports.host, kind).ok();
        let stream = if self.is_full() { None } else { reached() };
        let watched = stream.filter(|stream| ops.add(all_edges(stream)).is_ok());
        let Some(stream) = watched else {
            add(&ends.metrics.refused, 1);
            self.replies.push_back(request.refusal());
            return;
        };
        add(&ends.metrics.connected_out, 1);
        self.streams.insert(stream.as_raw_fd(), ports);
        self.connections.insert(ports, Connection::opened((ports, kind), stream, request));
        self.follow(ports, Fate::Lives, ends, ops);
    }

    /// The guest's packet is for nobody.
    fn refuse(&mut self, header: &Header, ends: &Ends) {
        // Else two would refuse each other for ever.
        if header.op != op::RST {
            add(&ends.metrics.bad_packets, 1);
            self.replies.push_back(header.refusal());
        }
    }

    /// Ports for a connection to the guest's `guest`, as no other has them.
    fn free_ports(&mut self, guest: u32) -> Ports {
        loop {
            let ports = Ports { host: self.next_port, guest };
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
            // There are many more ports than connections.
            if !self.connections.contains_key(&ports) {
                return ports;
            }
        }
    }

    /// What happened to the connection may have given it something to say, or a deadline,
    /// or have ended it.
    fn follow(&mut self, ports: Ports, fate: Fate, ends: &Ends, ops: &mut EventOps<'_>) {
        let Some(connection) = self.connections.get_mut(&ports) else { return };
        let before = connection.current_deadline();
        if fate != Fate::Lives {
            return self.end(ports, fate, ends, ops);
        }
        let deadline = connection.deadline(Instant::now());
        if !connection.queued && connection.has_news() {
            connection.queued = true;
            self.turns.push_back(ports);
        }
        if deadline != before {
            before.map(|before| self.deadlines.remove(&(before, ports)));
            self.deadlines.extend(deadline.map(|deadline| (deadline, ports)));
        }
    }

    fn end(&mut self, ports: Ports, fate: Fate, ends: &Ends, ops: &mut EventOps<'_>) {
        let Some(connection) = self.connections.remove(&ports) else { return };
        if connection.queued {
            self.turns.retain(|other| *other != ports);
        }
        if let Some(deadline) = connection.current_deadline() {
            self.deadlines.remove(&(deadline, ports));
        }
        self.streams.remove(&connection.stream.as_raw_fd());
        forget(&connection.stream, ops);
        let metrics = &ends.metrics;
        add(if connection.is_open() { &metrics.ended } else { &metrics.refused }, 1);
        if fate == Fate::Reset {
            self.replies.push_back(Header {
                src_cid: HOST_CID,
                dst_cid: ends.guest_cid,
                src_port: ports.host,
                dst_port: ports.guest,
                kind: connection.kind().number(),
                op: op::RST,
                ..Header::default()
            });
        }
    }
}

/// Whatever happens to a stream, once each time.
fn all_edges(stream: &OwnedFd) -> Events {
    let all = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
    Events::with_data(stream, STREAMS, all)
}

fn forget(stream: &OwnedFd, ops: &mut EventOps<'_>) {
    // It was added, so it is there.
    let _ = ops.remove(Events::empty(stream));
}
