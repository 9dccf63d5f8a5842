//! A card with several pairs of queues, and the queue through which its driver
//! says how many it uses.

use std::os::fd::OwnedFd;

use expect_test::expect;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::tests::{HEADER, received};
use super::*;
use crate::virtio::limits::TokenBucket;
use crate::virtio::testing::{Driver, EVENT_IDX, Used, WRITE, wait_for};

const FEATURES: u64 = SEVERAL | EVENT_IDX;
const SET_PAIRS: [u8; 2] = [4, 0];
const OK: u8 = 0;
const REFUSED: u8 = 1;

/// A card with `pairs` pairs of queues, and the other ends of its cable.
pub(super) fn card(pairs: u16) -> (Net, Vec<OwnedFd>) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let kind = SocketType::SEQPACKET;
    let ends = (0..pairs)
        .map(|_| rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None).unwrap());
    let (taps, cables): (Vec<_>, _) = ends.map(|(tap, cable)| (Tap::from(tap), cable)).unzip();
    (Net::new("eth0", taps, None, None), cables)
}

struct Several {
    driver: Driver,
    metrics: Arc<NetMetrics>,
    cables: Vec<OwnedFd>,
    control: usize,
}

impl Several {
    fn running(pairs: u16) -> Self {
        let (card, cables) = card(pairs);
        let metrics = Arc::clone(card.metrics());
        let driver = Driver::running(Box::new(card), FEATURES);
        Self { driver, metrics, cables, control: usize::from(2 * pairs) }
    }

    /// Gives a command, and returns the answer.
    fn command(&mut self, command: &[u8]) -> u8 {
        let control = self.control;
        let offered = self.driver.offer(control, &[command], &[1]);
        self.driver.kick(u32::try_from(control).unwrap());
        assert_eq!(self.driver.wait_used(control).unwrap().length, 1);
        self.driver.bytes(offered.writable[0], 1)[0]
    }

    fn use_pairs(&mut self, count: u16) -> u8 {
        self.command(&[&SET_PAIRS[..], &count.to_le_bytes()].concat())
    }

    /// Puts a frame on the cable of a pair.
    fn send(&self, pair: usize, frame: &[u8]) {
        let frame = [&HEADER, frame].concat();
        rustix::net::send(&self.cables[pair], &frame, SendFlags::empty()).unwrap();
    }

    /// The next frame on the cable of a pair, without its header.
    fn next_frame(&self, pair: usize) -> Vec<u8> {
        let mut frame = vec![0; 4096];
        let mut length = Err(Errno::AGAIN);
        wait_for(|| {
            length = rustix::net::recv(&self.cables[pair], &mut frame, RecvFlags::empty());
            length.is_ok()
        });
        frame[HEADER_SIZE..length.unwrap().0].to_vec()
    }

    /// What is saved of it.
    fn saved(&self) -> NetV1 {
        use kedge_saved_state::Versioned;
        let transport = self.driver.save();
        let transport: crate::virtio::transport::saved::TransportV1 = transport.read().unwrap();
        assert_eq!(transport.device.kind, NetV1::KIND);
        transport.device.read().unwrap()
    }
}

fn queue(pair: usize, transmit: bool) -> (usize, u32) {
    let index = 2 * pair + usize::from(transmit);
    (index, u32::try_from(index).unwrap())
}

#[test]
fn frames_go_both_ways_on_each_of_eight_pairs() {
    let mut net = Several::running(8);
    assert_eq!(net.use_pairs(8), OK);
    for pair in 0..8 {
        let ((rx, rx_bell), (tx, tx_bell)) = (queue(pair, false), queue(pair, true));
        let frame = [b'a' + u8::try_from(pair).unwrap(); 20];
        net.driver.offer(tx, &[&HEADER, &frame], &[]);
        net.driver.kick(tx_bell);
        assert_eq!(net.driver.wait_used(tx).unwrap().length, 0);
        assert_eq!(net.next_frame(pair), frame);
        let offered = net.driver.offer(rx, &[], &[64]);
        net.driver.kick(rx_bell);
        net.send(pair, &frame);
        assert_eq!(net.driver.wait_used(rx).unwrap().length, 32);
        assert_eq!(net.driver.bytes(offered.writable[0], 32), received(&frame, 1));
    }
    assert_eq!(net.metrics.tx_packets_count.load(Ordering::Relaxed), 8);
    assert_eq!(net.metrics.rx_packets_count.load(Ordering::Relaxed), 8);
}

#[test]
fn a_card_says_how_many_pairs_it_has_if_there_are_several() {
    let (several, _cables) = card(5);
    assert_eq!(several.features() & SEVERAL, SEVERAL);
    assert_eq!(several.queue_sizes().len(), 11);
    let mut space = [0; 12];
    several.read_config(0, &mut space);
    assert_eq!(space[8..10], [5, 0]);
    let (single, _cables) = card(1);
    assert_eq!(single.features() & SEVERAL, 0);
    assert_eq!(single.queue_sizes(), [256, 256]);
    single.read_config(0, &mut space);
    assert_eq!(space[8..10], [0, 0]);
}

#[test]
fn only_as_many_pairs_as_there_are_can_be_used() {
    let mut net = Several::running(3);
    assert_eq!([1, 2, 3].map(|count| net.use_pairs(count)), [OK; 3]);
    assert_eq!([0, 4, 0x103, 0x8000, u16::MAX].map(|count| net.use_pairs(count)), [REFUSED; 5]);
    assert_eq!(net.saved().pairs.unwrap().in_use, 3);
    assert_eq!(net.metrics.control_fails.load(Ordering::Relaxed), 5);
}

#[test]
fn commands_that_are_none_are_refused_and_the_next_is_obeyed() {
    let mut net = Several::running(2);
    for command in [
        &[4_u8][..],
        &[4, 0],
        &[4, 0, 2],
        &[4, 0, 2, 0, 0],
        &[4, 0, 2, 0, 2, 0],
        // Another of the class, and those of other classes: filters, addresses.
        &[4, 1, 2, 0],
        &[0, 0, 1],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[1, 1, 6, 0, 0, 0, 0, 1],
        &[255; 4096],
    ] {
        assert_eq!(net.command(command), REFUSED, "{command:?}");
    }
    assert_eq!(net.use_pairs(2), OK);
}

#[test]
fn a_command_without_room_for_an_answer_is_the_drivers_fault() {
    let mut net = Several::running(2);
    net.driver.offer(net.control, &[&[4, 0, 2, 0]], &[]);
    net.driver.kick(4);
    assert!(net.driver.wait_broken());
    assert_eq!(net.driver.used_index(4), 0);
}

#[test]
fn a_command_with_nothing_in_it_is_refused() {
    let mut net = Several::running(2);
    let answer = net.driver.allocate(1);
    let head = net.driver.chain(net.control, &[(answer, 1, WRITE)]);
    net.driver.make_available(net.control, head);
    net.driver.kick(4);
    assert_eq!(net.driver.wait_used(net.control), Some(Used { head: 0, length: 1 }));
    assert_eq!(net.driver.bytes(answer, 1), [REFUSED]);
}

#[test]
fn many_commands_at_once_are_each_answered() {
    let mut net = Several::running(2);
    let answers: Vec<_> = (0..32)
        .map(|_| net.driver.offer(net.control, &[&[4, 0, 2, 0]], &[1]).writable[0])
        .collect();
    net.driver.kick(4);
    for answer in answers {
        assert!(net.driver.wait_used(net.control).is_some());
        assert_eq!(net.driver.bytes(answer, 1), [OK]);
    }
}

#[test]
fn a_driver_that_has_too_many_commands_waits_and_no_reset_helps_it() {
    let (mut card, _cables) = card(2);
    let few = TokenBucket { size: 3, refill_time: 1_000_000_000, one_time_burst: None };
    card.commands = Limits::new(RateLimiter { bandwidth: None, ops: Some(few) });
    let metrics = Arc::clone(card.metrics());
    let mut driver = Driver::running(Box::new(card), FEATURES);
    let command = |driver: &mut Driver, count| {
        (0..count).for_each(|_| drop(driver.offer(4, &[&[4, 0, 2, 0]], &[1])));
        driver.kick(4);
    };
    command(&mut driver, 2);
    assert!(driver.wait_used(4).is_some() && driver.wait_used(4).is_some());
    driver.run(FEATURES);
    command(&mut driver, 4);
    assert!(driver.wait_used(4).is_some());
    driver.save();
    assert_eq!(driver.used_index(4), 1);
    assert_eq!(metrics.control_count.load(Ordering::Relaxed), 3);
}

#[test]
fn pairs_and_frames_that_wait_move_with_the_guest() {
    let mut net = Several::running(3);
    assert_eq!(net.use_pairs(2), OK);
    net.send(0, b"first");
    net.send(1, b"second");
    let waits = || net.metrics.no_rx_avail_buffer.load(Ordering::Relaxed) >= 2;
    assert!(wait_for(waits));
    let saved = net.saved();
    assert_eq!(saved.frame.0[HEADER_SIZE..], *b"first");
    let pairs = saved.pairs.unwrap();
    assert_eq!((pairs.in_use, pairs.frames.len()), (2, 2));
    let (other, cables) = card(3);
    let mut moved = Several {
        metrics: Arc::clone(other.metrics()),
        driver: net.driver.move_to(Box::new(other)),
        cables,
        control: net.control,
    };
    for (pair, frame) in [(0, &b"first"[..]), (1, b"second")] {
        let (rx, bell) = queue(pair, false);
        let offered = moved.driver.offer(rx, &[], &[64]);
        moved.driver.kick(bell);
        let length = moved.driver.wait_used(rx).unwrap().length;
        let length = usize::try_from(length).unwrap();
        assert_eq!(moved.driver.bytes(offered.writable[0], length), received(frame, 1));
    }
    assert_eq!(moved.saved().pairs.unwrap().in_use, 2);
}

#[test]
fn a_driver_that_comes_after_a_reset_uses_one_pair() {
    let mut net = Several::running(2);
    assert_eq!(net.use_pairs(2), OK);
    net.driver.run(FEATURES);
    assert_eq!(net.saved().pairs.unwrap().in_use, 1);
}

#[test]
fn a_card_saved_with_other_pairs_is_refused() {
    let restore = |most: u16, pairs: Option<PairsV1>| {
        let part = Part::of(&NetV1 { pairs, ..card(1).0.save().read().unwrap() });
        card(most).0.restore(&part)
    };
    let pairs = |in_use, frames| Some(PairsV1 { in_use, frames: vec![Bytes(Vec::new()); frames] });
    restore(1, None).unwrap();
    restore(2, pairs(2, 1)).unwrap();
    let refused = |most, pairs| restore(most, pairs).unwrap_err().to_string();
    expect!["the saved `virtio-net` is not plausible: `pairs` are not there, and the card has 2"]
        .assert_eq(&refused(2, None));
    expect![
        "the saved `virtio-net` is not plausible: `pairs.frames` are of 3 pairs, and the card has 2"
    ]
    .assert_eq(&refused(2, pairs(2, 2)));
    expect![
        "the saved `virtio-net` is not plausible: `pairs.frames` are of 1 pairs, and the card has 1"
    ]
    .assert_eq(&refused(1, pairs(1, 0)));
    expect!["the saved `virtio-net` is not plausible: `pairs.in_use` is 3, and not 1 to 2"]
        .assert_eq(&refused(2, pairs(3, 1)));
    expect!["the saved `virtio-net` is not plausible: `pairs.in_use` is 0, and not 1 to 2"]
        .assert_eq(&refused(2, pairs(0, 1)));
}
