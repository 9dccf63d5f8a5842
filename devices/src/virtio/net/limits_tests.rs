//! A card that gives and takes only so much.

use std::time::{Duration, Instant};

use expect_test::expect;
use kedge_bus::Stateful;
use kedge_diag::report;
use serde_json::{Value, json};

use super::tests::{Fixture, HEADER, RX, TX, card};
use super::*;
use crate::virtio::change::Target;
use crate::virtio::limits::TokenBucket;
use crate::virtio::testing::Driver;

/// A bucket that does not fill while a test runs.
fn slow(size: u64) -> TokenBucket {
    TokenBucket { size, refill_time: 1_000_000_000, one_time_burst: None }
}

const NONE: RateLimiter = RateLimiter { bandwidth: None, ops: None };

fn frames(count: u64) -> RateLimiter {
    RateLimiter { bandwidth: None, ops: Some(slow(count)) }
}

fn bytes(count: u64) -> RateLimiter {
    RateLimiter { bandwidth: Some(slow(count)), ops: None }
}

fn limited(rx: RateLimiter, tx: RateLimiter) -> Fixture {
    let (card, cable) = card(None);
    let card = card.limited(rx, tx);
    let metrics = Arc::clone(card.metrics());
    Fixture { driver: Driver::running(Box::new(card), 0), metrics, cable }
}

/// Sends and receives five frames of 8 bytes, and 20 with headers, as far as they
/// are let through.
fn exchange(net: &mut Fixture) {
    for _ in 0..5 {
        net.driver.offer(RX, &[], &[64]);
        net.driver.offer(TX, &[&HEADER, b"outgoing"], &[]);
        net.send(b"incoming");
    }
    net.driver.kick(0);
    net.driver.kick(1);
}

/// Frames sent and received once the card has nothing more to do for now.
fn done_at_rest(net: &Fixture) -> (u16, u16) {
    for _ in 0..2 {
        net.driver.transport.pause(Instant::now() + Duration::from_secs(10)).unwrap();
        net.driver.transport.resume().unwrap();
    }
    net.driver.transport.pause(Instant::now() + Duration::from_secs(10)).unwrap();
    (net.driver.used_index(TX), net.driver.used_index(RX))
}

#[test]
fn each_way_has_limits_of_its_own_on_frames_and_bytes() {
    for (rx, tx, most) in [
        (frames(2), NONE, (5, 2)),
        (NONE, frames(3), (3, 5)),
        (bytes(59), bytes(80), (4, 2)),
        (frames(1), bytes(20), (1, 1)),
    ] {
        let mut net = limited(rx, tx);
        exchange(&mut net);
        (0..most.0).for_each(|_| assert!(net.driver.wait_used(TX).is_some()));
        (0..most.1).for_each(|_| assert!(net.driver.wait_used(RX).is_some()));
        assert_eq!(done_at_rest(&net), most, "{rx:?} {tx:?}");
        let throttled =
            |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) > 0;
        assert_eq!(throttled(&net.metrics.tx_rate_limiter_throttled), most.0 < 5);
        assert_eq!(throttled(&net.metrics.rx_rate_limiter_throttled), most.1 < 5);
    }
}

#[test]
fn frames_held_back_go_on_when_their_time_comes() {
    let soon = TokenBucket { size: 1, refill_time: 10, one_time_burst: None };
    let limits = RateLimiter { bandwidth: None, ops: Some(soon) };
    let mut net = limited(limits, limits);
    exchange(&mut net);
    (0..5).for_each(|_| assert!(net.driver.wait_used(TX).is_some()));
    (0..5).for_each(|_| assert_eq!(net.driver.wait_used(RX).unwrap().length, 20));
    assert!(net.metrics.tx_rate_limiter_event_count.load(Ordering::Relaxed) > 0);
    assert!(net.metrics.rx_event_rate_limiter_count.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_frame_that_waits_for_buffers_is_asked_for_once() {
    let mut net = limited(frames(2), NONE);
    net.send(b"first");
    net.send(b"second");
    (0..3).for_each(|_| net.settle());
    net.driver.offer(RX, &[], &[64]);
    net.driver.offer(RX, &[], &[64]);
    net.driver.kick(0);
    assert_eq!(net.driver.wait_used(RX).unwrap().length, 17);
    assert_eq!(net.driver.wait_used(RX).unwrap().length, 18);
}

#[test]
fn what_is_left_of_limits_goes_with_the_guest() {
    let mut net = limited(frames(3), frames(9));
    net.driver.offer(TX, &[&HEADER, b"outgoing"], &[]);
    net.driver.offer(RX, &[], &[64]);
    net.send(b"incoming");
    net.driver.kick(0);
    net.driver.kick(1);
    assert!(net.driver.wait_used(TX).is_some() && net.driver.wait_used(RX).is_some());
    let (card, cable) = card(None);
    let card = card.limited(frames(3), frames(9));
    let metrics = Arc::clone(card.metrics());
    let mut moved = Fixture { driver: net.driver.move_to(Box::new(card)), metrics, cable };
    exchange(&mut moved);
    (0..5).for_each(|_| assert!(moved.driver.wait_used(TX).is_some()));
    (0..2).for_each(|_| assert!(moved.driver.wait_used(RX).is_some()));
    assert_eq!(done_at_rest(&moved), (6, 3));
}

fn change(net: &Fixture, body: Value) {
    let change = Change::from_json(&KIND, body).unwrap();
    net.driver.transport.change(&change, Instant::now() + Duration::from_secs(10)).unwrap();
}

#[test]
fn limits_change_while_the_card_works() {
    let mut net = limited(NONE, NONE);
    let two = json!({"size": 2, "refill_time": 1_000_000_000});
    change(&net, json!({"iface_id": "eth0", "tx_rate_limiter": {"ops": two}}));
    exchange(&mut net);
    (0..2).for_each(|_| assert!(net.driver.wait_used(TX).is_some()));
    (0..5).for_each(|_| assert!(net.driver.wait_used(RX).is_some()));
    assert_eq!(done_at_rest(&net), (2, 5));
    net.driver.transport.resume().unwrap();
    let none = json!({"size": 0, "refill_time": 0});
    change(&net, json!({"iface_id": "eth0", "tx_rate_limiter": {"ops": none}}));
    (0..3).for_each(|_| assert!(net.driver.wait_used(TX).is_some()));
}

#[test]
fn nothing_but_limits_changes() {
    let error = Change::from_json(&KIND, json!({"iface_id": "eth0", "mtu": 9000})).unwrap_err();
    expect!["error: unknown field `mtu`, expected one of `iface_id`, `rx_rate_limiter`, `tx_rate_limiter`"]
        .assert_eq(&report(&error));
}
