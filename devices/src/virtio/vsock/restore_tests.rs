//! A vsock device that rests, is reset, or moves with its guest to another socket.

use std::io::{Read, Write};

use expect_test::expect;
use kedge_bus::Stateful;
use tempfile::TempDir;

use super::packet::op;
use super::tests::{CID, Fixture, GUEST, device, is_closed, packet};
use super::*;
use crate::virtio::testing::{Driver, EVENT_IDX};
use crate::virtio::transport::saved::TransportV1;

const EVENTS: usize = 2;

/// The driver, on a device of another machine.
fn moved(vsock: &Fixture) -> Fixture {
    let folder = TempDir::new().unwrap();
    let device = device(&folder);
    let metrics = Arc::clone(device.metrics());
    Fixture::of(vsock.driver.move_to(Box::new(device)), metrics, folder)
}

#[test]
fn connections_outlive_a_pause() {
    let mut vsock = Fixture::running();
    let (mut program, host) = vsock.connected();
    vsock.driver.save();
    program.write_all(b"during").unwrap();
    vsock.driver.transport.resume().unwrap();
    assert_eq!(vsock.next().1, b"during");
    vsock.write((GUEST, host), b"after");
    let mut said = [0; 5];
    program.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"after");
}

#[test]
fn who_calls_during_a_pause_is_answered_afterwards() {
    let mut vsock = Fixture::running();
    vsock.driver.save();
    let _program = vsock.call("CONNECT 52\n");
    vsock.driver.transport.resume().unwrap();
    assert_eq!(vsock.next_op(), (GUEST, FIRST_PORT, op::REQUEST));
}

#[test]
fn a_reset_ends_all_connections() {
    let mut vsock = Fixture::running();
    let (mut open, _) = vsock.connected();
    let mut asked = vsock.call("CONNECT 7\n");
    let mut caller = vsock.call("CONN");
    vsock.next();
    vsock.settle();
    vsock.driver.run(0);
    for program in [&mut open, &mut asked, &mut caller] {
        assert!(is_closed(program));
    }
}

#[test]
fn a_restored_guest_is_told_that_its_connections_are_gone() {
    let mut vsock = Fixture::running();
    let (_program, _) = vsock.connected();
    let event = vsock.driver.offer(EVENTS, &[], &[4]);
    vsock.driver.kick(2);
    let mut moved = moved(&vsock);
    assert_eq!(moved.driver.wait_used(EVENTS).unwrap().length, 4);
    assert_eq!(moved.driver.bytes(event.writable[0], 4), [0; 4]);
    assert!(moved.driver.wait_interrupt());
}

#[test]
fn a_guest_without_a_buffer_for_it_is_told_later_and_once() {
    let vsock = Fixture::running();
    let mut moved = moved(&vsock);
    let first = moved.driver.offer(EVENTS, &[], &[4]);
    moved.driver.offer(EVENTS, &[], &[4]);
    moved.driver.kick(2);
    assert!(moved.driver.wait_used(EVENTS).is_some());
    assert_eq!(moved.driver.bytes(first.writable[0], 4), [0; 4]);
    moved.settle();
    assert_eq!(moved.driver.used_index(EVENTS), 1);
    // Nor after a pause.
    moved.driver.save();
    moved.driver.transport.resume().unwrap();
    moved.settle();
    assert_eq!(moved.driver.used_index(EVENTS), 1);
}

#[test]
fn what_is_on_its_way_for_an_old_connection_is_refused() {
    let mut vsock = Fixture::running();
    let (_program, host) = vsock.connected();
    let mut moved = moved(&vsock);
    moved.driver.offer(0, &[], &[4096]);
    moved.write((GUEST, host), b"late");
    // Into the first of the buffers that were there before.
    moved.driver.wait_used(0).unwrap();
    assert_eq!(moved.metrics.bad_packets.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn ports_that_the_guest_may_still_use_are_not_given_out_again() {
    let mut vsock = Fixture::starving();
    vsock.offer(1);
    vsock.connected();
    let saved: TransportV1 = vsock.driver.save().read().unwrap();
    let mut restored = device(&TempDir::new().unwrap());
    restored.restore(&saved.device).unwrap();
    let saved: VsockV1 = restored.save().read().unwrap();
    assert_eq!(saved, VsockV1 { guest_cid: CID, next_port: FIRST_PORT + 1 });
}

#[test]
fn a_driver_that_counts_events_is_told_of_the_reset() {
    let folder = TempDir::new().unwrap();
    let device = device(&folder);
    let metrics = Arc::clone(device.metrics());
    let driver = Driver::running(Box::new(device), EVENT_IDX);
    let mut vsock = Fixture::of(driver, metrics, folder);
    vsock.driver.offer(EVENTS, &[], &[4]);
    vsock.driver.kick(2);
    assert!(moved(&vsock).driver.wait_interrupt());
}

#[test]
fn what_no_device_can_be_is_refused() {
    let folder = TempDir::new().unwrap();
    let mut device = device(&folder);
    let mut refused = |guest_cid, next_port| {
        device.restore(&Part::of(&VsockV1 { guest_cid, next_port })).unwrap_err().to_string()
    };
    expect!["the saved `virtio-vsock` is not plausible: `guest_cid` is 2, reserved"]
        .assert_eq(&refused(2, FIRST_PORT));
    expect!["the saved `virtio-vsock` is not plausible: `next_port` is 5, below 1073741824"]
        .assert_eq(&refused(3, 5));
}

#[test]
fn the_guest_keeps_its_address() {
    let folder = TempDir::new().unwrap();
    let mut device = device(&folder);
    device.restore(&Part::of(&VsockV1 { guest_cid: 99, next_port: FIRST_PORT })).unwrap();
    let mut space = [0xff; 10];
    device.read_config(0, &mut space);
    assert_eq!(space, [99, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
}

#[test]
fn packets_of_before_the_pause_are_not_forgotten() {
    let mut vsock = Fixture::starving();
    vsock.send(packet(GUEST, 5, op::REQUEST), b"");
    vsock.driver.save();
    vsock.driver.transport.resume().unwrap();
    vsock.offer(1);
    assert_eq!(vsock.next_op(), (GUEST, 5, op::RST));
}
