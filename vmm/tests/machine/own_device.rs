//! A device of the program around the machine, by the library's example.

use expect_test::expect;
use kedge_diag::report;
use kedge_hv_model::{Program, Step, Width};
use kedge_vmm::mmio::{MmioDevice, Node, OwnDevice, Unsuitable};
use kedge_vmm::spec::{OnReset, Transport};
use kedge_vmm::{Clock, Ended, Restoration, Surroundings};

use crate::guest::{Guest, await_input, off, print, print_reg, program, reset, spi, want_input};
use crate::save::{Place, host, save};
use tally::Tally;

#[path = "../../examples/own_device/tally.rs"]
mod tally;

/// Where the first device of a program is.
const FIRST: u64 = 0x5000_0000;

/// Adds to what the tally at `address` has.
fn add(address: u64, number: u64) -> Vec<Step> {
    Step::store(address, Width::Word, number).to_vec()
}

/// Says the low byte of what it has.
fn say_sum(address: u64) -> Vec<Step> {
    [vec![Step::Load { reg: 9, address, width: Width::Word }], print_reg(9)].concat()
}

fn with_tally(around: Surroundings) -> Surroundings {
    around.with_device("tally", |wiring| Ok(OwnDevice::with_state(Tally::new(wiring.irq))))
}

#[test]
fn a_guest_uses_the_device_of_a_program_and_hears_its_interrupt() {
    let steps = [add(FIRST, 40), vec![Step::AwaitIrq(spi(93))], add(FIRST, 2), say_sum(FIRST)];
    let guest = Guest::new(&[program(&[steps.concat(), off()])]).around(with_tally);
    assert_eq!(guest.run().outcome(), ("*", Ended::Off));
}

#[test]
fn an_access_that_does_not_suit_it_reads_as_ones() {
    let byte = Step::Load { reg: 9, address: FIRST, width: Width::Byte };
    let behind = Step::Load { reg: 9, address: FIRST + tally::SIZE, width: Width::Word };
    let steps = [vec![byte, behind], Step::store(FIRST + 2, Width::Half, 7).to_vec()];
    let guest = Guest::new(&[program(&[steps.concat(), say_sum(FIRST), off()])]).around(with_tally);
    let finished = guest.run();
    assert_eq!(finished.loaded(), [0xff, 0xffff_ffff, 0]);
    assert_eq!(finished.said, [0]);
}

#[test]
fn the_device_tree_names_devices_and_their_interrupts() {
    let guest = Guest::new(&[Program::default()]).around(|around| {
        let around = with_tally(around);
        around.with_device("other", |wiring| Ok(OwnDevice::new(Tally::new(wiring.irq))))
    });
    let built = guest.build().unwrap();
    let tree = built.machine.device_tree();
    let names = |name: &str| tree.windows(name.len()).any(|bytes| bytes == name.as_bytes());
    assert!(names("tally@50000000") && names("tally@50100000") && names("example,tally"));
}

#[test]
fn it_is_made_anew_after_a_reset() {
    let guest = Guest::new(&[program(&[add(FIRST, 5), reset()])])
        .then(program(&[add(FIRST, 1), say_sum(FIRST), off()]))
        .with(|spec| spec.on_reset = OnReset::Restart)
        .around(with_tally);
    assert_eq!(guest.run().said, [1]);
}

/// Stores `a` less one, says `.`, and says what one more makes of it once a byte comes.
fn in_two_lives() -> [Program; 1] {
    let first = [add(FIRST, 0x60), print("."), want_input(), await_input()].concat();
    [program(&[first, add(FIRST, 1), say_sum(FIRST), off()])]
}

/// A guest that was saved in the middle of that.
fn saved() -> Place {
    let place = Place::new();
    let guest = host("6.12", &in_two_lives()).around(with_tally).start();
    guest.says(".");
    save(guest, &place);
    place
}

#[test]
fn it_is_saved_and_restored_with_its_guest() {
    let place = saved();
    let snapshot = place.open();
    let restoration = Restoration::of(&snapshot).unwrap();
    let guest = host("6.12", &in_two_lives()).around(with_tally).restore(restoration).unwrap();
    let guest = guest.start();
    guest.handle.resume(Clock::default()).unwrap();
    guest.types(b"\n");
    assert_eq!(guest.end().outcome(), ("a", Ended::Off));
}

/// Why the guest of `place` cannot be restored in the surroundings that `around` makes.
fn not_restored(place: &Place, around: fn(Surroundings) -> Surroundings) -> String {
    let snapshot = place.open();
    let restoration = Restoration::of(&snapshot).unwrap();
    let restored = host("6.12", &in_two_lives()).around(around).restore(restoration);
    report(&restored.err().unwrap())
}

#[test]
fn a_program_without_it_cannot_restore_the_guest() {
    let place = saved();
    expect![[r#"
        error: the guest found device tally at 0x50000000, interrupt 125; here it would find nothing more
          fix: load it in a program with the same devices, in the same order"#]].assert_eq(&not_restored(&place, |around| around));
    let other = |around: Surroundings| {
        around.with_device("clock", |wiring| Ok(OwnDevice::new(Tally::new(wiring.irq))))
    };
    expect![[r#"
        error: the guest found device tally at 0x50000000, interrupt 125; here it would find device clock at 0x50000000, interrupt 125
          fix: load it in a program with the same devices, in the same order"#]].assert_eq(&not_restored(&place, other));
    let stateless = |around: Surroundings| {
        around.with_device("tally", |wiring| Ok(OwnDevice::new(Tally::new(wiring.irq))))
    };
    expect![[r#"
        error: the device `tally` cannot be restored
          because: a saved `example-tally` stands where a `stateless-device` belongs
          fix: take another snapshot: this one is damaged"#]]
    .assert_eq(&not_restored(&place, stateless));
}

/// A device that breaks down whenever it is touched, with so many registers.
struct Broken(u64);

impl MmioDevice for Broken {
    fn size(&self) -> u64 {
        self.0
    }

    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), Unsuitable> {
        panic!("it is broken")
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), Unsuitable> {
        panic!("it is broken")
    }

    fn node(&self) -> Node {
        Node::new("broken", &["example,broken"])
    }
}

#[test]
fn one_that_panics_is_answered_as_nobody_would_and_the_guest_goes_on() {
    let guest = Guest::new(&[program(&[add(FIRST, 1), say_sum(FIRST), print("."), off()])]);
    let finished =
        guest.around(|around| around.with_device("b", |_| Ok(OwnDevice::new(Broken(8))))).run();
    assert_eq!(finished.said, [0xff, b'.']);
    assert_eq!(finished.ended.unwrap(), Ended::Off);
}

/// Why there is no machine with these devices.
fn refused(around: fn(Surroundings) -> Surroundings) -> String {
    report(&Guest::new(&[Program::default()]).around(around).build().err().unwrap())
}

#[test]
fn devices_that_cannot_be_say_why() {
    expect![[r#"
        error: the device `none` has 0 bytes of registers
          fix: give it 1 to 1048576 bytes"#]]
    .assert_eq(&refused(|around| around.with_device("none", |_| Ok(OwnDevice::new(Broken(0))))));
    expect![[r#"
        error: the device `large` has 1048577 bytes of registers
          fix: give it 1 to 1048576 bytes"#]]
    .assert_eq(&refused(|around| {
        around.with_device("large", |_| Ok(OwnDevice::new(Broken(0x10_0001))))
    }));
    expect![[r#"
        error: the program has two devices called `tally`
          fix: give each a name of its own"#]]
    .assert_eq(&refused(|around| with_tally(with_tally(around))));
    expect![[r#"
        error: a machine has room for 16 devices of a program, not for more
          fix: bring at most 16 along"#]]
    .assert_eq(&refused(|around| {
        (0..17).fold(around, |around, number| {
            around.with_device(number.to_string(), |_| Ok(OwnDevice::new(Broken(4))))
        })
    }));
}

#[test]
fn it_is_beside_devices_on_pci_too() {
    let guest = Guest::new(&[program(&[add(FIRST, 0x61), say_sum(FIRST), off()])]);
    let guest = guest.with(|spec| spec.transport = Transport::Pci).around(with_tally);
    assert_eq!(guest.run().outcome(), ("a", Ended::Off));
}
