//! The clock page as a guest reads it.

use expect_test::expect;
use kedge_bus::Value;
use kedge_diag::report;
use kedge_guest_memory::map_anonymous;
use vmm_sys_util::eventfd::EventFd;

use super::*;

const PAGE: GuestRange = GuestRange::new(0x8001_0000, 0x1_0000);

fn clock() -> (VmClock, EventFd) {
    let memory = map_anonymous(&[PAGE]).unwrap();
    let (line, irq) = IrqLine::observed().unwrap();
    (VmClock::new(memory, PAGE, line), irq)
}

/// A clock at rest as it was saved.
fn restored(markers: &VmClockV1) -> (VmClock, EventFd) {
    let (clock, irq) = clock();
    clock.restore(&Part::of(markers)).unwrap();
    (clock, irq)
}

fn read<T: kedge_guest_memory::ByteValued>(clock: &VmClock, offset: u64) -> T {
    clock.memory.read_obj(GuestAddress(PAGE.start.0 + offset)).unwrap()
}

/// `seq_count`, `disruption_marker` and `vm_generation_counter`.
fn markers(clock: &VmClock) -> (u32, u64, u64) {
    (read(clock, 0x0c), read(clock, 0x10), read(clock, 0x68))
}

fn saved() -> VmClockV1 {
    VmClockV1 { sequence: 6, disruptions: 3, generations: 2 }
}

#[test]
fn the_page_is_what_linux_looks_for() {
    let (clock, irq) = clock();
    clock.begin().unwrap();
    assert_eq!(read::<u32>(&clock, 0x00), 0x4b4c_4356, "magic");
    assert_eq!(read::<u32>(&clock, 0x04), 0x1_0000, "size");
    assert_eq!(read::<u16>(&clock, 0x08), 1, "version");
    assert_eq!(read::<u8>(&clock, 0x0a), 0xff, "counter_id");
    assert_eq!(read::<u64>(&clock, 0x18), 0x300, "flags");
    assert_eq!(read::<u8>(&clock, 0x22), 0, "clock_status");
    assert_eq!(markers(&clock), (0, 0, 0));
    assert!(irq.read().is_err());
}

#[test]
fn a_pause_in_which_the_counter_went_on_is_nothing_to_tell() {
    let (clock, irq) = clock();
    clock.begin().unwrap();
    clock.pause(Instant::now()).unwrap();
    clock.resume().unwrap();
    assert_eq!(markers(&clock), (0, 0, 0));
    assert!(irq.read().is_err());
}

#[test]
fn a_guest_whose_counter_stood_still_finds_a_new_marker() {
    let (clock, irq) = clock();
    clock.begin().unwrap();
    clock.pause(Instant::now()).unwrap();
    clock.disrupt();
    clock.disrupt();
    assert_eq!(markers(&clock), (0, 0, 0), "it rests");
    clock.resume().unwrap();
    assert_eq!(markers(&clock), (2, 1, 0));
    assert_eq!(irq.read().unwrap(), 1);
}

#[test]
fn a_restored_guest_finds_a_new_generation_too_and_the_rest_of_the_page() {
    let (clock, irq) = restored(&saved());
    assert_eq!(markers(&clock), (0, 0, 0), "nothing is written before it goes on");
    clock.resume().unwrap();
    clock.resume().unwrap();
    assert_eq!(markers(&clock), (8, 4, 3));
    assert_eq!(read::<u32>(&clock, 0x00), 0x4b4c_4356);
    assert_eq!(irq.read().unwrap(), 1);
}

#[test]
fn what_is_restored_is_saved_as_it_was_until_it_goes_on() {
    let (clock, _irq) = restored(&saved());
    clock.pause(Instant::now()).unwrap();
    clock.disrupt();
    assert_eq!(clock.save().unwrap(), Part::of(&saved()));
    clock.resume().unwrap();
    assert!(clock.save().is_err(), "it works");
    clock.pause(Instant::now()).unwrap();
    assert_eq!(
        clock.save().unwrap().read::<VmClockV1>().unwrap(),
        VmClockV1 { sequence: 8, disruptions: 4, generations: 3 }
    );
}

#[test]
fn markers_wrap_around() {
    let (clock, _irq) = restored(&VmClockV1 {
        sequence: u32::MAX - 1,
        disruptions: u64::MAX,
        generations: u64::MAX,
    });
    clock.resume().unwrap();
    assert_eq!(markers(&clock), (0, 0, 0));
}

#[test]
fn a_change_under_way_is_never_saved() {
    let (clock, _irq) = clock();
    let odd = Part::of(&VmClockV1 { sequence: 7, ..saved() });
    expect![[r#"
        error: the machine's clock page cannot be restored
          because: the saved `vmclock` is not plausible: `sequence` is 7, and odd: a change is under way
          fix: take another snapshot: this one is damaged"#]]
    .assert_eq(&report(&clock.restore(&odd).unwrap_err()));
}

#[test]
fn a_page_outside_memory_is_an_error() {
    let memory = map_anonymous(&[PAGE]).unwrap();
    let page = GuestRange::new(PAGE.end(), 0x1000);
    let clock = VmClock::new(memory, page, IrqLine::detached());
    expect!["the machine's clock page cannot be written to guest memory at 0x80020000"]
        .assert_eq(&clock.begin().unwrap_err().to_string());
}

#[test]
fn the_device_tree_calls_it_vmclock() {
    let node = clock().0.node();
    let compatible = Value::Strings(vec!["amazon,vmclock".to_owned()]);
    assert_eq!((node.name, node.properties), ("ptp", vec![("compatible", compatible)]));
}
