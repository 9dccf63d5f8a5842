//! The stack under a guest: another stack of the same kind, over frames.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as WireInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::connection::PORT;
use super::stack::Stack;
use super::wire::Wire;
use crate::service::random_enough;
use crate::{Config, Service};

const GUEST_MAC: [u8; 6] = [6, 0, 0, 0, 0, 2];

pub(super) fn service() -> Arc<Service> {
    let service = Service::new("web", 1 << 20, random_enough);
    service.put(json!({"a": "b", "long": "x".repeat(100_000)})).unwrap();
    Arc::new(service)
}

pub(super) fn config(version: &str) -> Config {
    serde_json::from_value(json!({"network_interfaces": ["eth0"], "version": version})).unwrap()
}

/// A guest with one card and a stack of its own.
pub(super) struct Guest {
    pub(super) stack: Stack,
    pub(super) now: Instant,
    began: Instant,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    next_port: u16,
}

impl Guest {
    pub(super) fn new(service: Arc<Service>) -> Self {
        let stack = Stack::new(service, &config("V1"), 7);
        let mut wire = Wire::default();
        let mut interface_config =
            InterfaceConfig::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC)));
        interface_config.random_seed = 1;
        let mut interface = Interface::new(interface_config, &mut wire, WireInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // The route to the service.
            addresses.push(IpCidr::new(IpAddress::v4(172, 16, 0, 2), 0)).unwrap();
        });
        let (now, sockets) = (Instant::now(), SocketSet::new(Vec::new()));
        Self { stack, now, began: now, wire, interface, sockets, next_port: 40_000 }
    }

    /// Connects, without a word.
    pub(super) fn connect(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 16 << 10]);
        let mut socket = Socket::new(buffer(), buffer());
        self.next_port += 1;
        let service = (IpAddress::v4(169, 254, 169, 254), PORT);
        socket.connect(self.interface.context(), service, self.next_port).unwrap();
        let handle = self.sockets.add(socket);
        self.settle();
        handle
    }

    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Sends `text` and reads what comes back until nothing more does.
    pub(super) fn say(&mut self, handle: SocketHandle, text: &str) -> String {
        let mut rest = text.as_bytes();
        let mut answer = Vec::new();
        loop {
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            if socket.can_send() {
                rest = &rest[socket.send_slice(rest).unwrap()..];
            }
            self.settle();
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            let mut read = 0;
            while socket.can_recv() {
                let part = |bytes: &mut [u8]| (bytes.len(), bytes.to_vec());
                let part = socket.recv(part).unwrap();
                read += part.len();
                answer.extend(part);
            }
            if read == 0 && rest.is_empty() {
                return String::from_utf8(answer).unwrap();
            }
        }
    }

    pub(super) fn get(&mut self, path: &str) -> String {
        let handle = self.connect();
        self.say(handle, &format!("GET {path} HTTP/1.1\r\n\r\n"))
    }

    /// Carries frames to and fro until there are none, and time is not needed.
    pub(super) fn settle(&mut self) {
        loop {
            let time = WireInstant::from_micros(
                i64::try_from((self.now - self.began).as_micros()).unwrap(),
            );
            self.interface.poll(time, &mut self.wire, &mut self.sockets);
            let sent: VecDeque<_> = std::mem::take(&mut self.wire.outgoing);
            let quiet = sent.is_empty();
            for frame in sent {
                assert!(self.stack.claims(&frame[..42]));
                self.stack.take(&frame, self.now);
            }
            let mut room = [0; 2048];
            match self.stack.give(&mut room, self.now) {
                Some(length) => self.wire.incoming = Some(room[..length].to_vec()),
                None if quiet => return,
                None => {}
            }
        }
    }
}

fn counter(service: &Service, name: &str) -> u64 {
    let named = service.counters().named();
    named.iter().find(|row| row.0 == name).unwrap().1.load(Ordering::Relaxed)
}

#[test]
fn a_guest_reads_what_its_host_has_put_there() {
    let service = service();
    let mut guest = Guest::new(Arc::clone(&service));
    assert!(guest.get("/a").ends_with("\r\n\r\nb"));
    service.patch(json!({"a": "c"})).unwrap();
    assert!(guest.get("/a").ends_with("\r\n\r\nc"));
    assert_eq!(counter(&service, "connections_created"), 2);
    assert_eq!(counter(&service, "tx_errors"), 0);
}

#[test]
fn a_connection_stays_for_more_requests_and_answers_come_in_order() {
    let mut guest = Guest::new(service());
    let handle = guest.connect();
    let one = "GET /a HTTP/1.1\r\n\r\n";
    assert!(guest.say(handle, one).ends_with("\r\n\r\nb"));
    let answers = guest.say(handle, &format!("{one}GET /none HTTP/1.1\r\n\r\n{one}"));
    let statuses: Vec<_> = answers.matches("HTTP/1.1 200").collect();
    assert_eq!(statuses.len(), 2, "{answers}");
    assert!(answers.find("404").unwrap() < answers.rfind("200").unwrap());
    assert!(guest.socket(handle).may_recv());
}

#[test]
fn an_answer_longer_than_every_buffer_arrives_whole() {
    let mut guest = Guest::new(service());
    let answer = guest.get("/long");
    assert!(answer.ends_with(&format!("\r\n\r\n{}", "x".repeat(100_000))));
}

#[test]
fn a_connection_ends_when_its_guest_says_so() {
    let service = service();
    let mut guest = Guest::new(Arc::clone(&service));
    let handle = guest.connect();
    let answer = guest.say(handle, "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(answer.contains("Connection: close") && !guest.socket(handle).may_recv());
    let handle = guest.connect();
    guest.socket(handle).close();
    guest.settle();
    assert_eq!(guest.socket(handle).state(), State::TimeWait);
    assert_eq!(counter(&service, "connections_destroyed"), 1);
}

#[test]
fn a_request_that_is_none_or_too_long_is_told_so_and_is_the_last() {
    let mut guest = Guest::new(service());
    for text in ["nonsense\r\n\r\n".to_owned(), format!("GET /{}", "x".repeat(3000))] {
        let handle = guest.connect();
        let answer = guest.say(handle, &text);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(!guest.socket(handle).may_recv());
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let mut guest = Guest::new(service());
    let handle = guest.connect();
    let text = "GET /a HTTP/1.1\r\nAccept: application/json\r\n\r\n";
    let answers: Vec<_> = text.chars().map(|c| guest.say(handle, &c.to_string())).collect();
    let (last, before) = answers.split_last().unwrap();
    assert!(before.iter().all(String::is_empty));
    assert!(last.ends_with("\r\n\r\n\"b\""));
}

#[test]
fn there_are_thirty_connections_and_the_quiet_make_way() {
    let service = service();
    let mut guest = Guest::new(Arc::clone(&service));
    let mut handles: Vec<_> = (0..30).map(|_| guest.connect()).collect();
    let refused = guest.connect();
    assert!(!guest.socket(refused).is_open());
    guest.now += Duration::from_secs(3);
    let busy = handles.remove(0);
    assert!(guest.say(busy, "GET /a HTTP/1.1\r\n\r\n").ends_with('b'));
    let accepted = guest.connect();
    assert!(guest.say(accepted, "GET /a HTTP/1.1\r\n\r\n").ends_with('b'));
    assert!(guest.say(busy, "GET /a HTTP/1.1\r\n\r\n").ends_with('b'));
    assert_eq!(counter(&service, "connections_created"), 31);
    assert_eq!(counter(&service, "connections_destroyed"), 1);
}

#[test]
fn another_port_is_refused_and_does_not_hang() {
    let mut guest = Guest::new(service());
    let buffer = || SocketBuffer::new(vec![0; 1024]);
    let mut socket = Socket::new(buffer(), buffer());
    let service = (IpAddress::v4(169, 254, 169, 254), 8080);
    socket.connect(guest.interface.context(), service, 50_000).unwrap();
    let handle = guest.sockets.add(socket);
    guest.settle();
    assert_eq!(guest.socket(handle).state(), State::Closed);
}

#[test]
fn what_got_lost_is_sent_again_in_time() {
    let mut guest = Guest::new(service());
    let handle = guest.connect();
    let request = b"GET /a HTTP/1.1\r\n\r\n";
    guest.socket(handle).send_slice(request).unwrap();
    guest.interface.poll(WireInstant::ZERO, &mut guest.wire, &mut guest.sockets);
    for frame in std::mem::take(&mut guest.wire.outgoing) {
        guest.stack.take(&frame, guest.now);
    }
    // The answer.
    let mut room = [0; 2048];
    while guest.stack.give(&mut room, guest.now).is_some() {}
    let due = guest.stack.due().unwrap();
    assert!(due > guest.now && due < guest.now + Duration::from_secs(5));
    guest.now = due;
    assert!(guest.say(handle, "").ends_with("\r\n\r\nb"));
}

#[test]
fn a_guest_that_does_not_read_costs_no_time() {
    let mut guest = Guest::new(service());
    let handle = guest.connect();
    guest.socket(handle).send_slice(b"GET /long HTTP/1.1\r\n\r\n").unwrap();
    // Its own buffer fills up; nobody reads from it.
    guest.settle();
    let due = guest.stack.due();
    assert!(due.is_none_or(|due| due > guest.now), "{due:?}");
    assert!(guest.say(handle, "").ends_with(&"x".repeat(100_000)));
}

#[test]
fn a_connection_of_another_life_is_reset() {
    let mut guest = Guest::new(service());
    let handle = guest.connect();
    // As after a restore: the guest's stack goes on, the service's is new.
    guest.stack = Stack::new(service(), &config("V1"), 8);
    guest.socket(handle).send_slice(b"GET /a HTTP/1.1\r\n\r\n").unwrap();
    guest.settle();
    assert_eq!(guest.socket(handle).state(), State::Closed);
    assert!(guest.get("/a").ends_with("\r\n\r\nb"));
}
