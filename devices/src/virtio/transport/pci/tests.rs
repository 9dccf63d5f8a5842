//! The function, under drivers of all manners.

use kedge_bus::{MmioDevice, Stateful};
use kedge_saved_state::Part;
use proptest::prelude::*;

use super::place::{SIZE, at};
use super::reg;
use super::testing::{BAR, MSIX_CONTROL, PciDriver, WINDOW, low};
use crate::virtio::testing::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, wait_for};
use crate::virtio::transport::saved::PciTransportV1;

#[test]
fn the_function_says_who_it_is() {
    let driver = PciDriver::new();
    assert_eq!(driver.space_read::<4>(0x00), [0xf4, 0x1a, 0x44, 0x10]);
    assert_eq!(driver.space_read::<4>(0x08), [1, 0, 0, 0xff]);
    assert_eq!(driver.space_read::<4>(0x2c), [0xf4, 0x1a, 0x40, 0]);
}

#[test]
fn where_there_is_no_function_the_guest_reads_ones() {
    let driver = PciDriver::new();
    for offset in [0, 2 << 15, 3 << 15 | 1 << 12, 0x10_0000 | 3 << 15] {
        let mut data = [0; 4];
        driver.ecam.read(offset, &mut data).unwrap();
        assert_eq!(data, [0xff; 4], "{offset:#x}");
        driver.ecam.write(offset, &[0; 4]).unwrap();
    }
}

#[test]
fn spaces_are_reached_by_up_to_32_bits() {
    let driver = PciDriver::new();
    assert!(driver.ecam.read(3 << 15, &mut [0; 8]).is_err());
    assert!(driver.ecam.write((3 << 15) + 0xffe, &[0; 4]).is_err());
    assert_eq!(driver.space_read::<4>(0x100), [0; 4]);
}

/// The capabilities: where each is, its number, and for virtio's own what it leads to.
fn capabilities(driver: &PciDriver) -> Vec<(u8, u8, u8)> {
    let mut found = Vec::new();
    let [mut at] = driver.space_read::<1>(0x34);
    while at != 0 {
        let [id, next, _, kind] = driver.space_read::<4>(at.into());
        found.push((at, id, kind));
        at = next;
    }
    found
}

#[test]
fn capabilities_lead_to_the_registers() {
    let driver = PciDriver::new();
    let virtio = [(0x4c, 1), (0x5c, 3), (0x6c, 4), (0x7c, 2), (0x90, 5)];
    let found = capabilities(&driver);
    assert_eq!(found[0].1, 0x11);
    let found: Vec<_> = found[1..].iter().map(|(at, id, kind)| (*at, *id, *kind)).collect();
    assert_eq!(found, virtio.map(|(at, kind)| (at, 9, kind)));
    assert_eq!(driver.space_read::<4>(0x6c + 8), low(at::DEVICE).to_le_bytes());
    assert_eq!(driver.space_read::<4>(0x7c + 16), [4, 0, 0, 0]);
    // Three vectors, the table at its place.
    assert_eq!(driver.space_read::<2>(MSIX_CONTROL), [2, 0]);
    assert_eq!(driver.space_read::<4>(0x44), low(at::TABLE).to_le_bytes());
}

#[test]
fn the_range_tells_its_size() {
    let driver = PciDriver::new();
    driver.space_write(0x10, &[0xff; 4]);
    driver.space_write(0x14, &[0xff; 4]);
    assert_eq!(driver.space_read::<4>(0x10), (!(low(SIZE) - 1) | 4).to_le_bytes());
    assert_eq!(driver.space_read::<4>(0x14), [0xff; 4]);
    for bar in [0x18, 0x1c, 0x20, 0x24, 0x30] {
        driver.space_write(bar, &[0xff; 4]);
        assert_eq!(driver.space_read::<4>(bar), [0; 4], "{bar:#x}");
    }
}

#[test]
fn registers_and_doorbells_are_where_the_guest_puts_them() {
    let driver = PciDriver::new();
    assert!(driver.try_read(0, &mut [0; 4]).is_err());
    driver.put(BAR);
    let bells = |start: u64| vec![start + at::NOTIFY, start + at::NOTIFY + 4];
    assert_eq!((driver.start(), driver.post.0.lock().unwrap().clone()), (Some(BAR), bells(BAR)));
    assert_eq!(driver.load::<2>(reg::NUM_QUEUES), 2);
    let elsewhere = BAR + 0x10_0000;
    driver.put(elsewhere);
    assert!(driver.try_read(0, &mut [0; 4]).is_err());
    assert_eq!(driver.post.0.lock().unwrap().clone(), bells(elsewhere));
    driver.space_write(0x04, &[0, 0]);
    assert_eq!((driver.start(), driver.post.0.lock().unwrap().clone()), (None, vec![]));
}

#[test]
fn registers_outside_the_window_are_nowhere() {
    let driver = PciDriver::new();
    let end = WINDOW.end();
    for address in [0, 0x8000_0000, WINDOW.start.0 - SIZE, end, 1 << 40, u64::MAX << 16] {
        driver.put(address);
        assert_eq!(driver.start(), None, "{address:#x}");
        assert!(driver.post.0.lock().unwrap().is_empty());
    }
    for address in [WINDOW.start.0, end - SIZE] {
        driver.put(address);
        assert_eq!(driver.start(), Some(address));
    }
}

#[test]
fn buffers_are_used_and_told_of_by_the_queues_vector() {
    let mut driver = PciDriver::running();
    assert!(driver.echoes());
    assert!(driver.gets(0x41));
    // The vector has said it all.
    assert_eq!(driver.load::<1>(at::ISR), 0);
}

#[test]
fn a_message_is_what_the_table_says() {
    let mut driver = PciDriver::running();
    driver.store32(at::TABLE + 16 + 4, 0x9);
    assert!(driver.echoes());
    assert!(wait_for(|| !driver.sent.lock().unwrap().is_empty()));
    let sent = driver.sent.lock().unwrap()[0];
    assert_eq!((sent.address, sent.data), (0x9_0808_0010, 0x41));
}

#[test]
fn a_masked_vector_is_pending_until_it_is_not() {
    let mut driver = PciDriver::running();
    driver.mask(1, 1);
    assert!(driver.echoes());
    assert!(wait_for(|| driver.load::<8>(at::PENDING) == 0b10));
    assert_eq!(driver.messages(), [0; 0]);
    driver.mask(1, 0);
    assert_eq!(driver.messages(), [0x41]);
    assert_eq!(driver.load::<8>(at::PENDING), 0);
}

#[test]
fn a_masked_function_sends_nothing_until_it_is_not() {
    let mut driver = PciDriver::running();
    driver.space_write(MSIX_CONTROL, &0xc000_u16.to_le_bytes());
    assert!(driver.echoes());
    assert!(wait_for(|| driver.load::<8>(at::PENDING) == 0b10));
    driver.space_write(MSIX_CONTROL, &0x8000_u16.to_le_bytes());
    assert_eq!(driver.messages(), [0x41]);
}

#[test]
fn without_vectors_the_isr_says_it() {
    let mut driver = PciDriver::running();
    driver.space_write(MSIX_CONTROL, &[0, 0]);
    assert!(driver.echoes());
    assert!(wait_for(|| driver.load::<1>(at::ISR) == 1));
    assert_eq!(driver.load::<1>(at::ISR), 0);
    assert_eq!(driver.messages(), [0; 0]);
}

#[test]
fn a_vector_that_there_is_not_is_none() {
    let driver = PciDriver::running();
    driver.store16(reg::CONFIG_MSIX_VECTOR, 3);
    driver.store16(reg::QUEUE_MSIX_VECTOR, 0xfffe);
    assert_eq!(driver.load::<2>(reg::CONFIG_MSIX_VECTOR), 0xffff);
    assert_eq!(driver.load::<2>(reg::QUEUE_MSIX_VECTOR), 0xffff);
    driver.store16(reg::QUEUE_MSIX_VECTOR, 2);
    assert_eq!(driver.load::<2>(reg::QUEUE_MSIX_VECTOR), 2);
}

#[test]
fn a_broken_ring_is_told_of_by_the_configurations_vector() {
    let mut driver = PciDriver::running();
    // More chains than the ring holds.
    driver.memory_index(999);
    driver.store16(at::NOTIFY, 0);
    assert!(driver.gets(0x40));
    assert_eq!(low(driver.load::<1>(reg::DEVICE_STATUS)) & NEEDS_RESET, NEEDS_RESET);
    assert_eq!(driver.load::<1>(at::ISR), 2);
    // A reset mends it.
    driver.negotiate();
    assert_eq!(driver.load::<2>(reg::QUEUE_MSIX_VECTOR), 0xffff);
    driver.set_up(0);
    driver.store8(reg::DEVICE_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert!(driver.echoes());
    assert!(driver.gets(0x41));
}

#[test]
fn a_queue_is_reset_alone() {
    let mut driver = PciDriver::running();
    assert!(driver.echoes());
    driver.store16(reg::QUEUE_SELECT, 1);
    driver.store16(reg::QUEUE_RESET, 1);
    assert_eq!(driver.load::<2>(reg::QUEUE_RESET), 0);
    assert_eq!(driver.load::<2>(reg::QUEUE_ENABLE), 0);
    assert_eq!(driver.load::<2>(reg::QUEUE_MSIX_VECTOR), 0xffff);
    assert_eq!(driver.load::<2>(reg::QUEUE_SIZE), 16);
    assert!(driver.echoes());
}

#[test]
fn what_was_set_up_is_read_back() {
    let driver = PciDriver::running();
    driver.store16(reg::QUEUE_SELECT, 1);
    let ring = 0x8000_4000;
    let fields = [reg::QUEUE_DESC, reg::QUEUE_DRIVER, reg::QUEUE_DEVICE];
    assert_eq!(fields.map(|field| driver.load::<8>(field)), [ring, ring + 0x1000, ring + 0x2000]);
    assert_eq!(driver.load::<2>(reg::QUEUE_NOTIFY_OFF), 1);
    assert_eq!(driver.load::<4>(reg::DRIVER_FEATURE), 1);
    driver.store16(reg::QUEUE_SELECT, 2);
    assert_eq!(fields.map(|field| driver.load::<8>(field)), [0; 3]);
    assert_eq!(driver.load::<2>(reg::QUEUE_SIZE), 0);
}

#[test]
fn stores_of_another_width_do_nothing() {
    let driver = PciDriver::running();
    let before = driver.load::<8>(reg::DEVICE_STATUS & !7);
    for data in [&[0_u8; 8][..], &[0; 4], &[0; 2]] {
        let _ = driver.try_write(reg::DEVICE_STATUS & !7, data);
    }
    assert!(driver.try_write(reg::DEVICE_STATUS + 1, &[9]).is_err());
    assert!(driver.try_write(0x38, &[0; 8]).is_err());
    // But for the vector of the configuration, which is just there.
    assert_eq!(driver.load::<8>(reg::DEVICE_STATUS & !7) >> 16, before >> 16);
}

/// Reaches `length` bytes at `offset` of the registers through the space.
fn window(driver: &PciDriver, offset: u64, length: u32) -> [u8; 4] {
    driver.space_write(0x94, &[0]);
    driver.space_write(0x98, &low(offset).to_le_bytes());
    driver.space_write(0x9c, &length.to_le_bytes());
    driver.space_read::<4>(0xa0)
}

#[test]
fn registers_are_reached_through_the_space() {
    let driver = PciDriver::new();
    assert_eq!(window(&driver, reg::NUM_QUEUES, 2), [2, 0, 0, 0]);
    window(&driver, reg::DEVICE_STATUS, 1);
    driver.space_write(0xa0, &[3, 0, 0, 0]);
    assert_eq!(window(&driver, reg::DEVICE_STATUS, 1), [3, 0, 0, 0]);
    // Another range, a length that there is not, past the end: nothing.
    for (offset, length) in [(SIZE, 4), (SIZE - 2, 4), (1, 2), (0, 3), (0, 0), (0xffff_fffc, 4)] {
        driver.space_write(0xa0, &[0xaa; 4]);
        assert_eq!(window(&driver, offset, length), [0xaa; 4], "{offset:#x} {length}");
    }
}

#[test]
fn a_moved_function_goes_on() {
    let mut driver = PciDriver::running();
    assert!(driver.echoes());
    assert!(driver.gets(0x41));
    driver.mask(2, 1);
    let saved = driver.save();
    let mut moved = driver.moved(&saved).unwrap();
    assert_eq!(moved.post.0.lock().unwrap().len(), 2);
    assert_eq!(moved.messages(), [0; 0]);
    moved.transport.resume().unwrap();
    // Each queue is reminded, or it is noted.
    assert_eq!(moved.messages(), [0x41]);
    assert_eq!(moved.load::<8>(at::PENDING), 0b100);
    assert!(moved.echoes());
    assert!(moved.gets(0x41));
}

#[test]
fn what_is_pending_moves() {
    let mut driver = PciDriver::running();
    driver.mask(1, 1);
    assert!(driver.echoes());
    assert!(wait_for(|| driver.load::<8>(at::PENDING) == 0b10));
    let moved = driver.moved(&driver.save()).unwrap();
    assert_eq!(moved.load::<8>(at::PENDING), 0b10);
    assert_eq!(moved.save(), driver.save());
    moved.mask(1, 0);
    assert_eq!(moved.messages(), [0x41]);
}

/// A change of saved state, and what is said of it.
type Damage = (fn(&mut PciTransportV1), &'static str);

#[test]
fn a_damaged_part_is_refused_by_name() {
    let damages: &[Damage] = &[
        (|saved| saved.config.0[0] ^= 1, "`config` is not this device's at 0x0"),
        (|saved| saved.config.0.truncate(0xff), "`config` is not this device's at 0xff"),
        (|saved| saved.vectors.truncate(2), "`vectors` are 2, and the device has 3"),
        (|saved| saved.queue_vectors.push(0), "`queue_vectors` are 3, and the device has 2"),
        (|saved| saved.config_vector = 3, "name vector 3, which there is not"),
    ];
    let driver = PciDriver::running();
    let saved: PciTransportV1 = driver.save().read().unwrap();
    for (damage, said) in damages {
        let mut damaged = saved.clone();
        damage(&mut damaged);
        let error = driver.moved(&Part::of(&damaged)).err().unwrap();
        let text = kedge_diag::one_line(&error);
        assert!(text.contains(said), "{text}");
    }
}

#[derive(Clone, Debug)]
enum Access {
    Space(u64, Vec<u8>),
    Window(u64, Vec<u8>),
    Load(u64, usize),
    LoadSpace(u64, usize),
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let lengths = prop_oneof![Just(1_usize), Just(2), Just(4), Just(8)];
    lengths.prop_flat_map(|length| proptest::collection::vec(any::<u8>(), length))
}

fn access() -> impl Strategy<Value = Access> {
    let length = || prop_oneof![Just(1_usize), Just(2), Just(4), Just(8)];
    let near = || prop_oneof![0..0x48_u64, 0x7ff0..0x8040_u64, 0..SIZE];
    prop_oneof![
        (0..0x100_u64, bytes()).prop_map(|(at, data)| Access::Space(at, data)),
        (near(), bytes()).prop_map(|(at, data)| Access::Window(at, data)),
        (near(), length()).prop_map(|(at, length)| Access::Load(at, length)),
        (0..0x1000_u64, length()).prop_map(|(at, length)| Access::LoadSpace(at, length)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a guest does, the function can be paused, saved, and go on elsewhere as it was.
    #[test]
    fn any_guest_can_be_moved(accesses in proptest::collection::vec(access(), 1..60)) {
        let driver = PciDriver::running();
        for access in accesses {
            match access {
                Access::Space(at, data) => {
                    let _ = driver.ecam.write((3 << 15) + at, &data);
                }
                Access::Window(at, data) => {
                    let _ = driver.try_write(at, &data);
                }
                Access::Load(at, length) => {
                    let _ = driver.try_read(at, &mut [0; 8][..length]);
                }
                Access::LoadSpace(at, length) => {
                    let _ = driver.ecam.read((3 << 15) + at, &mut [0; 8][..length]);
                }
            }
        }
        let saved = driver.save();
        let moved = driver.moved(&saved).unwrap();
        prop_assert_eq!(moved.save(), saved);
        prop_assert_eq!(moved.start(), driver.start());
        moved.transport.resume().unwrap();
    }
}
