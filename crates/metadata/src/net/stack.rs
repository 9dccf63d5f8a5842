//! The service's own network stack on one card: an Ethernet address, an IP address, a port.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Instant as WireInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::connection::{Connection, listening};
use super::frame::{Kind, Neighbour, introduction, kind, sender};
use super::wire::Wire;
use crate::config::Config;
use crate::counters::{count, count_bytes};
use crate::guest_http::Rules;
use crate::service::Service;

/// The service's Ethernet address, on every card.
pub const MAC: [u8; 6] = [0x06, 0x01, 0x23, 0x45, 0x67, 0x01];

/// Connections at a time.
const MOST_CONNECTIONS: usize = 30;
/// One that has had nothing to do for so long makes way for a new one, in seconds.
const QUIET: u64 = 2;

const BROADCAST: [u8; 6] = [0xff; 6];

/// The service on one network card.
pub struct Stack {
    service: Arc<Service>,
    rules: Rules,
    address: Ipv4Addr,
    began: Instant,
    /// There from the first frame on: most guests never ask.
    interface: Option<Interface>,
    seed: u64,
    wire: Wire,
    /// Who it knows to be at which Ethernet address.
    neighbour: Option<Neighbour>,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    due: Option<Instant>,
}

impl Stack {
    /// `service` under `config`. `seed`, which a guest should not know, has the numbers in
    /// it with which its connections begin.
    pub fn new(service: Arc<Service>, config: &Config, seed: u64) -> Self {
        Self {
            service,
            rules: Rules::from(config),
            address: config.ipv4_address,
            began: Instant::now(),
            interface: None,
            seed,
            wire: Wire::default(),
            neighbour: None,
            sockets: SocketSet::new(Vec::new()),
            connections: Vec::new(),
            due: None,
        }
    }

    /// Whether a frame of the guest that begins with `head` is for the service: ARP for its
    /// address, or IP to it. The first 42 bytes are enough.
    pub fn claims(&self, head: &[u8]) -> bool {
        kind(head, self.address).is_some()
    }

    /// Takes a frame of the guest that it claims. Its checksums are not looked at.
    pub fn take(&mut self, frame: &[u8], now: Instant) {
        let Some(kind) = kind(frame, self.address) else { return };
        let service = Arc::clone(&self.service);
        let counters = service.counters();
        count(&counters.rx_accepted);
        if kind == Kind::Other {
            count(&counters.rx_accepted_unusual);
        }
        if kind != Kind::Arp && is_cut_off(frame) {
            count(&counters.rx_bad_eth);
            return;
        }
        // Whatever it was sent to, it has come here.
        let mut frame = frame.to_vec();
        if frame[..MAC.len()] != BROADCAST {
            frame[..MAC.len()].copy_from_slice(&MAC);
        }
        if kind != Kind::Arp {
            self.meet(sender(&frame), kind, now);
        }
        if kind == Kind::Syn {
            self.listen(now);
        }
        self.wire.incoming = Some(frame);
        self.advance(now);
        match self.wire.incoming.take() {
            Some(_) => count(&counters.rx_accepted_err),
            None => count(&counters.rx_count),
        }
    }

    /// Puts its next frame for the guest into `to`: its length. None where it has nothing to
    /// say now.
    pub fn give(&mut self, to: &mut [u8], now: Instant) -> Option<usize> {
        if self.wire.outgoing.is_empty() && self.due.is_some_and(|due| due <= now) {
            self.advance(now);
        }
        let was_full = self.wire.is_full();
        let frame = self.wire.outgoing.pop_front()?;
        if was_full {
            // Others wait for its place.
            self.due = Some(now);
        }
        let counters = self.service.counters();
        count(&counters.tx_frames);
        let Some(room) = to.get_mut(..frame.len()) else {
            count(&counters.tx_errors);
            return None;
        };
        room.copy_from_slice(&frame);
        count(&counters.tx_count);
        count_bytes(&counters.tx_bytes, frame.len());
        Some(frame.len())
    }

    /// When it may have a frame though none comes before, once it has none now. None: never.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Gets to know who sent a packet, as from an ARP reply: one that has been restored knows
    /// the service's address and does not ask for it, and the answer is not to wait for one
    /// more round.
    fn meet(&mut self, sender: Option<Neighbour>, kind: Kind, now: Instant) {
        if sender.is_none() || (sender == self.neighbour && kind != Kind::Syn) {
            return;
        }
        self.neighbour = sender;
        self.wire.incoming = sender.map(|sender| introduction(&sender, self.address));
        self.advance(now);
    }

    /// Lets everything go on as far as it can.
    fn advance(&mut self, now: Instant) {
        let time = self.time(now);
        let interface = self
            .interface
            .get_or_insert_with(|| interface(self.address, self.seed, &mut self.wire, time));
        loop {
            interface.poll(time, &mut self.wire, &mut self.sockets);
            let mut did = false;
            for connection in &mut self.connections {
                let socket = self.sockets.get_mut::<Socket<'_>>(connection.handle);
                did |= connection.serve(socket, (&self.service, self.rules), now);
                connection.look(socket, self.service.counters(), now);
            }
            if !did {
                break;
            }
        }
        let due = interface.poll_at(time, &self.sockets);
        self.due = due.map(|due| now + (due - time.min(due)).into());
        self.bury();
    }

    /// Has a socket that waits for a connection, if there may be one more.
    fn listen(&mut self, now: Instant) {
        let waits = |connection: &Connection| {
            self.sockets.get::<Socket<'_>>(connection.handle).is_listening()
        };
        if self.connections.iter().any(waits) {
            return;
        }
        if self.connections.len() >= MOST_CONNECTIONS && !self.make_way(now) {
            return;
        }
        let handle = self.sockets.add(listening());
        self.connections.push(Connection::new(handle, now));
    }

    /// Ends the connection that has had nothing to do for the longest time, if that is a long
    /// one or it is over but for a last wait. Whether there was one.
    fn make_way(&mut self, now: Instant) -> bool {
        let idle = |connection: &Connection| {
            let socket = self.sockets.get::<Socket<'_>>(connection.handle);
            match socket.state() {
                State::TimeWait => u64::MAX,
                _ => now.saturating_duration_since(connection.active).as_secs(),
            }
        };
        let longest = self.connections.iter().map(idle).enumerate().max_by_key(|(_, idle)| *idle);
        match longest {
            Some((place, idle)) if idle >= QUIET => {
                let connection = self.connections.swap_remove(place);
                self.end(&connection);
                true
            }
            _ => false,
        }
    }

    /// Removes what is over.
    fn bury(&mut self) {
        let mut place = 0;
        while let Some(connection) = self.connections.get(place) {
            let state = self.sockets.get::<Socket<'_>>(connection.handle).state();
            if state == State::Closed {
                let connection = self.connections.swap_remove(place);
                self.end(&connection);
            } else {
                place += 1;
            }
        }
    }

    /// Connections and frames that it holds.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.connections.len() + self.wire.outgoing.len()
    }

    fn end(&mut self, connection: &Connection) {
        self.sockets.remove(connection.handle);
        if connection.begun {
            count(&self.service.counters().connections_destroyed);
        }
    }

    fn time(&self, now: Instant) -> WireInstant {
        let since = now.saturating_duration_since(self.began);
        WireInstant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("address", &self.address)
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}

/// Whether an IP packet is longer than its frame.
fn is_cut_off(frame: &[u8]) -> bool {
    const ETHERNET: usize = 14;
    let length = frame.get(ETHERNET + 2..ETHERNET + 4);
    let length = length.and_then(|length| <[u8; 2]>::try_from(length).ok());
    length.is_none_or(|length| frame.len() < ETHERNET + usize::from(u16::from_be_bytes(length)))
}

/// An interface on which everybody is a neighbour: a guest's own address may be any.
fn interface(address: Ipv4Addr, seed: u64, wire: &mut Wire, now: WireInstant) -> Interface {
    let mut config = InterfaceConfig::new(HardwareAddress::Ethernet(EthernetAddress(MAC)));
    config.random_seed = seed;
    let mut interface = Interface::new(config, wire, now);
    interface.update_ip_addrs(|addresses| {
        // There is room for one.
        let _ = addresses.push(IpCidr::new(address.into(), 0));
    });
    interface
}
