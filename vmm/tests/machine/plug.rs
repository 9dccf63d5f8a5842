//! Devices that come and go while their machine runs.

use std::fs;
use std::sync::mpsc::channel;

use expect_test::{Expect, expect};
use kedge_devices::virtio::block;
use kedge_devices::virtio::catalog::DeviceConfig;
use kedge_devices::virtio::change::Change;
use kedge_diag::report;
use kedge_hv_model::{Program, Step, Width};
use kedge_vmm::spec::{MachineSpec, OnReset, Transport};
use kedge_vmm::{Clock, ControlError, Ended, Restoration};
use serde_json::json;

use crate::guest::{Guest, Running, SERIAL, await_input, off, print, program, reset, want_input};
use crate::pause::{letters, says_more};
use crate::save::{LETTERS, Place, host, save};

/// Slot Control of the first port: function 0 of device 31.
const SLOT_CONTROL: u64 = 0x3000_0000 + (31 << 15) + 0x58;
/// The card has power, and the light shines.
const ON: u64 = 0b01 << 8 | 0b11 << 6;
/// It has none, and the light is out.
const DARK: u64 = 0b11 << 8 | 0b11 << 6 | 1 << 10;

fn switch(control: u64) -> Vec<Step> {
    Step::store(SLOT_CONTROL, Width::Half, control).to_vec()
}

/// Waits for something typed, and takes it.
fn wait() -> Vec<Step> {
    [await_input(), vec![Step::Load { reg: 9, address: SERIAL, width: Width::Byte }]].concat()
}

/// A driver of the first slot: on and off as it is told to by typing.
fn driver() -> Program {
    let on = [wait(), switch(ON), print("on ")].concat();
    let dark = [wait(), switch(DARK), print("off ")].concat();
    program(&[want_input(), print("up "), on, dark, wait(), off()])
}

fn with_slots(slots: u8) -> impl FnOnce(&mut MachineSpec) {
    move |spec| {
        spec.transport = Transport::Pci;
        spec.pci_slots = slots;
    }
}

fn disk(place: &Place, id: &str) -> Box<dyn DeviceConfig> {
    let path = place.path(id);
    if !path.exists() {
        fs::write(&path, vec![0; 4096]).unwrap();
    }
    let body = json!({"drive_id": id, "is_root_device": false, "path_on_host": path});
    (block::KIND.from_json)(body).unwrap()
}

fn refused(result: Result<(), ControlError>, expected: &Expect) {
    expected.assert_eq(&report(&result.unwrap_err()));
}

fn devices(restoration: &Restoration<'_>) -> Vec<String> {
    restoration.spec.devices.iter().map(|device| device.id().to_owned()).collect()
}

fn unplug(guest: &Running, id: &str) -> Result<(), ControlError> {
    guest.handle.unplug(&block::KIND, id)
}

#[test]
fn a_machine_without_slots_keeps_its_devices() {
    let place = Place::new();
    let guest = Guest::new(&[letters()]).start();
    let nowhere = expect![[r#"
        error: no device comes or goes while the machine runs: it has none on PCI
          fix: start a machine with PCI: `--enable-pci`, or `--transport pci --pci-slots 8`"#]];
    refused(guest.handle.plug(disk(&place, "a")), &nowhere);
    refused(unplug(&guest, "a"), &nowhere);
    guest.stop();
    let guest = Guest::new(&[letters()]).with(with_slots(0)).start();
    refused(
        guest.handle.plug(disk(&place, "a")),
        &expect![[r#"
        error: the machine has no slots on PCI
          fix: start it with some: `--pci-slots 8`"#]],
    );
    guest.stop();
    let none = Guest::new(&[letters()]).with(|spec| spec.pci_slots = 1);
    expect![[r#"
        error: slots are on PCI, and the machine's devices are on MMIO
          fix: ask for PCI with `--transport pci`, or for no slots"#]]
    .assert_eq(&report(&none.build().err().unwrap()));
    let many = Guest::new(&[letters()]).with(with_slots(9));
    expect![[r#"
        error: 9 slots are too many: a machine has at most 8
          fix: ask for up to 8"#]]
    .assert_eq(&report(&many.build().err().unwrap()));
}

#[test]
fn what_cannot_come_or_go_is_refused_with_the_reason() {
    let place = Place::new();
    let (first, path) = (disk(&place, "first"), place.path("first"));
    let guest = Guest::new(&[letters()]).with(with_slots(2));
    let guest = guest.with(|spec| spec.devices.push(first)).start();
    let plug = |device| guest.handle.plug(device);
    plug(disk(&place, "a")).unwrap();
    refused(
        plug(disk(&place, "a")),
        &expect![[r#"
        error: the machine has a disk `a` already
          fix: give it a name of its own"#]],
    );
    refused(
        plug(disk(&place, "first")),
        &expect![[r#"
        error: the machine has a disk `first` already
          fix: give it a name of its own"#]],
    );
    let root = json!({"drive_id": "root", "is_root_device": true, "path_on_host": path});
    refused(
        plug((block::KIND.from_json)(root).unwrap()),
        &expect![[r#"
        error: the disk `root` cannot be a root device: the guest runs already
          fix: leave `is_root_device` out"#]],
    );
    let busy = json!({"drive_id": "b", "is_root_device": false, "path_on_host": path});
    let busy = plug((block::KIND.from_json)(busy).unwrap()).unwrap_err();
    assert!(report(&busy).contains("in use"), "{}", report(&busy));
    refused(unplug(&guest, "b"), &expect!["error: the machine has no disk `b`"]);
    refused(
        unplug(&guest, "first"),
        &expect![[r#"
        error: the disk `first` was there before the guest, and stays
          fix: start the machine with it in a slot: `--removable first`"#]],
    );
    plug(disk(&place, "c")).unwrap();
    refused(
        plug(disk(&place, "d")),
        &expect![[r#"
        error: all slots on PCI are taken
          fix: remove a device that was plugged in"#]],
    );
    says_more(&guest);
    guest.stop();
}

#[test]
fn a_device_that_the_guest_never_used_goes_at_once_and_another_takes_its_place() {
    let place = Place::new();
    let guest = Guest::new(&[letters()]).with(with_slots(1)).start();
    for id in ["a", "b", "a"] {
        guest.handle.plug(disk(&place, id)).unwrap();
        let body = json!({"drive_id": id, "path_on_host": place.path(id)});
        guest.handle.change(Change::from_json(&block::KIND, body).unwrap()).unwrap();
        unplug(&guest, id).unwrap();
    }
    guest.handle.pause().unwrap();
    guest.handle.plug(disk(&place, "b")).unwrap();
    guest.handle.resume(Clock::default()).unwrap();
    says_more(&guest);
    save(guest, &place);
    let snapshot = place.open();
    let restoration = Restoration::of(&snapshot).unwrap();
    assert_eq!(
        (devices(&restoration), restoration.spec.plugged.as_slice()),
        (vec!["b".to_owned()], &[1_u8][..])
    );
}

#[test]
fn a_device_in_use_goes_once_the_guest_has_let_go() {
    let place = Place::new();
    let guest = Guest::new(&[driver()]).with(with_slots(1)).start();
    guest.says("up ");
    guest.handle.plug(disk(&place, "a")).unwrap();
    guest.types(b"1");
    guest.says("up on ");
    guest.handle.pause().unwrap();
    refused(
        unplug(&guest, "a"),
        &expect![[r#"
        error: the guest uses the disk `a`, and cannot let go of it while it is paused
          fix: let it go on first"#]],
    );
    guest.handle.resume(Clock::default()).unwrap();
    let (tell, told) = channel();
    let then = move |outcome| tell.send(outcome).unwrap();
    guest.handle.unplug_then((&block::KIND, "a".to_owned()), then);
    refused(
        unplug(&guest, "a"),
        &expect![[r#"
        error: the guest is asked already to let go of the disk `a`
          fix: wait until it has, or has not"#]],
    );
    assert!(told.try_recv().is_err());
    guest.types(b"2");
    told.recv().unwrap().unwrap();
    guest.says("up on off ");
    guest.handle.plug(disk(&place, "a")).unwrap();
    guest.types(b"3");
    assert_eq!(guest.end().outcome(), ("up on off ", Ended::Off));
}

#[test]
fn a_device_from_before_the_start_goes_if_it_began_in_a_slot() {
    let place = Place::new();
    let devices = ["fixed", "first", "second"].map(|id| disk(&place, id));
    let guest = Guest::new(&[driver()]).with(with_slots(2)).with(|spec| {
        spec.devices.extend(devices);
        spec.removable = ["second", "first"].map(str::to_owned).to_vec();
    });
    let guest = guest.start();
    guest.says("up ");
    guest.types(b"1");
    guest.says("up on ");
    let (tell, told) = channel();
    guest.handle.unplug_then((&block::KIND, "second".to_owned()), move |it| tell.send(it).unwrap());
    guest.types(b"2");
    told.recv().unwrap().unwrap();
    guest.handle.plug(disk(&place, "a")).unwrap();
    refused(
        unplug(&guest, "fixed"),
        &expect![[r#"
        error: the disk `fixed` was there before the guest, and stays
          fix: start the machine with it in a slot: `--removable fixed`"#]],
    );
    save(guest, &place);
    let snapshot = place.open();
    let restoration = Restoration::of(&snapshot).unwrap();
    assert_eq!(self::devices(&restoration), ["fixed", "first", "a"]);
    assert_eq!(restoration.spec.plugged, [2, 1]);
}

#[test]
fn what_cannot_begin_in_a_slot_is_refused_with_the_reason() {
    let place = Place::new();
    let root = json!({"drive_id": "root", "is_root_device": true, "path_on_host": place.path("r")});
    let refused = |slots, id: &str, expected: Expect| {
        let devices =
            [(block::KIND.from_json)(root.clone()).unwrap(), disk(&place, "a"), disk(&place, "b")];
        let guest = Guest::new(&[letters()]).with(with_slots(slots)).with(|spec| {
            spec.devices.extend(devices);
            spec.removable = ["a", id].map(str::to_owned).to_vec();
        });
        expected.assert_eq(&report(&guest.build().err().unwrap()));
    };
    refused(
        2,
        "c",
        expect![[r#"
            error: there is no device `c` to be removable
              fix: give the `id` of a disk or a network interface"#]],
    );
    refused(
        2,
        "root",
        expect![[r#"
            error: the disk `root` cannot be removable
              fix: name disks and network interfaces on which the guest's root is not"#]],
    );
    refused(
        1,
        "b",
        expect![[r#"
            error: there is no slot for the disk `b` to be removable: the machine has 1
              fix: ask for more slots: `--transport pci --pci-slots 2`"#]],
    );
}

#[test]
fn a_device_in_use_is_saved_in_its_slot_and_goes_from_there() {
    let (place, programs) = (Place::new(), [driver()]);
    let with = |guest: Guest| guest.with(with_slots(2));
    let guest = with(host("6.12", &programs)).start();
    guest.says("up ");
    guest.handle.plug(disk(&place, "a")).unwrap();
    guest.handle.plug(disk(&place, "b")).unwrap();
    guest.types(b"1");
    guest.says("up on ");
    unplug(&guest, "b").unwrap();
    save(guest, &place);

    let snapshot = place.open();
    let restoration = Restoration::of(&snapshot).unwrap();
    let guest = with(host("7.2", &programs)).restore(restoration).unwrap().start();
    guest.handle.resume(Clock::default()).unwrap();
    guest.handle.plug(disk(&place, "b")).unwrap();
    let (tell, told) = channel();
    guest.handle.unplug_then((&block::KIND, "a".to_owned()), move |it| tell.send(it).unwrap());
    guest.types(b"2");
    told.recv().unwrap().unwrap();
    unplug(&guest, "b").unwrap();
    guest.types(b"3");
    assert_eq!(guest.end().outcome(), ("off ", Ended::Off));
}

#[test]
fn a_device_stays_over_a_reset_and_who_waits_for_it_hears_so() {
    let place = Place::new();
    let first =
        program(&[want_input(), print("up "), wait(), switch(ON), print("on "), wait(), reset()]);
    let guest = Guest::new(&[first]).then(driver()).with(with_slots(1));
    let guest = guest.with(|spec| spec.on_reset = OnReset::Restart).start();
    guest.says("up ");
    guest.handle.plug(disk(&place, "a")).unwrap();
    guest.types(b"1");
    guest.says("up on ");
    let (tell, told) = channel();
    guest.handle.unplug_then((&block::KIND, "a".to_owned()), move |it| tell.send(it).unwrap());
    guest.types(b"2");
    refused(
        told.recv().unwrap(),
        &expect![[r#"
        error: the guest has ended or reset before it let go of the disk `a`
          fix: remove the device again, where the guest runs again"#]],
    );
    guest.says("up on up ");
    refused(
        guest.handle.plug(disk(&place, "b")),
        &expect![[r#"
        error: all slots on PCI are taken
          fix: remove a device that was plugged in"#]],
    );
    guest.types(b"3");
    guest.says("up on up on ");
    guest.stop();
}

#[test]
fn a_machine_that_ends_takes_what_is_plugged_in_with_it() {
    let place = Place::new();
    let guest = Guest::new(&[letters()]).with(with_slots(1)).start();
    guest.handle.plug(disk(&place, "a")).unwrap();
    says_more(&guest);
    assert!(guest.stop().said.starts_with(LETTERS.as_bytes()));
    let guest = Guest::new(&[letters()]).with(with_slots(1)).start();
    guest.handle.plug(disk(&place, "a")).unwrap();
    guest.stop();
}

#[test]
fn a_disk_that_another_process_has_needs_memory_that_is_shared() {
    let guest = Guest::new(&[letters()]).with(with_slots(1)).start();
    let body = json!({"drive_id": "a", "is_root_device": false, "socket": "/nowhere/a"});
    refused(
        guest.handle.plug((block::KIND.from_json)(body).unwrap()),
        &expect![[r#"
            error: the disk `a` is served by another process, with which this guest's memory is not shared
              fix: start the machine with a device that has `socket`: its memory is shared then"#]],
    );
    guest.stop();
}
