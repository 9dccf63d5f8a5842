//! Rings as drivers make them, and as attackers do.

use proptest::prelude::*;

use super::*;
use crate::virtio::testing::{
    Driver, EVENT_IDX, Echo, INDIRECT, NEXT, RAM, RAM_SIZE, Used, WRITE, wait_for,
};

fn echo(features: u64) -> Driver {
    Driver::running(Box::new(Echo::default()), features)
}

/// Makes the chain of these (address, length, flags, next) descriptors, from 0
/// on, available.
fn offer_raw(driver: &mut Driver, descriptors: &[(u64, u32, u16, u16)]) {
    for (at, &(address, length, flags, next)) in (0..).zip(descriptors) {
        driver.describe(0, at, Descriptor::new(address, length, flags, next));
    }
    driver.make_available(0, 0);
    driver.kick(0);
}

/// Whether the device gives up on this chain, and touches nothing of it.
fn breaks(descriptors: &[(u64, u32, u16, u16)]) -> bool {
    let mut driver = echo(0);
    offer_raw(&mut driver, descriptors);
    driver.wait_broken() && driver.used_index(0) == 0
}

const BUFFER: u64 = RAM + 0x20_0000;

#[test]
fn bytes_go_through_a_chain_of_odd_pieces() {
    let mut driver = echo(0);
    let (offered, used) = driver.request(&[b"ke", b"d", b"ge"], &[1, 8]).unwrap();
    assert_eq!(used, Used { head: 0, length: 5 });
    assert_eq!(driver.bytes(offered.writable[0], 1), b"k");
    assert_eq!(driver.bytes(offered.writable[1], 5), b"edge\xaa");
}

#[test]
fn more_chains_than_one_turn_takes_are_all_served() {
    let mut driver = echo(0);
    let served = (0..1000).filter(|_| driver.request(&[b"ab"], &[2]).is_some()).count();
    assert_eq!(served, 1000);
}

#[test]
fn an_indirect_table_is_a_chain() {
    let mut driver = echo(0);
    let table = driver.allocate(32);
    driver.memory.write_slice(b"anchor", GuestAddress(BUFFER)).unwrap();
    let rows = [Descriptor::new(BUFFER, 6, NEXT, 1), Descriptor::new(BUFFER + 0x100, 6, WRITE, 0)];
    for (at, row) in (0..).zip(rows) {
        driver.memory.write_obj(row, GuestAddress(table + 16 * at)).unwrap();
    }
    offer_raw(&mut driver, &[(table, 32, INDIRECT, 0)]);
    assert_eq!(driver.wait_used(0), Some(Used { head: 0, length: 6 }));
    assert_eq!(driver.bytes(BUFFER + 0x100, 6), b"anchor");
}

#[test]
fn a_table_within_a_table_breaks_the_ring() {
    let mut driver = echo(0);
    let table = driver.allocate(16);
    let inner = Descriptor::new(table, 16, INDIRECT, 0);
    driver.memory.write_obj(inner, GuestAddress(table)).unwrap();
    offer_raw(&mut driver, &[(table, 16, INDIRECT, 0)]);
    assert!(driver.wait_broken());
}

#[test]
fn an_empty_table_breaks_the_ring() {
    assert!(breaks(&[(BUFFER, 0, INDIRECT, 0)]));
}

#[test]
fn a_table_of_half_a_descriptor_breaks_the_ring() {
    assert!(breaks(&[(BUFFER, 24, INDIRECT, 0)]));
}

#[test]
fn a_table_longer_than_the_queue_breaks_the_ring() {
    let mut driver = echo(0);
    let table = driver.allocate(300 * 16);
    for at in 0..300 {
        let row = Descriptor::new(BUFFER, 1, NEXT, at + 1);
        driver.memory.write_obj(row, GuestAddress(table + 16 * u64::from(at))).unwrap();
    }
    offer_raw(&mut driver, &[(table, 300 * 16, INDIRECT, 0)]);
    assert!(driver.wait_broken());
}

#[test]
fn a_loop_breaks_the_ring() {
    assert!(breaks(&[(BUFFER, 8, NEXT, 1), (BUFFER, 8, NEXT, 0)]));
}

#[test]
fn a_chain_out_of_the_table_breaks_the_ring() {
    assert!(breaks(&[(BUFFER, 8, NEXT, 256)]));
}

#[test]
fn a_buffer_outside_ram_breaks_the_ring() {
    assert!(breaks(&[(0x1000, 8, 0, 0)]));
    assert!(breaks(&[(u64::MAX - 4, 8, 0, 0)]));
    assert!(breaks(&[(RAM + RAM_SIZE - 4, 8, WRITE, 0)]));
}

#[test]
fn a_buffer_of_length_0_breaks_the_ring() {
    assert!(breaks(&[(BUFFER, 0, WRITE, 0)]));
}

#[test]
fn a_buffer_to_read_after_one_to_write_breaks_the_ring() {
    assert!(breaks(&[(BUFFER, 8, WRITE | NEXT, 1), (BUFFER, 8, 0, 0)]));
}

#[test]
fn buffers_of_more_than_4_gib_break_the_ring() {
    assert!(breaks(&[(BUFFER, 8, NEXT, 1), (BUFFER, u32::MAX, 0, 0)]));
}

#[test]
fn a_head_outside_the_table_breaks_the_ring() {
    let mut driver = echo(0);
    driver.make_available(0, 256);
    driver.kick(0);
    assert!(driver.wait_broken());
}

#[test]
fn an_index_that_jumps_past_the_ring_breaks_it() {
    let mut driver = echo(0);
    driver.set_available_index(0, 257);
    driver.kick(0);
    assert!(driver.wait_broken());
}

#[test]
fn a_broken_ring_is_left_alone() {
    let mut driver = echo(0);
    driver.set_available_index(0, 257);
    driver.kick(0);
    assert!(driver.wait_broken());
    driver.set_available_index(0, 0);
    driver.offer(0, &[b"hello"], &[8]);
    driver.kick(0);
    driver.transport.shutdown();
    assert_eq!(driver.used_index(0), 0);
}

#[test]
fn a_driver_that_wants_no_interrupts_gets_none() {
    let mut driver = echo(0);
    driver.memory.write_obj(1_u16, GuestAddress(driver.queues[0].available)).unwrap();
    driver.request(&[b"hello"], &[8]).unwrap();
    driver.transport.shutdown();
    assert!(driver.irq.read().is_err());
}

#[test]
fn with_event_index_the_driver_is_told_where_it_asked() {
    let mut driver = echo(EVENT_IDX);
    let used_event = GuestAddress(driver.queues[0].available + 4 + 2 * 256);
    driver.memory.write_obj(1_u16, used_event).unwrap();
    driver.request(&[b"one"], &[8]).unwrap();
    driver.request(&[b"two"], &[8]).unwrap();
    assert!(driver.wait_interrupt());
    driver.request(&[b"three"], &[8]).unwrap();
    driver.transport.shutdown();
    assert!(driver.irq.read().is_err());
}

#[test]
fn with_event_index_the_device_says_from_where_to_notify() {
    let mut driver = echo(EVENT_IDX);
    driver.request(&[b"one"], &[8]).unwrap();
    let avail_event = GuestAddress(driver.queues[0].used + 4 + 8 * 256);
    let told = || driver.memory.read_obj::<u16>(avail_event).unwrap() == 1;
    assert!(wait_for(told));
}

/// A descriptor: mostly one of a chain within the table and RAM.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![
        6 => (0_u64..0x1000).prop_map(|offset| BUFFER + offset),
        // The table itself, the rings, the end of RAM, anywhere.
        2 => RAM..RAM + 0x4000,
        1 => Just(RAM + RAM_SIZE - 8),
        1 => any::<u64>(),
    ];
    let length = prop_oneof![6 => 0_u32..0x200, 2 => Just(16), 1 => any::<u32>()];
    let flags = prop_oneof![8 => 0_u16..8, 1 => any::<u16>()];
    let next = prop_oneof![8 => 0_u16..8, 1 => any::<u16>()];
    (address, length, flags, next)
}

proptest! {
    #[test]
    fn no_ring_upsets_the_device(
        features in prop::sample::select(vec![0, EVENT_IDX]),
        descriptors in prop::collection::vec(descriptor(), 8),
        heads in prop::collection::vec(prop_oneof![8 => 0_u16..8, 1 => any::<u16>()], 1..16),
        index in prop::option::weighted(0.1, any::<u16>()),
    ) {
        let mut driver = echo(features);
        for (at, (address, length, flags, next)) in (0..).zip(descriptors) {
            driver.describe(0, at, Descriptor::new(address, length, flags, next));
        }
        for head in heads {
            driver.make_available(0, head);
        }
        driver.set_available_index(0, index.unwrap_or(driver.available_index(0)));
        driver.kick(0);
        driver.transport.shutdown();
        driver.run(0);
        prop_assert!(driver.request(&[b"hello"], &[8]).is_some());
    }
}
