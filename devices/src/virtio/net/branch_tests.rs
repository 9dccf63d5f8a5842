//! A card with somebody beside its tap.

use std::collections::VecDeque;
use std::time::Duration;

use rustix::net::SendFlags;

use super::pairs_tests;
use super::tests::{Fixture, HEADER, RX, TX, card, received};
use super::*;
use crate::virtio::testing::{Driver, EVENT_IDX, Used};

/// Answers each frame that begins with `?` with the same after `!`, and once it has been
/// asked to `?wait`, says `late` by itself soon after.
#[derive(Default)]
struct Oracle {
    answers: VecDeque<Vec<u8>>,
    late: Option<Instant>,
}

impl Detour for Oracle {
    fn claims(&self, head: &[u8]) -> bool {
        head.first() == Some(&b'?')
    }

    fn take(&mut self, frame: &[u8], now: Instant) {
        match &frame[1..] {
            b"wait" => self.late = Some(now + Duration::from_millis(5)),
            question => self.answers.push_back([b"!", question].concat()),
        }
    }

    fn give(&mut self, to: &mut [u8], now: Instant) -> Option<usize> {
        if self.late.take_if(|late| *late <= now).is_some() {
            self.answers.push_back(b"late".to_vec());
        }
        let answer = self.answers.pop_front()?;
        to[..answer.len()].copy_from_slice(&answer);
        Some(answer.len())
    }

    fn due(&mut self, _now: Instant) -> Option<Instant> {
        self.late
    }
}

/// A driver of a card with an oracle beside its tap, and what the tap sees.
fn asking(features: u64) -> Fixture {
    let (mut card, cable) = card(None);
    card.set_detour(Box::new(Oracle::default())).unwrap();
    let metrics = Arc::clone(card.metrics());
    Fixture { driver: Driver::running(Box::new(card), features), metrics, cable }
}

fn ask(net: &mut Fixture, question: &[u8]) {
    net.driver.offer(TX, &[&HEADER, question], &[]);
    net.driver.kick(1);
    assert!(net.driver.wait_used(TX).is_some());
}

/// A frame of the oracle as the guest finds it: nothing is left to do about it.
fn told(frame: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], frame].concat()
}

#[test]
fn what_the_detour_claims_is_answered_and_never_on_the_tap() {
    let mut net = asking(EVENT_IDX);
    let offered = net.driver.offer(RX, &[], &[64]);
    net.driver.kick(0);
    ask(&mut net, b"?who");
    assert_eq!(net.driver.wait_used(RX), Some(Used { head: 0, length: 16 }));
    assert_eq!(net.driver.bytes(offered.writable[0], 16), told(b"!who"));
    ask(&mut net, b"ahoy");
    assert_eq!(net.next_frame(), [&HEADER[..], b"ahoy"].concat());
}

#[test]
fn answers_wait_for_buffers_and_the_tap_waits_for_its_turn() {
    let mut net = asking(0);
    ask(&mut net, b"?1");
    ask(&mut net, b"?2");
    net.send(b"from the tap");
    let offered: Vec<_> = (0..3).map(|_| net.driver.offer(RX, &[], &[64])).collect();
    net.driver.kick(0);
    (0..3).for_each(|_| assert!(net.driver.wait_used(RX).is_some()));
    let frames = [0, 1].map(|i| net.driver.bytes(offered[i].writable[0], 14));
    assert_eq!(frames, [told(b"!1"), told(b"!2")]);
}

#[test]
fn the_detour_speaks_by_itself_on_a_quiet_tap() {
    let mut net = asking(EVENT_IDX);
    let offered = net.driver.offer(RX, &[], &[64]);
    net.driver.kick(0);
    ask(&mut net, b"?wait");
    assert_eq!(net.driver.wait_used(RX), Some(Used { head: 0, length: 16 }));
    assert_eq!(net.driver.bytes(offered.writable[0], 16), told(b"late"));
}

#[test]
fn a_frame_that_is_but_a_header_is_nobodys() {
    let mut net = asking(0);
    net.driver.offer(TX, &[&HEADER], &[]);
    net.driver.kick(1);
    assert_eq!(net.next_frame(), HEADER);
}

#[test]
fn whichever_pair_asks_the_first_is_answered() {
    const SECOND: [usize; 2] = [2, 3];
    let (mut card, cables) = pairs_tests::card(2);
    card.set_detour(Box::new(Oracle::default())).unwrap();
    let mut driver = Driver::running(Box::new(card), SEVERAL | EVENT_IDX);
    let [rx, tx] = SECOND;
    let second = driver.offer(rx, &[], &[64]);
    driver.kick(2);
    driver.offer(tx, &[&HEADER, b"?who"], &[]);
    driver.kick(3);
    assert!(driver.wait_used(tx).is_some());
    // The answer waits for buffers of the first pair, and the second goes on without it.
    rustix::net::send(&cables[1], &[&HEADER[..], b"ahoy"].concat(), SendFlags::empty()).unwrap();
    assert_eq!(driver.wait_used(rx), Some(Used { head: 0, length: 16 }));
    assert_eq!(driver.bytes(second.writable[0], 16), received(b"ahoy", 1));
    let first = driver.offer(RX, &[], &[64]);
    driver.kick(0);
    assert!(driver.wait_used(RX).is_some());
    assert_eq!(driver.bytes(first.writable[0], 16), told(b"!who"));
    assert_eq!(driver.used_index(rx), 1);
}
