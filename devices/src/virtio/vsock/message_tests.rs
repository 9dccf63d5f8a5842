//! Connections that carry messages, between programs of the host and a driver.

use std::os::fd::OwnedFd;
use std::time::Duration;

use proptest::collection::vec;
use proptest::proptest;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, accept, bind, connect, listen,
    recv, send, socket,
};
use tempfile::TempDir;

use super::packet::{END_OF_MESSAGE, Header, SEQPACKET, STREAM, op, shut};
use super::tests::{CID, Fixture, GUEST, HOST, packet, pattern};
use super::*;
use crate::virtio::testing::Driver;

/// A device with messages, whose driver accepts these features.
fn device(features: u64) -> Fixture {
    let folder = TempDir::new().unwrap();
    let kinds = [Kind::Stream, Kind::Seqpacket];
    let listener = Listener::at(&folder.path().join("v.sock"), &kinds).unwrap();
    let device = Vsock::new(CID, listener);
    let metrics = Arc::clone(device.metrics());
    let mut fixture = Fixture::of(Driver::running(Box::new(device), features), metrics, folder);
    fixture.offer(64);
    fixture
}

/// A socket of the host's, and the address of the device's with this behind its path.
fn program(vsock: &Fixture, kind: SocketType, behind: &str) -> (OwnedFd, SocketAddrUnix) {
    let socket = socket(AddressFamily::UNIX, kind, None).unwrap();
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(10))).unwrap();
    let path = vsock.folder.path().join(format!("v.sock{behind}"));
    (socket, SocketAddrUnix::new(path).unwrap())
}

/// One that asks for a connection.
fn call(vsock: &Fixture) -> OwnedFd {
    let (program, device) = program(vsock, SocketType::SEQPACKET, "_seqpacket");
    connect(&program, &device).unwrap();
    say(&program, format!("CONNECT {GUEST}\n").as_bytes());
    program
}

fn say(program: &OwnedFd, message: &[u8]) {
    assert_eq!(send(program, message, SendFlags::NOSIGNAL).unwrap(), message.len());
}

/// The next message.
fn hear(program: &OwnedFd) -> Vec<u8> {
    let mut message = vec![0; 1 << 17];
    let (length, _) = recv(program, &mut message[..], RecvFlags::empty()).unwrap();
    message.truncate(length);
    message
}

fn of_messages(header: Header) -> Header {
    Header { kind: SEQPACKET, ..header }
}

/// A connection that the host has asked for, and the host's port of it; the guest has so
/// much room.
fn connected(vsock: &mut Fixture, buf_alloc: u32) -> (OwnedFd, u32) {
    let program = call(vsock);
    let (header, _) = vsock.next();
    assert_eq!((header.op, header.kind, header.dst_port), (op::REQUEST, SEQPACKET, GUEST));
    let host = header.src_port;
    vsock.send(Header { buf_alloc, ..of_messages(packet(GUEST, host, op::RESPONSE)) }, b"");
    assert_eq!(hear(&program), format!("OK {host}\n").as_bytes());
    (program, host)
}

/// The guest sends part of a message.
fn part(vsock: &mut Fixture, host: u32, bytes: &[u8], flags: u32) {
    let len = u32::try_from(bytes.len()).unwrap();
    vsock.send(Header { len, flags, ..of_messages(packet(GUEST, host, op::RW)) }, bytes);
}

/// The next message that the guest receives, in however many packets.
fn received(vsock: &mut Fixture) -> Vec<u8> {
    let mut message = Vec::new();
    loop {
        let (header, payload) = vsock.next();
        assert_eq!((header.op, header.kind), (op::RW, SEQPACKET));
        message.extend(payload);
        if header.flags & END_OF_MESSAGE != 0 {
            return message;
        }
    }
}

#[test]
fn a_message_arrives_as_it_was_sent() {
    let mut vsock = device(MESSAGES);
    let (program, host) = connected(&mut vsock, 1 << 18);
    for message in [&pattern(9000)[..], b"a", b"bc"] {
        say(&program, message);
    }
    assert_eq!(received(&mut vsock), pattern(9000));
    assert_eq!((received(&mut vsock), received(&mut vsock)), (b"a".to_vec(), b"bc".to_vec()));
    part(&mut vsock, host, b"ab", 0);
    part(&mut vsock, host, b"cd", END_OF_MESSAGE);
    part(&mut vsock, host, b"", END_OF_MESSAGE);
    part(&mut vsock, host, b"e", END_OF_MESSAGE);
    assert_eq!((hear(&program), hear(&program)), (b"abcd".to_vec(), b"e".to_vec()));
    drop(program);
    let (header, _) = vsock.next();
    assert_eq!((header.op, header.kind, header.flags), (op::SHUTDOWN, SEQPACKET, shut::BOTH));
}

#[test]
fn a_guest_reaches_who_listens_for_messages_and_for_nothing_else() {
    let mut vsock = device(MESSAGES);
    let (listener, address) = program(&vsock, SocketType::SEQPACKET, &format!("_{HOST}"));
    bind(&listener, &address).unwrap();
    listen(&listener, 8).unwrap();
    vsock.send(packet(GUEST, HOST, op::REQUEST), b"");
    let (header, _) = vsock.next();
    assert_eq!((header.op, header.kind), (op::RST, STREAM));
    vsock.send(of_messages(packet(GUEST, HOST, op::REQUEST)), b"");
    let (header, _) = vsock.next();
    assert_eq!((header.op, header.kind), (op::RESPONSE, SEQPACKET));
    let stream = accept(&listener).unwrap();
    part(&mut vsock, HOST, b"ahoy", END_OF_MESSAGE);
    assert_eq!(hear(&stream), b"ahoy");
    // A packet of the other kind is for nobody, and the connection goes on.
    vsock.write((GUEST, HOST), b"what");
    assert_eq!(vsock.next().0.op, op::RST);
    part(&mut vsock, HOST, b"again", END_OF_MESSAGE);
    assert_eq!(hear(&stream), b"again");
}

#[test]
fn a_driver_without_messages_has_none() {
    let mut vsock = device(0);
    vsock.send(of_messages(packet(GUEST, HOST, op::REQUEST)), b"");
    assert_eq!(vsock.next().0.op, op::RST);
    let (program, device) = program(&vsock, SocketType::SEQPACKET, "_seqpacket");
    connect(&program, &device).unwrap();
    assert_eq!(recv(&program, &mut [0; 1], RecvFlags::empty()).unwrap().0, 0);
}

#[test]
fn a_message_waits_until_the_guest_has_room_for_all_of_it() {
    let mut vsock = device(MESSAGES);
    let (program, host) = connected(&mut vsock, 100);
    say(&program, &pattern(60));
    say(&program, &pattern(61));
    assert_eq!(received(&mut vsock), pattern(60));
    assert_eq!(vsock.next().0.op, op::CREDIT_REQUEST);
    let update = Header { buf_alloc: 100, fwd_cnt: 20, ..packet(GUEST, host, op::CREDIT_UPDATE) };
    vsock.send(of_messages(update), b"");
    let before = vsock.settle();
    vsock.send(of_messages(Header { fwd_cnt: 60, ..update }), b"");
    assert_eq!(received(&mut vsock), pattern(61));
    assert!(vsock.settle() > before);
}

#[test]
fn a_message_that_nobody_could_take_ends_the_connection() {
    for (length, room) in [(101, 100), ((1 << 16) + 1, 1 << 18)] {
        let mut vsock = device(MESSAGES);
        let (program, _) = connected(&mut vsock, room);
        say(&program, &pattern(length));
        assert_eq!(vsock.next().0.op, op::RST);
    }
}

#[test]
fn a_guest_that_waits_for_room_in_the_middle_of_a_message_is_told_of_it() {
    let mut vsock = device(MESSAGES);
    let (program, host) = connected(&mut vsock, 1 << 18);
    let message = pattern(60_000);
    part(&mut vsock, host, &message[..20_000], END_OF_MESSAGE);
    assert_eq!(hear(&program), &message[..20_000]);
    // All that it knows to be free.
    part(&mut vsock, host, &message[..45_536], 0);
    let (header, _) = vsock.next();
    assert_eq!((header.op, header.fwd_cnt), (op::CREDIT_UPDATE, 20_000));
    part(&mut vsock, host, &message[45_536..], END_OF_MESSAGE);
    assert_eq!(hear(&program), message);
}

#[test]
fn a_message_that_is_never_finished_goes_with_its_connection() {
    let mut vsock = device(MESSAGES);
    let (program, host) = connected(&mut vsock, 1 << 18);
    part(&mut vsock, host, b"whole", END_OF_MESSAGE);
    part(&mut vsock, host, b"half", 0);
    let end = Header { flags: shut::BOTH, ..packet(GUEST, host, op::SHUTDOWN) };
    vsock.send(of_messages(end), b"");
    assert_eq!(vsock.next().0.op, op::RST);
    assert_eq!(hear(&program), b"whole");
    assert_eq!(hear(&program), b"");
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(16))]
    #[test]
    fn messages_stay_apart_whatever_their_lengths(
        out in vec(1_usize..20_000, 1..6),
        back in vec((1_usize..3000, 1_usize..6), 1..6),
    ) {
        let mut vsock = device(MESSAGES);
        let (program, host) = connected(&mut vsock, 1 << 20);
        for length in out {
            say(&program, &pattern(length));
            assert_eq!(received(&mut vsock), pattern(length));
        }
        for (length, parts) in &back {
            for at in 1..=*parts {
                let flags = if at == *parts { END_OF_MESSAGE } else { 0 };
                part(&mut vsock, host, &pattern(*length), flags);
            }
        }
        for (length, parts) in back {
            assert_eq!(hear(&program), pattern(length).repeat(parts));
        }
    }
}
