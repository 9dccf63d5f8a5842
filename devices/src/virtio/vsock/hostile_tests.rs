//! The vsock device under a driver that breaks the rules.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::packet::{HEADER_SIZE, Header, op, shut};
use super::tests::{Fixture, GUEST, HOST, RX, TX, is_closed, packet, pattern};
use crate::virtio::testing::wait_for;

#[test]
fn a_packet_for_somebody_else_is_refused_in_his_name() {
    let mut vsock = Fixture::running();
    vsock.send(Header { dst_cid: 7, ..packet(GUEST, HOST, op::REQUEST) }, b"");
    let (header, _) = vsock.next();
    assert_eq!((header.src_cid, header.dst_cid, header.op), (7, 3, op::RST));
}

#[test]
fn a_packet_from_somebody_else_is_dropped() {
    let mut vsock = Fixture::running();
    vsock.send(Header { src_cid: 4, ..packet(GUEST, HOST, op::REQUEST) }, b"");
    assert_eq!(vsock.settle(), 0);
    assert_eq!(vsock.metrics.bad_packets.load(Ordering::Relaxed), 4);
}

#[test]
fn an_unknown_type_is_refused() {
    let mut vsock = Fixture::running();
    for kind in [0, 2, 0xffff] {
        vsock.send(Header { kind, ..packet(GUEST, HOST, op::REQUEST) }, b"");
        let (header, _) = vsock.next();
        assert_eq!((header.kind, header.op), (kind, op::RST));
    }
}

#[test]
fn what_is_for_no_connection_is_refused_and_a_refusal_is_not() {
    let mut vsock = Fixture::running();
    vsock.send(packet(GUEST, HOST, op::RST), b"");
    for op in [0, op::RESPONSE, op::SHUTDOWN, op::RW, op::CREDIT_UPDATE, op::CREDIT_REQUEST, 99] {
        vsock.send(packet(GUEST, HOST, op), b"");
        assert_eq!(vsock.next_op(), (GUEST, HOST, op::RST));
    }
    assert_eq!(vsock.settle(), 7);
}

#[test]
fn what_makes_no_sense_ends_the_connection() {
    for op in [0, op::REQUEST, op::RESPONSE, 8, 0xffff] {
        let mut vsock = Fixture::running();
        let (mut program, host) = vsock.connected();
        vsock.send(packet(GUEST, host, op), b"");
        assert_eq!(vsock.next_op(), (GUEST, host, op::RST), "operation {op}");
        assert!(is_closed(&mut program));
    }
}

#[test]
fn payload_before_the_answer_ends_the_connection() {
    let mut vsock = Fixture::running();
    let mut program = vsock.call("CONNECT 52\n");
    let (_, host, _) = vsock.next_op();
    vsock.write((GUEST, host), b"early");
    assert_eq!(vsock.next_op(), (GUEST, host, op::RST));
    assert!(is_closed(&mut program));
}

#[test]
fn a_packet_shorter_than_it_says_ends_the_connection() {
    for len in [6, 65536, u32::MAX] {
        let mut vsock = Fixture::running();
        let (_program, host) = vsock.connected();
        vsock.send(Header { len, ..packet(GUEST, host, op::RW) }, b"five!");
        assert_eq!(vsock.next_op(), (GUEST, host, op::RST));
    }
}

#[test]
fn a_packet_longer_than_it_says_is_cut() {
    let mut vsock = Fixture::running();
    let (mut program, host) = vsock.connected();
    vsock.send(Header { len: 4, ..packet(GUEST, host, op::RW) }, b"four and more");
    vsock.send(Header { flags: shut::SEND, ..packet(GUEST, host, op::SHUTDOWN) }, b"");
    let mut said = String::new();
    program.read_to_string(&mut said).unwrap();
    assert_eq!(said, "four");
}

#[test]
fn no_payload_is_no_harm() {
    let mut vsock = Fixture::running();
    let (mut program, host) = vsock.connected();
    vsock.write((GUEST, host), b"");
    vsock.write((GUEST, host), b"x");
    program.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_guest_that_sends_more_than_there_is_room_for_is_cut_off() {
    let mut vsock = Fixture::running();
    let (_program, host) = vsock.connected();
    // What the stream takes, the buffer, and one more.
    for _ in 0..16 {
        vsock.write((GUEST, host), &pattern(60_000));
    }
    while vsock.next_op() != (GUEST, host, op::RST) {}
}

#[test]
fn a_packet_larger_than_the_buffer_ends_the_connection() {
    let mut vsock = Fixture::running();
    let (_program, host) = vsock.connected();
    vsock.write((GUEST, host), &pattern(65_537));
    assert_eq!(vsock.next_op(), (GUEST, host, op::RST));
}

#[test]
fn payload_after_the_last_ends_the_connection() {
    let mut vsock = Fixture::running();
    let (_program, host) = vsock.connected();
    vsock.send(Header { flags: shut::SEND, ..packet(GUEST, host, op::SHUTDOWN) }, b"");
    vsock.write((GUEST, host), b"more");
    assert_eq!(vsock.next_op(), (GUEST, host, op::RST));
}

#[test]
fn a_guest_gets_no_more_than_it_has_room_for() {
    let mut vsock = Fixture::running();
    let (mut program, host) = vsock.connected();
    let update = packet(GUEST, host, op::CREDIT_UPDATE);
    vsock.send(Header { buf_alloc: 10, ..update }, b"");
    program.write_all(&pattern(100)).unwrap();
    assert_eq!(vsock.next().1, pattern(10));
    assert_eq!(vsock.next_op().2, op::CREDIT_REQUEST);
    let received = vsock.settle();
    vsock.send(Header { buf_alloc: 10, fwd_cnt: 0, ..update }, b"");
    assert_eq!(vsock.settle(), received);
    vsock.send(Header { buf_alloc: 10, fwd_cnt: 3, ..update }, b"");
    assert_eq!(vsock.next().1, pattern(13)[10..]);
}

#[test]
fn a_guest_that_counts_what_it_was_never_sent_gets_nothing() {
    let mut vsock = Fixture::running();
    let (mut program, host) = vsock.connected();
    let update = packet(GUEST, host, op::CREDIT_UPDATE);
    vsock.send(Header { fwd_cnt: 1, ..update }, b"");
    program.write_all(b"ahoy").unwrap();
    assert_eq!(vsock.next_op().2, op::CREDIT_REQUEST);
    vsock.settle();
    vsock.send(update, b"");
    assert_eq!(vsock.next().1, b"ahoy");
}

#[test]
fn packets_wait_where_refusals_are_not_taken() {
    let mut vsock = Fixture::starving();
    let before = vsock.driver.used_index(TX);
    // A ring full, twice: chains are a descriptor each.
    for _ in 0..256 {
        vsock.post(packet(GUEST, HOST, op::RW), b"");
    }
    assert!(wait_for(|| vsock.driver.used_index(TX).wrapping_sub(before) == 256));
    for _ in 0..256 {
        vsock.driver.wait_used(TX).unwrap();
    }
    vsock.post(packet(GUEST, HOST, op::RW), b"");
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(vsock.driver.used_index(TX).wrapping_sub(before), 256);
    vsock.offer(32);
    for _ in 0..257 {
        assert_eq!(vsock.next_op(), (GUEST, HOST, op::RST));
    }
    vsock.driver.wait_used(TX).unwrap();
}

#[test]
fn a_packet_without_a_header_is_the_drivers_fault() {
    let mut vsock = Fixture::running();
    vsock.driver.offer(TX, &[&[0; HEADER_SIZE - 1]], &[]);
    vsock.driver.kick(1);
    assert!(vsock.driver.wait_broken());
}

#[test]
fn a_buffer_without_room_is_the_drivers_fault() {
    let mut vsock = Fixture::starving();
    vsock.driver.offer(RX, &[], &[HEADER_SIZE]);
    vsock.driver.kick(0);
    vsock.send(packet(GUEST, HOST, op::RW), b"");
    assert!(vsock.driver.wait_broken());
}

#[test]
fn a_header_and_its_payload_may_be_in_many_pieces() {
    let mut vsock = Fixture::running();
    let (mut program, host) = vsock.connected();
    let head = Header { len: 6, ..packet(GUEST, host, op::RW) }.to_bytes();
    let pieces = [&head[..1], &head[1..20], &head[20..], b"ke", b"dge", b"s"];
    vsock.driver.offer(TX, &pieces, &[]);
    vsock.driver.kick(1);
    let mut said = [0; 6];
    program.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"kedges");
}

/// A packet of which anything may be wrong.
fn any_packet() -> impl Strategy<Value = (Header, Vec<u8>)> {
    let ports = (prop_oneof![Just(GUEST), 0..3_u32], prop_oneof![0..4_u32, 1..3_u32, Just(HOST)]);
    let odd = (0..9_u16, any::<u32>(), prop_oneof![0..200_u32, any::<u32>()]);
    let credit = (prop_oneof![0..100_u32, any::<u32>()], prop_oneof![0..100_u32, any::<u32>()]);
    (ports, odd, credit, prop::collection::vec(any::<u8>(), 0..200)).prop_map(
        |((guest, host), (op, flags, len), (buf_alloc, fwd_cnt), payload)| {
            // Small numbers are connections of the host's.
            let host = if host < 4 { super::FIRST_PORT + host } else { host };
            let plain = packet(guest, host, op);
            (Header { flags, len, buf_alloc, fwd_cnt, ..plain }, payload)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_guest_sends_the_next_connection_works(
        packets in prop::collection::vec(any_packet(), 1..60)
    ) {
        let mut vsock = Fixture::running();
        let _listener = vsock.listener();
        let mut programs: Vec<_> = (0..3).map(|_| vsock.connected().0).collect();
        programs.iter_mut().for_each(|program| program.write_all(b"something").unwrap());
        for (header, payload) in packets {
            vsock.send(header, &payload);
        }
        let mut program = vsock.call("CONNECT 77\n");
        while vsock.next_op() != (77, super::FIRST_PORT + 3, op::REQUEST) {}
        vsock.send(packet(77, super::FIRST_PORT + 3, op::RESPONSE), b"");
        prop_assert_eq!(super::tests::line(&mut program), "OK 1073741827\n");
    }
}
