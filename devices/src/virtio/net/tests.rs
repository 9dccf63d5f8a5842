//! The network card under a driver, well-behaved and not. A pair of sockets
//! that keeps frames apart stands in for the tap.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::*;
use crate::virtio::testing::{Driver, EVENT_IDX, Used, WRITE, wait_for};

pub(super) const RX: usize = 0;
pub(super) const TX: usize = 1;
const MRG_RXBUF: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;

/// A header that asks the other side to do the checksum at byte 34, and a frame.
pub(super) const HEADER: [u8; HEADER_SIZE] = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];

/// A card with `mac`, and the other end of its cable.
pub(super) fn card(mac: Option<MacAddress>) -> (Net, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let kind = SocketType::SEQPACKET;
    let (tap, cable) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
    (Net::new("eth0", vec![Tap::from(tap)], mac, None), cable)
}

/// A driver of a card, and the other end of its cable.
pub(super) struct Fixture {
    pub(super) driver: Driver,
    pub(super) metrics: Arc<NetMetrics>,
    pub(super) cable: OwnedFd,
}

impl Fixture {
    pub(super) fn running(features: u64) -> Self {
        let (card, cable) = card(None);
        let metrics = Arc::clone(card.metrics());
        Self { driver: Driver::running(Box::new(card), features), metrics, cable }
    }

    /// The driver, on a card and a cable of another machine.
    pub(super) fn moved(&self) -> Self {
        let (card, cable) = card(None);
        let metrics = Arc::clone(card.metrics());
        Self { driver: self.driver.move_to(Box::new(card)), metrics, cable }
    }

    /// Puts a frame on the cable.
    pub(super) fn send(&self, frame: &[u8]) {
        let frame = [&HEADER, frame].concat();
        rustix::net::send(&self.cable, &frame, SendFlags::empty()).unwrap();
    }

    /// Returns when the card has done what it had to do until now.
    pub(super) fn settle(&mut self) {
        self.driver.offer(TX, &[&HEADER, b"settle"], &[]);
        self.driver.kick(1);
        self.driver.wait_used(TX).unwrap();
        let _ = self.driver.irq.read();
    }

    /// The next frame from the cable, with its header.
    pub(super) fn next_frame(&self) -> Vec<u8> {
        let mut frame = vec![0; 0x2_0000];
        let mut length = Err(Errno::AGAIN);
        wait_for(|| {
            length = rustix::net::recv(&self.cable, &mut frame, RecvFlags::empty());
            length.is_ok()
        });
        frame.truncate(length.unwrap().0);
        frame
    }
}

/// What the guest finds: the header as it was sent, but for the buffers' number.
pub(super) fn received(frame: &[u8], buffers: u8) -> Vec<u8> {
    let mut received = [&HEADER, frame].concat();
    received[10] = buffers;
    received
}

/// Bytes none of which is like its neighbours.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

#[test]
fn a_frame_reaches_the_guest_with_its_header() {
    let mut net = Fixture::running(0);
    let offered = net.driver.offer(RX, &[], &[1526]);
    net.send(b"ahoy");
    assert_eq!(net.driver.wait_used(RX), Some(Used { head: 0, length: 16 }));
    assert_eq!(net.driver.bytes(offered.writable[0], 16), received(b"ahoy", 1));
    assert!(net.driver.wait_interrupt());
    assert_eq!(net.metrics.rx_bytes_count.load(Ordering::Relaxed), 4);
}

#[test]
fn a_frame_of_the_guest_leaves_whole_with_its_header() {
    let mut net = Fixture::running(0);
    net.driver.offer(TX, &[&HEADER, b"ah", b"oy"], &[]);
    net.driver.kick(1);
    assert_eq!(net.driver.wait_used(TX), Some(Used { head: 0, length: 0 }));
    assert_eq!(net.next_frame(), [&HEADER[..], b"ahoy"].concat());
    assert_eq!(net.metrics.tx_bytes_count.load(Ordering::Relaxed), 4);
}

#[test]
fn frames_wait_for_buffers_in_order() {
    let mut net = Fixture::running(EVENT_IDX);
    net.send(b"first");
    net.send(b"second");
    let first = net.driver.offer(RX, &[], &[64]);
    net.driver.kick(0);
    assert_eq!(net.driver.wait_used(RX).unwrap().length, 17);
    let second = net.driver.offer(RX, &[], &[64]);
    net.driver.kick(0);
    assert_eq!(net.driver.wait_used(RX).unwrap().length, 18);
    assert_eq!(net.driver.bytes(first.writable[0], 17), received(b"first", 1));
    assert_eq!(net.driver.bytes(second.writable[0], 18), received(b"second", 1));
}

#[test]
fn a_long_frame_is_spread_over_buffers_where_that_was_agreed() {
    let mut net = Fixture::running(MRG_RXBUF);
    let chains: Vec<_> = (0..4).map(|_| net.driver.offer(RX, &[], &[10, 30])).collect();
    net.send(&pattern(100));
    let used: Vec<_> = (0..3).map(|_| net.driver.wait_used(RX).unwrap()).collect();
    assert_eq!(
        used,
        [Used { head: 0, length: 40 }, Used { head: 2, length: 40 }, Used { head: 4, length: 32 }]
    );
    let pieces = used.iter().zip(&chains).map(|(used, chain)| {
        let length = usize::try_from(used.length).unwrap();
        let first = net.driver.bytes(chain.writable[0], 10);
        [first, net.driver.bytes(chain.writable[1], length - 10)].concat()
    });
    assert_eq!(pieces.collect::<Vec<_>>().concat(), received(&pattern(100), 3));
    assert_eq!(net.driver.used_index(RX), 3);
}

#[test]
fn a_driver_that_waits_for_the_first_buffer_of_a_frame_is_told_of_all() {
    let mut net = Fixture::running(MRG_RXBUF | EVENT_IDX);
    net.driver.offer(RX, &[], &[40]);
    net.send(&pattern(100));
    net.settle();
    assert_eq!(net.driver.used_index(RX), 0);
    net.driver.offer(RX, &[], &[40]);
    net.driver.offer(RX, &[], &[40]);
    net.driver.kick(0);
    assert!(net.driver.wait_interrupt());
    assert_eq!(net.driver.used_index(RX), 3);
}

#[test]
fn a_frame_of_64_kib_passes_both_ways() {
    let mut net = Fixture::running(MRG_RXBUF);
    let frame = pattern(65549);
    let whole = [&HEADER[..], &frame].concat();
    net.driver.offer(TX, &[&whole], &[]);
    net.driver.kick(1);
    assert_eq!(net.next_frame(), whole);
    let offered = net.driver.offer(RX, &[], &[65561]);
    net.driver.kick(0);
    net.send(&frame);
    assert_eq!(net.driver.wait_used(RX).unwrap().length, 65561);
    assert_eq!(net.driver.bytes(offered.writable[0], 65561), received(&frame, 1));
}

#[test]
fn more_frames_than_a_batch_all_arrive() {
    let mut net = Fixture::running(0);
    let offered: Vec<_> = (0..200).map(|_| net.driver.offer(RX, &[], &[64])).collect();
    let last = offered.last().unwrap().writable[0];
    (0..200_u8).for_each(|number| net.send(&[number]));
    (0..200).for_each(|_| assert_eq!(net.driver.wait_used(RX).unwrap().length, 13));
    assert_eq!(net.driver.bytes(last, 13), received(&[199], 1));
}

#[test]
fn a_frame_too_long_for_any_buffer_is_dropped_and_the_next_arrives() {
    let mut net = Fixture::running(0);
    let offered = net.driver.offer(RX, &[], &[64]);
    net.send(&pattern(100));
    net.send(b"next");
    assert_eq!(net.driver.wait_used(RX).unwrap().length, 16);
    assert_eq!(net.driver.bytes(offered.writable[0], 16), received(b"next", 1));
    assert_eq!(net.metrics.rx_fails.load(Ordering::Relaxed), 1);
}

#[test]
fn a_frame_too_long_for_all_buffers_together_is_dropped() {
    let mut net = Fixture::running(MRG_RXBUF);
    (0..256).for_each(|_| drop(net.driver.offer(RX, &[], &[16])));
    net.driver.kick(0);
    net.send(&pattern(5000));
    net.send(b"next");
    assert_eq!(net.driver.wait_used(RX).unwrap().length, 16);
    assert_eq!(net.metrics.rx_fails.load(Ordering::Relaxed), 1);
}

#[test]
fn a_tap_that_takes_no_frame_costs_the_frame_only() {
    let mut net = Fixture::running(0);
    rustix::net::shutdown(&net.cable, rustix::net::Shutdown::Read).unwrap();
    net.driver.offer(TX, &[&HEADER, b"lost"], &[]);
    net.driver.kick(1);
    assert_eq!(net.driver.wait_used(TX), Some(Used { head: 0, length: 0 }));
    assert_eq!(net.metrics.tx_fails.load(Ordering::Relaxed), 1);
}

#[test]
fn a_frame_longer_than_any_network_takes_is_dropped() {
    let mut net = Fixture::running(0);
    net.driver.offer(TX, &[&pattern(LARGEST_FRAME + 1)], &[]);
    net.driver.kick(1);
    assert!(net.driver.wait_used(TX).is_some());
    assert_eq!(net.metrics.tx_fails.load(Ordering::Relaxed), 1);
}

#[test]
fn a_frame_without_a_header_is_the_drivers_fault() {
    let mut net = Fixture::running(0);
    net.driver.offer(TX, &[&[0; HEADER_SIZE - 1]], &[]);
    net.driver.kick(1);
    assert!(net.driver.wait_broken());
}

#[test]
fn a_buffer_nothing_can_be_received_into_is_the_drivers_fault() {
    let mut net = Fixture::running(0);
    net.driver.offer(RX, &[b"read only"], &[]);
    net.send(b"ahoy");
    assert!(net.driver.wait_broken());
}

#[test]
fn a_corrupt_receive_queue_leaves_the_loop_idle_until_the_reset() {
    let mut net = Fixture::running(MRG_RXBUF);
    net.driver.offer(RX, &[], &[8]);
    let head = net.driver.chain(RX, &[(0xdead_0000_0000, 64, WRITE)]);
    net.driver.make_available(RX, head);
    net.send(b"ahoy");
    assert!(net.driver.wait_broken());
    net.driver.run(0);
    net.driver.offer(RX, &[], &[64]);
    net.driver.kick(0);
    net.send(b"again");
    assert_eq!(net.driver.wait_used(RX).unwrap().length, 17);
}

#[test]
fn datagrams_that_the_tap_does_not_cut_are_cut_here() {
    let mut net = Fixture::running(1 << VIRTIO_NET_F_HOST_USO);
    let whole = segment::tests::over_ipv4(1000, 0, &pattern(2500));
    net.driver.offer(TX, &[&whole[..50], &whole[50..]], &[]);
    net.driver.kick(1);
    let pieces = [(); 3].map(|()| net.next_frame());
    assert_eq!(pieces.each_ref().map(|piece| piece.len() - HEADER_SIZE - 42), [1000, 1000, 500]);
    let data = pieces.each_ref().map(|piece| &piece[HEADER_SIZE + 42..]).concat();
    assert_eq!(data, pattern(2500));
    assert_eq!(net.metrics.tx_packets_count.load(Ordering::Relaxed), 1);
    assert_eq!(net.metrics.tx_count.load(Ordering::Relaxed), 3);
}

#[test]
fn datagrams_that_cannot_be_cut_are_dropped() {
    let mut net = Fixture::running(1 << VIRTIO_NET_F_HOST_USO);
    let whole = segment::tests::over_ipv4(0, 0, &pattern(2500));
    net.driver.offer(TX, &[&whole], &[]);
    net.driver.kick(1);
    assert_eq!(net.driver.wait_used(TX), Some(Used { head: 0, length: 0 }));
    assert_eq!(net.metrics.tx_malformed_frames.load(Ordering::Relaxed), 1);
    assert_eq!(net.metrics.tx_fails.load(Ordering::Relaxed), 1);
}

#[test]
fn frames_from_another_address_are_sent_and_counted() {
    let (card, _cable) = card("06:00:ac:10:00:02".parse().ok());
    let metrics = Arc::clone(card.metrics());
    let mut driver = Driver::running(Box::new(card), 0);
    for source in [2, 3] {
        let frame = [[0xff; 6], [6, 0, 0xac, 0x10, 0, source]].concat();
        driver.offer(TX, &[&HEADER, &frame], &[]);
        driver.kick(1);
        driver.wait_used(TX).unwrap();
    }
    assert_eq!(metrics.tx_packets_count.load(Ordering::Relaxed), 2);
    assert_eq!(metrics.tx_spoofed_mac_count.load(Ordering::Relaxed), 1);
}

#[test]
fn a_card_without_settings_leaves_address_and_mtu_to_the_driver() {
    let net = Fixture::running(0);
    let settings = 1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_MTU;
    assert_eq!(net.driver.offered() & settings, 0);
    assert_eq!(net.driver.offered() & FEATURES, FEATURES);
}

#[test]
fn a_card_shows_the_address_and_mtu_it_was_given() {
    let (tap, _cable) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let mac = "06:00:ac:10:00:02".parse().unwrap();
    let card = Net::new("eth0", vec![Tap::from(tap)], Some(mac), Some(9000));
    let settings = 1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_MTU;
    assert_eq!(card.features() & settings, settings);
    let mut space = [0xff; 16];
    card.read_config(0, &mut space);
    assert_eq!(space[..6], [0x06, 0x00, 0xac, 0x10, 0x00, 0x02]);
    assert_eq!(space[10..12], 9000_u16.to_le_bytes());
    assert_eq!(space[12..], [0xff; 4]);
}

#[test]
fn the_tap_leaves_undone_what_the_driver_agreed_to_finish() {
    let all = FEATURES;
    let checksums = 1 << VIRTIO_NET_F_GUEST_CSUM | 1 << VIRTIO_NET_F_HOST_TSO4;
    let tcp = Offloads::CSUM.and(Offloads::TSO4).and(Offloads::TSO6);
    assert_eq!(offloads(all, true), tcp.and(Offloads::USO));
    assert_eq!(offloads(all, false), tcp);
    assert_eq!(offloads(all & !(1 << VIRTIO_NET_F_GUEST_USO6), true), tcp);
    assert_eq!(offloads(checksums, true), Offloads::CSUM);
    assert_eq!(offloads(0, true), Offloads::NONE);
    assert_eq!(offloads(all & !(1 << VIRTIO_NET_F_GUEST_CSUM), true), Offloads::NONE);
}
