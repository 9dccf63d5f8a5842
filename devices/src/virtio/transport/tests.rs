//! The register file and the rules behind it, under drivers of all manners.

use kedge_bus::{IrqLine, MmioDevice, Unsuitable, Value};
use kedge_guest_memory::{GuestRange, map_anonymous};
use proptest::prelude::*;

use super::{MmioTransport, reg};
use crate::virtio::mishap::{Mishap, MishapKind};
use crate::virtio::testing::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, Driver, EVENT_IDX, Echo, FEATURES_OK, NEEDS_RESET, RAM,
    RAM_SIZE, TestLoop, VERSION_1, wait_for,
};

/// The feature that [`Echo`] has.
const ECHO: u64 = 1 << 3;

fn fresh() -> Driver {
    Driver::new(Box::new(Echo::default()))
}

fn running() -> Driver {
    Driver::running(Box::new(Echo::default()), 0)
}

#[test]
fn the_device_says_who_it_is() {
    let driver = fresh();
    let registers = [reg::MAGIC_VALUE, reg::VERSION, reg::DEVICE_ID, reg::VENDOR_ID];
    assert_eq!(
        registers.map(|register| driver.read(register)),
        [0x7472_6976, 2, 4, u32::from_le_bytes(*b"kdge")]
    );
}

#[test]
fn the_node_says_how_to_drive_it() {
    let node = fresh().transport.node();
    assert_eq!(node.name, "virtio_mmio");
    assert_eq!(
        node.properties,
        [
            ("compatible", Value::Strings(vec!["virtio,mmio".to_owned()])),
            ("dma-coherent", Value::Empty),
        ]
    );
}

#[test]
fn features_of_device_and_transport_are_offered() {
    assert_eq!(fresh().offered(), ECHO | VERSION_1 | EVENT_IDX | 1 << 28 | 1 << 40);
}

#[test]
fn features_offered_are_accepted() {
    assert!(fresh().negotiate(VERSION_1 | ECHO));
}

#[test]
fn features_nobody_offered_are_refused() {
    assert!(!fresh().negotiate(VERSION_1 | 1 << 5));
    assert!(!fresh().negotiate(VERSION_1 | 1 << 63));
}

#[test]
fn a_driver_from_before_version_1_is_refused() {
    assert!(!fresh().negotiate(ECHO));
}

#[test]
fn features_past_the_last_word_are_refused() {
    let driver = fresh();
    driver.write(reg::STATUS, ACKNOWLEDGE | DRIVER);
    driver.write(reg::DRIVER_FEATURES_SEL, 1);
    driver.write(reg::DRIVER_FEATURES, 1);
    driver.write(reg::DRIVER_FEATURES_SEL, 2);
    driver.write(reg::DRIVER_FEATURES, 1);
    driver.write(reg::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    assert_eq!(driver.read(reg::STATUS), ACKNOWLEDGE | DRIVER);
}

#[test]
fn a_driver_without_agreed_features_does_not_start() {
    let driver = fresh();
    driver.write(reg::STATUS, ACKNOWLEDGE | DRIVER | DRIVER_OK);
    assert_eq!(driver.read(reg::STATUS), ACKNOWLEDGE | DRIVER);
}

#[test]
fn status_bits_stay_until_a_reset() {
    let mut driver = running();
    driver.write(reg::STATUS, ACKNOWLEDGE);
    assert_eq!(driver.read(reg::STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert!(driver.request(&[b"still"], &[8]).is_some());
}

#[test]
fn a_used_buffer_is_an_interrupt_with_a_reason() {
    let mut driver = running();
    driver.request(&[b"hello"], &[8]).unwrap();
    assert!(driver.wait_interrupt());
    assert_eq!(driver.read(reg::INTERRUPT_STATUS), 1);
    driver.write(reg::INTERRUPT_ACK, 1);
    assert_eq!(driver.read(reg::INTERRUPT_STATUS), 0);
}

#[test]
fn a_device_that_breaks_says_so_by_interrupt() {
    let mut driver = running();
    driver.set_available_index(0, 999);
    driver.kick(0);
    assert!(driver.wait_broken());
    assert!(driver.wait_interrupt());
    assert_eq!(driver.read(reg::INTERRUPT_STATUS), 2);
    let mishaps = driver.mishaps();
    let [Mishap { kind: MishapKind::NeedsReset, why, times: 1, .. }] = mishaps.as_slice() else {
        panic!("{mishaps:?}")
    };
    assert!(why.starts_with("queue 0: "), "{why}");
}

#[test]
fn a_queue_that_does_not_exist_has_no_size() {
    let driver = fresh();
    driver.write(reg::QUEUE_SEL, 2);
    assert_eq!(driver.read(reg::QUEUE_NUM_MAX), 0);
    driver.write(reg::QUEUE_READY, 1);
    assert_eq!(driver.read(reg::QUEUE_READY), 0);
    driver.write(reg::QUEUE_SEL, u32::MAX);
    assert_eq!(driver.read(reg::QUEUE_NUM_MAX), 0);
    driver.kick(u32::MAX);
}

/// Whether queue 0, its size and parts as given, is refused and the device
/// marked.
fn refused(size: u32, [descriptor, driver_area, device]: [u64; 3]) -> bool {
    let mut driver = fresh();
    driver.negotiate(VERSION_1);
    driver.write(reg::QUEUE_NUM, size);
    driver.place(reg::QUEUE_DESC_LOW, descriptor);
    driver.place(reg::QUEUE_DRIVER_LOW, driver_area);
    driver.place(reg::QUEUE_DEVICE_LOW, device);
    driver.write(reg::QUEUE_READY, 1);
    let ready = driver.read(reg::QUEUE_READY);
    driver.start();
    ready == 0 && driver.read(reg::STATUS) & NEEDS_RESET != 0 && driver.wait_interrupt()
}

const GOOD: [u64; 3] = [RAM, RAM + 0x1000, RAM + 0x2000];

#[test]
fn a_sound_queue_is_taken() {
    assert!(!refused(16, GOOD));
}

#[test]
fn a_queue_of_an_impossible_size_is_refused() {
    assert!(refused(0, GOOD));
    assert!(refused(3, GOOD));
    assert!(refused(512, GOOD));
    assert!(refused(65536 + 16, GOOD));
}

#[test]
fn a_misaligned_queue_is_refused() {
    assert!(refused(16, [RAM + 8, GOOD[1], GOOD[2]]));
    assert!(refused(16, [GOOD[0], RAM + 1, GOOD[2]]));
    assert!(refused(16, [GOOD[0], GOOD[1], RAM + 2]));
}

#[test]
fn a_queue_outside_ram_is_refused() {
    assert!(refused(16, [0, 0, 0]));
    assert!(refused(16, [0x1000, GOOD[1], GOOD[2]]));
    assert!(refused(16, [GOOD[0], u64::MAX - 1, GOOD[2]]));
    assert!(refused(16, [GOOD[0], GOOD[1], RAM + RAM_SIZE - 4]));
}

#[test]
fn a_queue_in_use_does_not_move() {
    let mut driver = running();
    driver.write(reg::QUEUE_SEL, 0);
    driver.write(reg::QUEUE_NUM, 2);
    driver.place(reg::QUEUE_DESC_LOW, 0);
    driver.write(reg::QUEUE_READY, 1);
    assert!(driver.request(&[b"still"], &[8]).is_some());
}

#[test]
fn a_reset_forgets_everything() {
    let mut driver = running();
    driver.request(&[b"hello"], &[8]).unwrap();
    driver.write(reg::STATUS, 0);
    assert_eq!(driver.read(reg::STATUS), 0);
    assert_eq!(driver.read(reg::INTERRUPT_STATUS), 0);
    assert_eq!(driver.read(reg::QUEUE_READY), 0);
}

#[test]
fn a_reset_with_buffers_in_flight_leaves_them_alone() {
    let mut driver = running();
    driver.offer(0, &[b"x"], &[8]);
    driver.kick(0);
    driver.write(reg::STATUS, 0);
    driver.offer(0, &[b"hello"], &[8]);
    driver.kick(0);
    assert_eq!(driver.used_index(0), 0);
    driver.run(0);
    assert!(driver.request(&[b"hello"], &[8]).is_some());
}

#[test]
fn resets_at_any_time_do_not_upset_the_device() {
    let mut driver = fresh();
    for _ in 0..200 {
        driver.run(0);
        driver.offer(0, &[b"hello"], &[8]);
        driver.kick(0);
    }
    driver.run(0);
    assert!(driver.request(&[b"hello"], &[8]).is_some());
}

#[test]
fn a_queue_is_reset_while_the_other_goes_on() {
    let mut driver = running();
    driver.request(&[b"one"], &[8]).unwrap();
    driver.write(reg::QUEUE_SEL, 1);
    driver.write(reg::QUEUE_RESET, 1);
    assert_eq!(driver.read(reg::QUEUE_RESET), 0);
    assert_eq!(driver.read(reg::QUEUE_READY), 0);
    assert!(driver.request(&[b"two"], &[8]).is_some());
}

#[test]
fn a_queue_that_was_stopped_starts_again_from_scratch() {
    let mut driver = running();
    driver.offer(1, &[b"one"], &[8]);
    driver.kick(1);
    driver.wait_used(1).unwrap();
    driver.write(reg::QUEUE_SEL, 1);
    driver.write(reg::QUEUE_READY, 0);
    driver.set_up_queue(1, 8);
    driver.offer(1, &[b"two"], &[8]);
    driver.kick(1);
    assert_eq!(driver.wait_used(1).unwrap().length, 3);
}

#[test]
fn after_a_shutdown_nothing_moves() {
    let mut driver = running();
    driver.transport.shutdown();
    driver.offer(0, &[b"hello"], &[8]);
    driver.kick(0);
    driver.transport.shutdown();
    assert_eq!(driver.used_index(0), 0);
}

#[test]
fn each_queue_has_a_doorbell_and_so_has_what_ends_an_interrupt() {
    let mut driver = running();
    let doorbells = driver.transport.doorbells();
    let places: Vec<_> = doorbells.iter().map(|bell| (bell.offset, bell.ring.value())).collect();
    assert_eq!(places, [(0x50, 0), (0x50, 1), (0x64, 1)]);
    driver.offer(1, &[b"hello"], &[8]);
    doorbells[1].event.write(1).unwrap();
    assert!(driver.wait_used(1).is_some());
}

#[test]
fn registers_are_accessed_whole() {
    let transport = &fresh().transport;
    assert_eq!(transport.read(2, &mut [0; 4]), Err(Unsuitable { offset: 2, length: 4 }));
    assert_eq!(transport.read(0, &mut [0; 2]), Err(Unsuitable { offset: 0, length: 2 }));
    assert_eq!(transport.write(0x70, &[0; 8]), Err(Unsuitable { offset: 0x70, length: 8 }));
    assert_eq!(transport.write(0x71, &[0; 4]), Err(Unsuitable { offset: 0x71, length: 4 }));
}

#[test]
fn gaps_read_as_zero_and_shared_memory_as_absent() {
    let driver = fresh();
    assert_eq!(driver.read(0x0d0), 0);
    assert_eq!([0x0b0, 0x0b4, 0x0b8, 0x0bc].map(|at| driver.read(at)), [u32::MAX; 4]);
}

#[test]
fn the_configuration_is_the_devices() {
    let transport = &fresh().transport;
    transport.write(reg::CONFIG + 2, &[1, 2, 3]).unwrap();
    let mut bytes = [0xff; 8];
    transport.read(reg::CONFIG + 1, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 1, 2, 3, 0, 0, 0, 0]);
    transport.read(0xff8, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 8]);
}

#[test]
fn a_device_whose_loop_is_gone_needs_a_reset() {
    let memory = map_anonymous(&[GuestRange::new(RAM, RAM_SIZE)]).unwrap();
    let gone = TestLoop::start().handle();
    let (line, irq) = IrqLine::observed().unwrap();
    let transport = MmioTransport::new(Box::new(Echo::default()), memory, line, gone).unwrap();
    let write = |register, value: u32| transport.write(register, &value.to_le_bytes()).unwrap();
    write(reg::DRIVER_FEATURES_SEL, 1);
    write(reg::DRIVER_FEATURES, 1);
    write(reg::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    let mut status = [0; 4];
    transport.read(reg::STATUS, &mut status).unwrap();
    assert_ne!(u32::from_le_bytes(status) & NEEDS_RESET, 0);
    assert!(wait_for(|| irq.read().is_ok()));
    transport.shutdown();
}

/// Offsets and values that matter, more often than any others.
pub(super) fn store() -> impl Strategy<Value = (u64, u32)> {
    let register = prop_oneof![4 => (0_u64..64).prop_map(|word| 4 * word), 1 => 0_u64..0x1000];
    let value = prop_oneof![
        4 => prop::sample::select(vec![0, 1, 2, 3, 7, 11, 15, 16, 64, 128, 0x8000_0000, 0x8000_1000]),
        1 => any::<u32>(),
    ];
    (register, value)
}

proptest! {
    #[test]
    fn no_sequence_of_stores_upsets_the_device(
        stores in prop::collection::vec(store(), 1..200)
    ) {
        let mut driver = running();
        for (offset, value) in stores {
            let _ = driver.transport.write(offset, &value.to_le_bytes());
            let _ = driver.transport.read(offset, &mut [0; 4]);
        }
        driver.run(0);
        prop_assert!(driver.request(&[b"hello"], &[8]).is_some());
    }
}
