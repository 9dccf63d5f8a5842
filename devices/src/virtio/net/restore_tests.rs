//! A network card that moves with its guest from tap to tap.

use expect_test::expect;
use kedge_bus::Stateful;
use kedge_diag::report;
use proptest::prelude::*;

use super::tests::{Fixture, HEADER, RX, TX, card, pattern, received};
use super::*;
use crate::virtio::testing::{EVENT_IDX, Used};

const MRG_RXBUF: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;

fn mac(text: &str) -> Option<MacAddress> {
    text.parse().ok()
}

fn saved(change: impl FnOnce(&mut NetV1)) -> Part {
    let mut saved: NetV1 = card(mac("06:00:ac:10:00:02")).0.save().read().unwrap();
    change(&mut saved);
    Part::of(&saved)
}

#[test]
fn a_card_sends_and_receives_on_the_tap_it_moved_to() {
    let net = Fixture::running(MRG_RXBUF | EVENT_IDX);
    let mut moved = net.moved();
    moved.driver.offer(TX, &[&HEADER, b"out"], &[]);
    moved.driver.kick(1);
    assert_eq!(moved.next_frame(), [&HEADER[..], b"out"].concat());
    let offered = moved.driver.offer(RX, &[], &[64]);
    moved.driver.kick(0);
    moved.send(b"in");
    assert_eq!(moved.driver.wait_used(RX), Some(Used { head: 0, length: 14 }));
    assert_eq!(moved.driver.bytes(offered.writable[0], 14), received(b"in", 1));
}

#[test]
fn a_frame_that_waits_for_buffers_moves_with_the_guest() {
    let mut net = Fixture::running(0);
    net.send(&pattern(100));
    net.settle();
    let mut moved = net.moved();
    let offered = moved.driver.offer(RX, &[], &[128]);
    moved.driver.kick(0);
    assert_eq!(moved.driver.wait_used(RX).unwrap().length, 112);
    assert_eq!(moved.driver.bytes(offered.writable[0], 112), received(&pattern(100), 1));
}

#[test]
fn frames_that_come_during_a_pause_wait_in_the_tap() {
    let mut net = Fixture::running(0);
    net.send(b"before");
    net.settle();
    let part = net.driver.save();
    net.send(b"during");
    let (first, second) = (net.driver.offer(RX, &[], &[64]), net.driver.offer(RX, &[], &[64]));
    assert_eq!(net.driver.save(), part);
    net.driver.transport.resume().unwrap();
    net.driver.wait_used(RX).unwrap();
    net.driver.wait_used(RX).unwrap();
    assert_eq!(net.driver.bytes(first.writable[0], 18), received(b"before", 1));
    assert_eq!(net.driver.bytes(second.writable[0], 18), received(b"during", 1));
}

#[test]
fn a_frame_that_waits_for_buffers_does_not_outlive_a_reset() {
    let mut net = Fixture::running(0);
    net.send(b"old");
    net.settle();
    net.driver.run(0);
    let offered = net.driver.offer(RX, &[], &[64]);
    net.driver.kick(0);
    net.send(b"new");
    assert_eq!(net.driver.wait_used(RX).unwrap().length, 15);
    assert_eq!(net.driver.bytes(offered.writable[0], 15), received(b"new", 1));
    assert_eq!(net.metrics.rx_fails.load(Ordering::Relaxed), 1);
}

#[test]
fn a_card_can_be_given_another_address() {
    let (mut other, _cable) = card(mac("06:00:ac:10:00:03"));
    other.restore(&saved(|_| {})).unwrap();
    assert_eq!(other.identity.mac, mac("06:00:ac:10:00:03"));
}

#[test]
fn a_card_keeps_its_address_where_it_is_given_none() {
    let (mut other, _cable) = card(None);
    other.restore(&saved(|saved| saved.mtu = Some(1400))).unwrap();
    assert_eq!(other.identity, Identity { mac: mac("06:00:ac:10:00:02"), mtu: Some(1400) });
}

#[test]
fn a_card_made_without_an_address_is_given_none() {
    let (mut other, _cable) = card(mac("06:00:ac:10:00:03"));
    expect![[r#"
        error: the guest was given a card without a MAC address, and this one has 06:00:ac:10:00:03
          fix: give no MAC address: the guest chose one by itself"#]]
    .assert_eq(&report(&other.restore(&saved(|saved| saved.mac = None)).unwrap_err()));
}

#[test]
fn what_no_card_can_be_is_refused() {
    let refused =
        |change: fn(&mut NetV1)| card(None).0.restore(&saved(change)).unwrap_err().to_string();
    expect!["the saved `virtio-net` is not plausible: `mac` is not the Ethernet address of a card"]
        .assert_eq(&refused(|saved| saved.mac = Some([1, 0, 0x5e, 0, 0, 1])));
    expect!["the saved `virtio-net` is not plausible: `mtu` is 67, less than 68"]
        .assert_eq(&refused(|saved| saved.mtu = Some(67)));
    expect![
        "the saved `virtio-net` is not plausible: `frame` is 11 bytes long, and not 12 to 69632"
    ]
    .assert_eq(&refused(|saved| saved.frame.0 = vec![0; 11]));
    expect![
        "the saved `virtio-net` is not plausible: `frame` is 69633 bytes long, and not 12 to 69632"
    ]
    .assert_eq(&refused(|saved| saved.frame.0 = vec![0; 69633]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_refused_or_does_no_harm(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut net = Fixture::running(0);
        net.send(b"held");
        net.settle();
        let mut part = net.driver.save();
        for (at, byte) in damage {
            let at = at.index(part.body.len());
            part.body[at] = byte;
        }
        let (card, _cable) = card(None);
        if let Ok(mut moved) = net.driver.moved(Box::new(card), &part) {
            let _ = moved.transport.resume();
            moved.run(0);
            moved.offer(TX, &[&HEADER, b"out"], &[]);
            moved.kick(1);
            prop_assert!(moved.wait_used(TX).is_some());
        }
    }
}
