//! A card whose frames another thread of the test carries, under a driver; back ends that
//! end and lie; what a user says about such cards.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use expect_test::{Expect, expect};
use kedge_bus::{MmioDevice, Stateful};
use kedge_diag::report;
use kedge_guest_memory::dirty;
use serde_json::{Map, Value, json};
use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;

use super::super::tests::HEADER;
use super::super::{KIND, MacAddress};
use super::testing::{EchoBackEnd, all};
use super::*;
use crate::virtio::catalog::Parsed;
use crate::virtio::testing::{Driver, NEEDS_RESET, RAM, wait_for};
use crate::virtio::transport::reg;
use crate::virtio::vhost::testing::{Offer, by_hand, nowhere};

const MERGED: u64 = 1 << 15;
const OK: u8 = 0;
const REFUSED: u8 = 1;

fn mac() -> MacAddress {
    "06:00:ac:10:00:02".parse().unwrap()
}

const NOBODY: Identity = Identity { mac: None, mtu: None };

fn open(socket: &Path, pairs: u16) -> Box<dyn VirtioDevice> {
    Box::new(UserNet::open("eth0", socket, pairs, NOBODY).unwrap())
}

fn running(socket: &Path, pairs: u16) -> Driver {
    let mut driver = Driver::sharing(open(socket, pairs));
    driver.run(MERGED | if pairs > 1 { SEVERAL } else { 0 });
    driver
}

/// Says how many pairs are to be used, and returns the answer.
fn use_pairs(driver: &mut Driver, pairs: u16, count: u16) -> u8 {
    let control = usize::from(2 * pairs);
    let command = [&[4, 0], &count.to_le_bytes()[..]].concat();
    let offered = driver.offer(control, &[&command], &[1]);
    driver.kick(u32::from(2 * pairs));
    assert_eq!(driver.wait_used(control).unwrap().length, 1);
    driver.bytes(offered.writable[0], 1)[0]
}

/// Sends `frame` on a pair.
fn send(driver: &mut Driver, pair: u16, frame: &[u8]) {
    driver.offer(usize::from(2 * pair + 1), &[&HEADER, frame], &[]);
    driver.kick(u32::from(2 * pair + 1));
}

/// Sends `frame` on a pair; it comes back.
fn exchange(driver: &mut Driver, pair: u16, frame: &[u8]) {
    let [rx, tx] = [0, 1].map(|index| usize::from(2 * pair) + index);
    let room = driver.offer(rx, &[], &[64]);
    driver.kick(u32::from(2 * pair));
    send(driver, pair, frame);
    assert_eq!(driver.wait_used(tx).unwrap().length, 0, "pair {pair}");
    let length = u32::try_from(HEADER.len() + frame.len()).unwrap();
    assert_eq!(driver.wait_used(rx).unwrap().length, length, "pair {pair}");
    assert_eq!(driver.bytes(room.writable[0] + 12, frame.len()), frame);
}

fn pause(driver: &Driver) {
    driver.transport.pause(Instant::now() + Duration::from_secs(10)).unwrap();
}

#[test]
fn frames_go_both_ways_and_interrupt_the_driver() {
    let back_end = EchoBackEnd::start(all(1));
    let mut driver = running(&back_end.socket(), 1);
    exchange(&mut driver, 0, b"first frame");
    assert!(driver.wait_interrupt());
    exchange(&mut driver, 0, b"second frame");
    let frames = back_end.came();
    assert_eq!(frames[1], (0, [&HEADER[..], b"second frame"].concat()));
}

#[test]
fn frames_go_both_ways_on_each_of_eight_pairs() {
    let back_end = EchoBackEnd::start(all(8));
    let mut driver = running(&back_end.socket(), 8);
    assert_eq!(use_pairs(&mut driver, 8, 8), OK);
    for pair in 0..8 {
        exchange(&mut driver, pair, &[u8::try_from(pair).unwrap(); 20]);
    }
    let pairs: Vec<_> = back_end.came().iter().map(|came| came.0).collect();
    assert_eq!(pairs, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_pair_is_served_once_the_driver_says_so_and_no_longer() {
    let back_end = EchoBackEnd::start(all(3));
    let mut driver = running(&back_end.socket(), 3);
    send(&mut driver, 1, b"too early");
    exchange(&mut driver, 0, b"at all times");
    assert_eq!(back_end.came().len(), 1);
    assert_eq!([0, 4].map(|count| use_pairs(&mut driver, 3, count)), [REFUSED; 2]);
    assert_eq!(use_pairs(&mut driver, 3, 2), OK);
    driver.kick(3);
    assert!(driver.wait_used(3).is_some());
    assert_eq!(use_pairs(&mut driver, 3, 1), OK);
    send(&mut driver, 1, b"too late");
    exchange(&mut driver, 0, b"at all times");
    assert_eq!(back_end.came().len(), 3);
}

#[test]
fn the_driver_is_offered_what_both_sides_know() {
    let back_end = EchoBackEnd::start(Offer { features: all(2).features & !(1 << 29), ..all(2) });
    let identity = Identity { mac: Some(mac()), mtu: Some(1400) };
    let card = UserNet::open("eth0", &back_end.socket(), 2, identity).unwrap();
    let driver = Driver::sharing(Box::new(card));
    // VERSION_1, RING_RESET; MRG_RXBUF, CSUM, HOST_TSO4, HOST_ECN; MAC, MTU; CTRL_VQ, MQ.
    let of_frames = 1 << 15 | 1 << 0 | 1 << 11 | 1 << 13;
    assert_eq!(driver.offered(), 1 << 32 | 1 << 40 | of_frames | 1 << 5 | 1 << 3 | SEVERAL);
    let mut space = [0; 12];
    driver.transport.read(reg::CONFIG, &mut space).unwrap();
    assert_eq!(space, [0x06, 0, 0xac, 0x10, 0, 2, 0, 0, 2, 0, 0x78, 5]);
    drop(driver);
    let single = Driver::sharing(open(&back_end.socket(), 1));
    assert_eq!(single.offered(), 1 << 32 | 1 << 40 | of_frames);
}

#[test]
fn a_driver_that_comes_anew_begins_with_one_pair() {
    let back_end = EchoBackEnd::start(all(2));
    let mut driver = running(&back_end.socket(), 2);
    assert_eq!(use_pairs(&mut driver, 2, 2), OK);
    exchange(&mut driver, 1, b"before");
    driver.run(MERGED | SEVERAL);
    send(&mut driver, 1, b"unheard");
    exchange(&mut driver, 0, b"heard");
    assert_eq!(back_end.came().last().unwrap().0, 0);
    driver.run(MERGED);
    exchange(&mut driver, 0, b"without a control queue");
}

#[test]
fn a_guest_goes_on_with_another_back_end_and_as_many_pairs() {
    let (back_end, other) = (EchoBackEnd::start(all(2)), EchoBackEnd::start(all(2)));
    let mut driver = running(&back_end.socket(), 2);
    assert_eq!(use_pairs(&mut driver, 2, 2), OK);
    let room = driver.offer(2, &[], &[64]);
    driver.kick(2);
    pause(&driver);
    driver.transport.resume().unwrap();
    exchange_into(&mut driver, 1, room.writable[0], b"before");

    let room = driver.offer(2, &[], &[64]);
    let saved = driver.save();
    let mut moved = driver.moved(open(&other.socket(), 2), &saved).unwrap();
    moved.transport.resume().unwrap();
    exchange_into(&mut moved, 1, room.writable[0], b"after");
    assert_eq!(other.came().len(), 1);
    let third = EchoBackEnd::start(all(2));
    let fewer = driver.moved(open(&third.socket(), 1), &saved).err().unwrap();
    expect![[r#"
        error: network interface `eth0` cannot be restored
          because: the saved `virtio-mmio` is not plausible: `queues` has 5 queues, the device 2
          fix: take another snapshot: this one is damaged"#]]
    .assert_eq(&report(&fewer));
}

/// Sends `frame` on a pair: it comes back into the room that the driver has made before.
fn exchange_into(driver: &mut Driver, pair: u16, room: u64, frame: &[u8]) {
    send(driver, pair, frame);
    assert!(driver.wait_used(usize::from(2 * pair + 1)).is_some());
    assert!(driver.wait_used(usize::from(2 * pair)).is_some());
    assert_eq!(driver.bytes(room + 12, frame.len()), frame);
}

#[test]
fn what_the_back_end_writes_is_noted_where_changes_are() {
    let back_end = EchoBackEnd::start(all(1));
    let mut driver = Driver::sharing(open(&back_end.socket(), 1));
    dirty::track(&driver.memory);
    driver.run(MERGED);
    let room = driver.offer(0, &[], &[64]);
    driver.kick(0);
    dirty::take(&driver.memory);
    exchange_into(&mut driver, 0, room.writable[0], b"noted");
    pause(&driver);
    let noted = dirty::take(&driver.memory);
    let noted: Vec<_> = noted.regions()[0].extents().collect();
    let is_noted =
        |address: u64| noted.iter().any(|it| it.start <= address - RAM && address - RAM < it.end());
    assert!(is_noted(room.writable[0]), "the frame");
    assert!(is_noted(driver.queues[0].used), "the used ring");
}

#[test]
fn a_back_end_that_ends_is_told_of_and_commands_are_refused() {
    let back_end = EchoBackEnd::start(all(2));
    let mut driver = running(&back_end.socket(), 2);
    exchange(&mut driver, 0, b"while it is there");
    back_end.hang_up();
    assert!(driver.wait_broken());
    assert!(wait_for(|| driver.mishaps().iter().any(|it| it.why == "its back end has ended")));
    assert_eq!(driver.mishaps()[0].device, "network interface `eth0`");
    assert_eq!(use_pairs(&mut driver, 2, 2), REFUSED);
    pause(&driver);
    driver.transport.resume().unwrap();
    driver.run(MERGED);
    assert_ne!(driver.read(reg::STATUS) & NEEDS_RESET, 0);
}

/// A back end played by hand: what it answers to each request that wants a number, and the
/// number that it was told as the MTU.
fn scripted(queues: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let queues = queues.to_vec();
    by_hand(move |mut stream| {
        let mut header = [0; 12];
        while stream.read_exact(&mut header).is_ok() {
            let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
            let mut body = vec![0; usize::try_from(word(8)).unwrap()];
            stream.read_exact(&mut body).unwrap();
            let protocol = Protocol::MQ | Protocol::MTU | Protocol::REPLY_ACK;
            let answer = match word(0) {
                // GET_FEATURES and GET_PROTOCOL_FEATURES.
                1 => (1_u64 << 32 | 1 << 30).to_ne_bytes().to_vec(),
                15 => protocol.bits().to_ne_bytes().to_vec(),
                // GET_QUEUE_NUM.
                17 => queues.clone(),
                // NET_SET_MTU: it takes no large ones.
                20 => u64::from(body != 1400_u64.to_ne_bytes()).to_ne_bytes().to_vec(),
                // Whatever wants one: it is done.
                _ if word(4) & 8 != 0 => vec![0; 8],
                _ => continue,
            };
            let length = u32::try_from(answer.len()).unwrap();
            let header = [word(0), 0b101, length].map(u32::to_ne_bytes).concat();
            stream.write_all(&[header, answer].concat()).unwrap();
        }
    })
}

fn played(queues: &[u8], mtu: Option<u16>) -> Result<UserNet, String> {
    let (_directory, socket) = scripted(queues);
    let identity = Identity { mtu, ..NOBODY };
    UserNet::open("eth0", &socket, 8, identity)
        .map_err(|error| report(&error).replace(&socket.display().to_string(), "SOCKET"))
}

#[test]
fn a_back_end_may_count_pairs_or_queues() {
    assert!(played(&8_u64.to_ne_bytes(), None).is_ok());
    assert!(played(&16_u64.to_ne_bytes(), None).is_ok());
    expect![[r#"
        error: the back end at SOCKET has 7 queues, and the device 8
          fix: ask for 7 queues, or start the back end with more"#]]
    .assert_eq(&played(&7_u64.to_ne_bytes(), None).unwrap_err());
}

#[test]
fn what_a_back_end_says_of_its_queues_is_judged() {
    for lie in [&[][..], &[8; 7], &[0; 8], &[0xff; 8]] {
        let error = played(lie, None).unwrap_err();
        assert!(error.contains("makes no sense"), "{error}");
    }
}

#[test]
fn a_back_end_hears_of_the_mtu_and_may_refuse_it() {
    assert!(played(&8_u64.to_ne_bytes(), Some(1400)).is_ok());
    let refused = played(&8_u64.to_ne_bytes(), Some(9000)).unwrap_err();
    assert!(refused.contains("it cannot have an MTU of 9000"), "{refused}");
}

#[test]
fn limits_are_not_kedges_to_change() {
    let back_end = EchoBackEnd::start(all(1));
    let mut card = UserNet::open("eth0", &back_end.socket(), 1, NOBODY).unwrap();
    let change = |limits: Value| {
        let body = json!({"iface_id": "eth0", "rx_rate_limiter": limits});
        Change::from_json(&KIND, body).unwrap()
    };
    card.change(&change(Value::Null)).unwrap();
    let limits = json!({"ops": {"size": 1, "refill_time": 100}});
    refused(
        card.change(&change(limits)),
        &expect![[r#"
            error: `rx_rate_limiter` does not go with `socket`: another process carries the card's frames
              fix: leave `rx_rate_limiter` out, or tell the back end"#]],
    );
}

#[test]
fn the_metadata_service_has_no_place_on_it() {
    struct Nobody;
    impl Detour for Nobody {
        fn claims(&self, _: &[u8]) -> bool {
            false
        }

        fn take(&mut self, _: &[u8], _: Instant) {}

        fn give(&mut self, _: &mut [u8], _: Instant) -> Option<usize> {
            None
        }

        fn due(&mut self, _: Instant) -> Option<Instant> {
            None
        }
    }
    let back_end = EchoBackEnd::start(all(1));
    let mut card = UserNet::open("eth0", &back_end.socket(), 1, NOBODY).unwrap();
    refused(
        card.set_detour(Box::new(Nobody)),
        &expect![[r#"
            error: network interface `eth0` has no metadata service: another process carries its frames (`socket`)
              fix: give the service to a card on a tap"#]],
    );
}

fn refused<T>(done: Result<T, Trouble>, expected: &Expect) {
    expected.assert_eq(&report(&done.err().unwrap()));
}

fn body(extra: Value) -> Parsed {
    let mut body = json!({"iface_id": "eth0", "socket": "/s"});
    body.as_object_mut().unwrap().extend(serde_json::from_value::<Map<_, _>>(extra).unwrap());
    (KIND.from_json)(body)
}

#[test]
fn a_user_names_the_socket_of_a_card() {
    let card = (KIND.from_flag)("socket=/s,mac=06:00:ac:10:00:02,mtu=1400,queues=8", 1).unwrap();
    assert!(card.shares_memory());
    let expected = json!({
        "iface_id": "eth1", "socket": "/s", "guest_mac": "06:00:ac:10:00:02", "mtu": 1400,
        "queues": 8,
    });
    assert_eq!(card.to_json(), expected);
    assert_eq!((KIND.from_json)(expected.clone()).unwrap().to_json(), expected);
    refused(
        body(json!({"socket": nowhere()})).unwrap().open(),
        &expect![[r#"
            error: network interface `eth0` has no back end
              because: there is no socket /nowhere/back-end
              fix: start the back end first, and have it make the socket there"#]],
    );
}

#[test]
fn what_takes_frames_in_kedge_is_refused_beside_a_socket() {
    for flag in ["socket=/s,tap=tap0", "socket=/s,fd=3", "socket=/s,rx_ops=1", "socket=/s,queues=9"]
    {
        assert!((KIND.from_flag)(flag, 0).is_err(), "{flag}");
    }
    refused(
        (KIND.from_flag)("socket=/s,tx_bandwidth=1M", 0),
        &expect![[r#"
            error: --net cannot have `tx_bandwidth=1M`
              fix: give it to the back end: such a card has `socket`, `mac`, `mtu`, `queues` and `id`"#]],
    );
    refused(
        body(json!({"host_dev_name": "tap0"})),
        &expect![[r#"
            error: `host_dev_name` of `network-interfaces` does not go with `socket`
              fix: leave `host_dev_name` or `socket` out"#]],
    );
    let limits = json!({"ops": {"size": 1, "refill_time": 100}});
    assert!(body(json!({"tx_rate_limiter": limits})).is_err());
    refused(
        (KIND.from_json)(json!({"iface_id": "eth0"})),
        &expect![[r#"
            error: `network-interfaces` in the configuration file is not right
              because: missing field `host_dev_name`
              fix: correct the field named above: they are those of Firecracker's API"#]],
    );
}
