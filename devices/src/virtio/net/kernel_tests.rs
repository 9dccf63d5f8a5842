//! A card whose frames somebody else carries, under a driver. What the kernel would do, the
//! test does.

use std::time::{Duration, Instant};

use expect_test::expect;
use kedge_bus::Stateful;
use kedge_diag::report;
use kedge_guest_memory::Bytes as _;
use kedge_guest_memory::{GuestAddress, dirty};
use serde_json::json;

use super::*;
use crate::virtio::change::Target;
use crate::virtio::detour::Detour;
use crate::virtio::testing::{Driver, EVENT_IDX, NEEDS_RESET, RAM, Used, VERSION_1, wait_for};
use crate::virtio::transport::reg;
use crate::virtio::vhost::fake::FakeKernel;

const MRG_RXBUF: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
const INDIRECT: u64 = 1 << 28;
const RING_RESET: u64 = 1 << 40;
const LOG_ALL: u64 = 1 << 26;
/// What every kernel's vhost-net has of what cards are offered.
const KERNEL: u64 = VERSION_1 | EVENT_IDX | INDIRECT | MRG_RXBUF | LOG_ALL;

fn card(pairs: u16, kernel: &FakeKernel) -> Box<Net> {
    let (card, _cables) = pairs_tests::card(pairs);
    Box::new(card.carried_by(Box::new(kernel.clone())))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A driver that runs a card with one pair of queues.
fn running(features: u64) -> (Driver, FakeKernel) {
    let kernel = FakeKernel::new(KERNEL);
    (Driver::running(card(1, &kernel), features), kernel)
}

#[test]
fn the_kernel_has_the_queues_of_frames_and_kedge_that_of_commands() {
    let kernel = FakeKernel::new(KERNEL);
    let mut driver = Driver::running(card(2, &kernel), SEVERAL | MRG_RXBUF);
    assert_eq!(kernel.served(), [0, 1, 2, 3]);
    assert_eq!(kernel.accepted(), SEVERAL | MRG_RXBUF | VERSION_1);
    let offered = driver.offer(4, &[&[4, 0, 2, 0]], &[1]);
    driver.kick(4);
    assert_eq!(driver.wait_used(4).unwrap().length, 1);
    assert_eq!(driver.bytes(offered.writable[0], 1), [0]);
    let sent = driver.offer(3, &[b"out"], &[]);
    driver.kick(3);
    assert!(wait_for(|| kernel.was_rung(3)));
    assert_eq!(kernel.use_next(3, b"").unwrap(), b"out");
    assert_eq!(driver.wait_used(3), Some(Used { head: sent.head.into(), length: 0 }));
}

#[test]
fn a_driver_of_one_pair_has_its_commands_heard_at_another_queue() {
    let kernel = FakeKernel::new(KERNEL);
    let mut driver = Driver::running(card(2, &kernel), 1 << VIRTIO_NET_F_CTRL_VQ);
    assert_eq!(kernel.served(), [0, 1]);
    driver.offer(2, &[&[4, 0, 1, 0]], &[1]);
    driver.kick(2);
    assert_eq!(driver.wait_used(2).unwrap().length, 1);
}

#[test]
fn the_driver_is_interrupted_for_what_the_kernel_received() {
    let (mut driver, kernel) = running(0);
    let offered = driver.offer(0, &[], &[64]);
    kernel.use_next(0, b"a frame").unwrap();
    assert_eq!(driver.wait_used(0).unwrap().length, 7);
    assert!(driver.wait_interrupt());
    assert_eq!(driver.bytes(offered.writable[0], 7), b"a frame");
}

#[test]
fn it_is_offered_what_the_kernel_has_and_no_more_than_on_any_host() {
    const UDP: u64 =
        1 << VIRTIO_NET_F_HOST_USO | 1 << VIRTIO_NET_F_GUEST_USO4 | 1 << VIRTIO_NET_F_GUEST_USO6;
    let kernel = FakeKernel::new(KERNEL);
    let driver = Driver::new(card(1, &kernel));
    let transport = VERSION_1 | EVENT_IDX | INDIRECT | RING_RESET;
    assert_eq!(driver.offered(), transport | FEATURES & !UDP);
    let poor = FakeKernel::new(VERSION_1);
    let driver = Driver::new(card(1, &poor));
    assert_eq!(driver.offered(), VERSION_1 | RING_RESET | FEATURES & !UDP & !MRG_RXBUF);
}

#[test]
fn a_guest_goes_on_with_the_kernel_of_another_host() {
    let (mut driver, kernel) = running(EVENT_IDX);
    driver.offer(0, &[], &[64]);
    let second = driver.offer(0, &[], &[64]);
    kernel.use_next(0, b"first").unwrap();
    driver.transport.pause(soon()).unwrap();
    assert!(kernel.served().is_empty());
    driver.transport.resume().unwrap();
    assert_eq!(driver.wait_used(0).unwrap().length, 5);

    let there = FakeKernel::new(KERNEL);
    let mut moved = driver.move_to(card(1, &there));
    assert!(there.was_rung(0), "what was there before is told again");
    there.use_next(0, b"second").unwrap();
    assert_eq!(moved.wait_used(0), Some(Used { head: second.head.into(), length: 6 }));
    assert_eq!(moved.bytes(second.writable[0], 6), b"second");
    assert!(there.use_next(0, b"third").is_none());
}

#[test]
fn it_goes_on_where_kedge_carries_its_frames() {
    let (mut driver, kernel) = running(0);
    driver.offer(0, &[], &[64]);
    kernel.use_next(0, b"first").unwrap();
    let offered = driver.offer(0, &[], &[64]);
    let (plain, cable) = tests::card(None);
    let mut moved = driver.move_to(Box::new(plain));
    moved.wait_used(0).unwrap();
    let frame = [&tests::HEADER[..], b"second"].concat();
    rustix::net::send(&cable, &frame, rustix::net::SendFlags::empty()).unwrap();
    assert_eq!(moved.wait_used(0).unwrap().length, 18);
    assert_eq!(moved.bytes(offered.writable[0] + 12, 6), b"second");
}

#[test]
fn a_queue_is_reset_and_the_others_work_on() {
    let (mut driver, kernel) = running(RING_RESET);
    driver.write(reg::QUEUE_SEL, 0);
    driver.write(reg::QUEUE_RESET, 1);
    assert_eq!(kernel.served(), [1]);
    let tx = driver.queues[1];
    driver.set_up_queue(0, 8);
    driver.queues.push(tx);
    assert_eq!(kernel.served(), [0, 1]);
    driver.offer(0, &[], &[64]);
    kernel.use_next(0, b"again").unwrap();
    assert_eq!(driver.wait_used(0).unwrap().length, 5);
}

#[test]
fn what_the_kernel_writes_is_noted_where_changes_are() {
    let kernel = FakeKernel::new(KERNEL);
    let mut driver = Driver::new(card(1, &kernel));
    dirty::track(&driver.memory);
    driver.run(0);
    dirty::take(&driver.memory);
    let offered = driver.offer(0, &[], &[64]);
    kernel.use_next(0, b"a frame").unwrap();
    // What driver and kernel of a test write is noted as well: only the log tells from here.
    dirty::take(&driver.memory);
    driver.transport.pause(soon()).unwrap();
    let noted = dirty::take(&driver.memory);
    let noted: Vec<_> = noted.regions()[0].extents().collect();
    let is_noted = |address: u64| {
        noted.iter().any(|extent| extent.start <= address - RAM && address - RAM < extent.end())
    };
    assert!(is_noted(offered.writable[0]) && is_noted(driver.queues[0].used), "{noted:?}");
    assert!(!is_noted(driver.queues[1].used), "{noted:?}");
}

#[test]
fn a_kernel_that_takes_no_queues_is_told_of() {
    let kernel = FakeKernel::new(KERNEL);
    kernel.set_refuses(true);
    let card = card(1, &kernel);
    let metrics = Arc::clone(card.metrics());
    let mut driver = Driver::running(card, 0);
    assert_ne!(driver.read(reg::STATUS) & NEEDS_RESET, 0);
    assert_eq!(metrics.activate_fails.load(Ordering::Relaxed), 1);
    kernel.set_refuses(false);
    driver.run(0);
    assert_eq!(driver.read(reg::STATUS) & NEEDS_RESET, 0);
    assert_eq!(kernel.served(), [0, 1]);
}

#[test]
fn a_queue_that_the_kernel_finds_broken_needs_a_reset() {
    let (driver, kernel) = running(0);
    kernel.cannot_use(1);
    assert!(driver.wait_broken());
}

#[test]
fn a_driver_that_writes_what_is_the_devices_delays_nobody() {
    let (mut driver, kernel) = running(0);
    driver.offer(0, &[], &[64]);
    kernel.use_next(0, b"a frame").unwrap();
    let used = GuestAddress(driver.queues[0].used + 2);
    driver.memory.write_obj(0x4321_u16, used).unwrap();
    let before = Instant::now();
    driver.transport.pause(soon()).unwrap();
    assert!(before.elapsed() < Duration::from_secs(5));
    driver.transport.resume().unwrap();
    assert_ne!(driver.read(reg::STATUS) & NEEDS_RESET, 0);
    assert!(kernel.served().is_empty());
}

#[test]
fn what_needs_kedge_to_see_frames_is_refused() {
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
    let kernel = FakeKernel::new(KERNEL);
    let refused = card(1, &kernel).set_detour(Box::new(Nobody)).unwrap_err();
    expect![[r#"
        error: the card has no metadata service: the host's kernel carries its frames (`vhost`)
          fix: leave `vhost` out, or give the service to another card"#]]
    .assert_eq(&report(&refused));
    let driver = Driver::running(card(1, &kernel), 0);
    let body =
        json!({"iface_id": "eth0", "rx_rate_limiter": {"ops": {"size": 1, "refill_time": 1}}});
    let change = Change::from_json(&KIND, body).unwrap();
    let refused = driver.transport.change(&change, soon()).unwrap_err();
    expect![[r#"
        error: the network interface `eth0` cannot be changed so
          because: the card has no limits: the host's kernel carries its frames (`vhost`)
          fix: leave `vhost` out, or shape the tap's traffic on the host (tc)"#]]
    .assert_eq(&report(&refused));
    assert_eq!(kernel.served(), [0, 1], "it works on");
}
