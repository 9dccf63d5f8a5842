//! Machines that are saved, and go on elsewhere.

use std::fs;
use std::path::PathBuf;

use expect_test::expect;
use kedge_devices::virtio::block;
use kedge_devices::virtio::catalog::DeviceConfig;
use kedge_devices::virtio::rng::RngConfig;
use kedge_diag::report;
use kedge_firmware::{ARM64_V0, builtin, register_named};
use kedge_hv_model::{Program, Step, Width, psci};
use kedge_saved_state::Snapshot;
use kedge_vmm::{Clock, Ended, Lifecycle, Restoration, SaveOrder, Then};
use serde_json::json;
use tempfile::TempDir;

use crate::faulty::{ClockChange, Faulty};
use crate::guest::{
    Built, ENTRY, Guest, Running, SERIAL, await_input, call, off, print, print_reg, program,
    turn_on, want_input,
};
use crate::pause::{goes_round, letters, letters_and_digits, says_more, watch};

pub(crate) const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

/// Where a snapshot goes.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn order(&self) -> SaveOrder {
        SaveOrder::new(self.path("state"), self.path("memory"))
    }

    pub(crate) fn open(&self) -> Snapshot {
        Snapshot::open(&self.path("state"), &self.path("memory")).unwrap()
    }
}

/// Pauses and saves `guest`, and ends it. What it has said.
pub(crate) fn save(guest: Running, place: &Place) -> Vec<u8> {
    guest.handle.pause().unwrap();
    guest.handle.save(place.order()).unwrap();
    guest.stop().said
}

/// A guest on `release` whose scripts lie where the saved one had them.
pub(crate) fn host(release: &str, programs: &[Program]) -> Guest {
    let programs: Vec<_> = programs.iter().map(|program| program.clone().at(ENTRY)).collect();
    Guest::on(release, &programs)
}

/// What kernels show otherwise of the model's CPU, where no baseline says what it is.
const OF_THE_CPU: [&str; 7] = [
    "ID_DFR0_EL1",
    "ID_AA64DFR0_EL1",
    "ID_AA64MMFR1_EL1",
    "CLIDR_EL1",
    "0x6020000000110000",
    "0x6020000000110001",
    "0x6020000000110002",
];

/// Restores what is in `place` on `release`, whose CPU may differ from the saved one.
fn restored(release: &str, programs: &[Program], place: &Place) -> Built {
    let snapshot = place.open();
    let mut restoration = Restoration::of(&snapshot).unwrap();
    restoration.allow = OF_THE_CPU.map(|name| register_named(name).unwrap()).into();
    host(release, programs).restore(restoration).map_err(|error| report(&error)).unwrap()
}

/// The same, and lets it go on.
fn goes_on(release: &str, programs: &[Program], place: &Place) -> Running {
    let guest = restored(release, programs, place).start();
    guest.handle.resume(Clock::default()).unwrap();
    guest
}

/// With the oldest profile, which every release can give.
fn anywhere(release: &str, programs: &[Program]) -> Guest {
    host(release, programs).with(|spec| spec.guest_abi = builtin(ARM64_V0).unwrap())
}

#[test]
fn a_guest_goes_on_where_it_was_saved_on_another_kernel() {
    for (from, to) in [("6.12", "7.2"), ("7.2", "6.12"), ("6.12", "6.1"), ("6.1", "7.2")] {
        let (place, programs) = (Place::new(), letters_and_digits());
        let guest = host(from, &programs).start();
        says_more(&guest);
        let mut said = save(guest, &place);
        let guest = goes_on(to, &programs, &place);
        says_more(&guest);
        said.extend(guest.stop().said);
        assert!(goes_round(&said, LETTERS) && goes_round(&said, "0123456789"), "{from} to {to}");
    }
}

#[test]
fn a_guest_moves_on_and_on() {
    let (place, programs) = (Place::new(), [letters()]);
    let guest = anywhere("6.1", &programs).start();
    says_more(&guest);
    let mut said = save(guest, &place);
    for release in ["6.12", "7.2", "6.1", "7.2", "6.12"] {
        let guest = goes_on(release, &programs, &place);
        says_more(&guest);
        said.extend(save(guest, &place));
    }
    assert!(goes_round(&said, LETTERS));
}

#[test]
fn a_restored_machine_is_paused_until_it_is_resumed() {
    let (place, programs) = (Place::new(), [letters()]);
    save(host("6.12", &programs).start(), &place);
    let built = restored("6.12", &programs, &place);
    let handle = built.machine.handle();
    assert_eq!(handle.status(), Lifecycle::Paused);
    let guest = built.start();
    handle.pause().unwrap();
    assert_eq!(guest.screen.bytes(), b"");
    handle.resume(Clock::Advance).unwrap();
    says_more(&guest);
    assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
}

#[test]
fn a_restored_machine_can_go_on_at_once() {
    let (place, programs) = (Place::new(), [letters()]);
    save(host("6.12", &programs).start(), &place);
    let snapshot = place.open();
    let mut restoration = Restoration::of(&snapshot).unwrap();
    restoration.resume = Some(Clock::default());
    let guest = host("6.12", &programs).restore(restoration).unwrap().start();
    says_more(&guest);
    guest.stop();
}

#[test]
fn a_machine_that_never_went_on_can_be_saved_again_and_dropped() {
    let (place, again, programs) = (Place::new(), Place::new(), [letters()]);
    let mut said = save(host("6.12", &programs).start(), &place);
    drop(restored("6.12", &programs, &place));
    said.extend(save(restored("6.12", &programs, &place).start(), &again));
    let guest = goes_on("6.12", &programs, &again);
    says_more(&guest);
    said.extend(guest.stop().said);
    assert!(goes_round(&said, LETTERS));
}

#[test]
fn only_a_paused_machine_can_be_saved() {
    let place = Place::new();
    let guest = Guest::new(&[letters()]).start();
    expect![[r#"
        error: the machine runs: only a paused one can be saved
          fix: pause it first"#]]
    .assert_eq(&report(&guest.handle.save(place.order()).unwrap_err()));
    guest.stop();
}

#[test]
fn a_machine_goes_on_once_it_is_saved_or_cannot_be() {
    let place = Place::new();
    let guest = Guest::new(&[letters()]).start();
    let then = |order: SaveOrder| SaveOrder { then: Then::Resume(Clock::default()), ..order };
    guest.handle.pause().unwrap();
    let saved = guest.handle.save(then(place.order())).unwrap();
    assert_eq!((saved.memory, saved.id), (2 << 20, place.open().id()));
    assert!((1..2 << 20).contains(&saved.data));
    says_more(&guest);
    guest.handle.pause().unwrap();
    let nowhere = SaveOrder::new("/nowhere/state", "/nowhere/memory");
    expect![[r#"
        error: the machine cannot be saved
          because: /nowhere/state cannot be created
          because: No such file or directory (os error 2)
          fix: create the folder first"#]]
    .assert_eq(&report(&guest.handle.save(then(nowhere)).unwrap_err()));
    says_more(&guest);
    assert!(goes_round(&guest.stop().said, LETTERS));
}

#[test]
fn what_is_asked_while_a_machine_is_saved_is_done_later() {
    for _ in 0..20 {
        let place = Place::new();
        let guest = Guest::new(&[letters()]).start();
        guest.handle.pause().unwrap();
        let (saver, order) = (guest.handle.clone(), place.order());
        let saving = std::thread::spawn(move || saver.save(order));
        guest.handle.resume(Clock::default()).ok();
        guest.handle.pause().unwrap();
        assert_eq!(guest.handle.status(), Lifecycle::Paused);
        // It came before the guest went on, or found it running.
        if saving.join().unwrap().is_ok() {
            drop(place.open());
        }
        guest.stop();
    }
}

#[test]
fn a_machine_that_is_stopped_while_it_is_saved_has_its_snapshot() {
    let place = Place::new();
    let guest = Guest::new(&[letters()]).start();
    guest.handle.pause().unwrap();
    let (saver, order) = (guest.handle.clone(), place.order());
    let saving = std::thread::spawn(move || saver.save(order));
    while guest.handle.status() == Lifecycle::Paused && !place.path("state").exists() {
        std::thread::yield_now();
    }
    assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
    saving.join().unwrap().unwrap();
    drop(place.open());
}

#[test]
fn time_goes_on_where_it_stood() {
    let (place, programs) = (Place::new(), [letters()]);
    let (guest, _) = watch(host("6.12", &programs));
    says_more(&guest);
    save(guest, &place);
    let (note, noted) = std::sync::mpsc::sync_channel(1);
    let snapshot = place.open();
    let restoration = Restoration::of(&snapshot).unwrap();
    let guest = host("7.2", &programs).watched(move |model| {
        let host = std::sync::Arc::new(Faulty::new(model, usize::MAX));
        note.send(std::sync::Arc::clone(&host)).unwrap();
        host
    });
    let guest = guest.restore(restoration).unwrap().start();
    guest.handle.resume(Clock::default()).unwrap();
    says_more(&guest);
    guest.stop();
    let changes = noted.recv().unwrap().clock_changes();
    let [first, .., last] = changes[..] else { panic!("{changes:?}") };
    let (ClockChange::Offset(first), ClockChange::Offset(last)) = (first, last) else {
        panic!("{changes:?}")
    };
    // Once when it is restored, and once when it goes on: by what passed in between.
    assert!(last > first && last - first < 10_000_000, "{changes:?}");
}

#[test]
fn a_machine_that_sleeps_is_saved_asleep() {
    let suspend = call(psci::SYSTEM_SUSPEND, [ENTRY, u64::from(b'W'), 0]);
    let take = Step::Load { reg: 9, address: SERIAL, width: Width::Byte };
    let awake = [want_input(), print_reg(0), await_input(), vec![take]].concat();
    let programs = [program(&[awake, suspend])];
    let place = Place::new();
    let guest = host("6.12", &programs).start();
    guest.says([0]);
    guest.types(b"1");
    std::thread::sleep(std::time::Duration::from_millis(50));
    save(guest, &place);
    // The model's guests have all interrupts enabled: they wake to learn that they were
    // restored.
    let guest = goes_on("7.2", &programs, &place);
    guest.says([b'W']);
    guest.stop();
}

#[test]
fn vcpus_that_are_off_stay_off_until_they_are_turned_on() {
    let first = program(&[want_input(), print("1"), await_input(), turn_on(1)]);
    let programs = [first, program(&[print("2"), off()])];
    let place = Place::new();
    let guest = host("6.12", &programs).start();
    guest.says("1");
    save(guest, &place);
    let guest = goes_on("6.1", &programs, &place);
    guest.types(b"x");
    assert_eq!(guest.end().outcome(), ("2", Ended::Off));
}

/// A driver's script for one queue of a virtio device.
struct Driver {
    transport: u64,
    /// Where it has its rings and buffers: a page each.
    rings: u64,
    irq: u32,
}

impl Driver {
    fn new(index: u32) -> Self {
        let offset = u64::from(index);
        Self {
            transport: 0x4000_3000 + 0x1000 * offset,
            rings: 0x8018_0000 + 0x4000 * offset,
            irq: 2 + index,
        }
    }

    fn register(&self, offset: u64, value: u64) -> Vec<Step> {
        Step::store(self.transport + offset, Width::Word, value).to_vec()
    }

    /// Negotiates, and gives the device one queue of 4.
    fn activate(&self) -> Vec<Step> {
        let steps = [
            (0x70, 0),
            (0x70, 1 | 2),
            (0x24, 1),
            (0x20, 1),
            (0x70, 1 | 2 | 8),
            (0x30, 0),
            (0x38, 4),
            (0x80, self.rings),
            (0x84, 0),
            (0x90, self.rings + 0x1000),
            (0x94, 0),
            (0xa0, self.rings + 0x2000),
            (0xa4, 0),
            (0x44, 1),
            (0x70, 1 | 2 | 8 | 4),
        ];
        steps.map(|(offset, value)| self.register(offset, value)).concat()
    }

    /// Fills descriptor `index`: a buffer in the page for buffers, its length, flags, and
    /// the next one.
    fn descriptor(&self, index: u64, buffer: u64, rest: [u64; 3]) -> Vec<Step> {
        let (at, [length, flags, next]) = (self.rings + 16 * index, rest);
        [
            Step::store(at, Width::Double, self.buffer(buffer)),
            Step::store(at + 8, Width::Word, length),
            Step::store(at + 12, Width::Half, flags),
            Step::store(at + 14, Width::Half, next),
        ]
        .concat()
    }

    fn buffer(&self, offset: u64) -> u64 {
        self.rings + 0x3000 + offset
    }

    /// Offers the chain from descriptor 0 as its first and rings; waits for the answer.
    fn ask(&self) -> Vec<Step> {
        let available = self.rings + 0x1000;
        [
            Step::store(available + 4, Width::Half, 0).to_vec(),
            Step::store(available + 2, Width::Half, 1).to_vec(),
            self.register(0x50, 0),
            vec![Step::AwaitIrq(crate::guest::spi(self.irq))],
        ]
        .concat()
    }

    fn show(&self, address: u64) -> Vec<Step> {
        let load = Step::Load { reg: 9, address, width: Width::Byte };
        [vec![load], print_reg(9)].concat()
    }
}

fn disk(place: &Place, name: &str, byte: u8) -> Box<dyn DeviceConfig> {
    let path = place.path(name);
    fs::write(&path, [byte; 4096]).unwrap();
    let body = json!({"drive_id": "data", "is_root_device": false, "path_on_host": path});
    (block::KIND.from_json)(body).unwrap()
}

/// Sets both devices up, waits for input, and only then asks them for something: shows
/// how many bytes are random, the disk's first byte and its status.
fn with_devices() -> Program {
    let (disk, rng) = (Driver::new(0), Driver::new(1));
    program(&[
        disk.activate(),
        rng.activate(),
        want_input(),
        print("ready"),
        await_input(),
        rng.descriptor(0, 0, [16, 2, 0]),
        rng.ask(),
        rng.show(rng.rings + 0x2000 + 8),
        disk.descriptor(0, 0, [16, 1, 1]),
        disk.descriptor(1, 0x100, [512, 1 | 2, 2]),
        disk.descriptor(2, 0x400, [1, 2, 0]),
        disk.ask(),
        disk.show(disk.buffer(0x100)),
        disk.show(disk.buffer(0x400)),
        off(),
    ])
}

#[test]
fn devices_go_on_where_they_were_saved() {
    let (place, programs) = (Place::new(), [with_devices()]);
    let guest = host("6.12", &programs).with(|spec| {
        spec.devices.push(disk(&place, "disk", b'D'));
        spec.devices.push(Box::new(RngConfig::default()));
    });
    let guest = guest.start();
    guest.says("ready");
    save(guest, &place);
    let guest = goes_on("7.2", &programs, &place);
    guest.types(b"x");
    let finished = guest.end();
    assert_eq!(finished.ended.unwrap(), Ended::Off);
    assert_eq!(finished.said, [16, b'D', 0]);
}

#[test]
fn a_device_can_lead_elsewhere_when_it_is_restored() {
    let (place, programs) = (Place::new(), [with_devices()]);
    let guest = host("6.12", &programs).with(|spec| {
        spec.devices.push(disk(&place, "disk", b'D'));
        spec.devices.push(Box::new(RngConfig::default()));
    });
    let guest = guest.start();
    guest.says("ready");
    save(guest, &place);
    let snapshot = place.open();
    let mut restoration = Restoration::of(&snapshot).unwrap();
    restoration.replace(disk(&place, "other", b'O')).unwrap();
    let guest = host("7.2", &programs).restore(restoration).unwrap().start();
    guest.handle.resume(Clock::default()).unwrap();
    guest.types(b"x");
    assert_eq!(guest.end().said, [16, b'O', 0]);
}

#[test]
fn what_the_guest_knows_cannot_be_changed() {
    let (place, programs) = (Place::new(), [letters()]);
    save(host("6.12", &programs).start(), &place);
    let snapshot = place.open();
    let mut restoration = Restoration::of(&snapshot).unwrap();
    restoration.spec.memory *= 2;
    let refused = host("6.12", &programs).restore(restoration).err().unwrap();
    expect![[r#"
        error: the memory, in bytes, of a saved machine cannot be changed: 2097152 was saved, 4194304 asked for
          fix: leave it as it was saved"#]]
    .assert_eq(&report(&refused));
    let mut restoration = Restoration::of(&snapshot).unwrap();
    let absent = restoration.replace(disk(&place, "disk", b'D')).unwrap_err();
    expect![[r#"
        error: the saved machine has no disk `data`
          fix: name a device that is there: `kedge snapshot inspect`"#]]
    .assert_eq(&report(&absent));
}
