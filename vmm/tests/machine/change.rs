//! Devices that are changed while their machine runs, and while it is paused.

use std::fs;
use std::path::Path;

use expect_test::expect;
use kedge_devices::virtio::block;
use kedge_devices::virtio::change::Change;
use kedge_diag::report;
use kedge_vmm::Restoration;
use serde_json::{Value, json};

use crate::guest::{Guest, Running};
use crate::pause::{letters, says_more};
use crate::save::{Place, save};

fn disk(folder: &Place, name: &str) -> String {
    let path = folder.path(name);
    fs::write(&path, vec![0; 4096]).unwrap();
    path.to_string_lossy().into_owned()
}

fn with_a_disk(path: &str) -> Running {
    let body = json!({"drive_id": "data", "is_root_device": false, "path_on_host": path});
    let guest = Guest::new(&[letters()]).with(|spec| {
        spec.devices.push((block::KIND.from_json)(body).unwrap());
    });
    guest.start()
}

fn change(guest: &Running, body: Value) -> Result<(), String> {
    let change = Change::from_json(&block::KIND, body).unwrap();
    guest.handle.change(change).map_err(|error| report(&error))
}

fn saved_path(place: &Place) -> Value {
    let snapshot = place.open();
    let restoration = Restoration::of(&snapshot).unwrap();
    restoration.spec.devices[0].to_json()["path_on_host"].clone()
}

#[test]
fn a_machine_that_runs_or_is_paused_is_changed_and_saved_as_it_is_then() {
    let place = Place::new();
    let [a, b, c] = ["a.img", "b.img", "c.img"].map(|name| disk(&place, name));
    let guest = with_a_disk(&a);
    says_more(&guest);
    change(&guest, json!({"drive_id": "data", "path_on_host": b})).unwrap();
    says_more(&guest);
    guest.handle.pause().unwrap();
    change(&guest, json!({"drive_id": "data", "path_on_host": c})).unwrap();
    save(guest, &place);
    assert_eq!(saved_path(&place), json!(c));
    assert!(Path::new(&b).exists());
}

#[test]
fn a_change_that_cannot_be_leaves_the_machine_as_it_was() {
    let place = Place::new();
    let path = disk(&place, "a.img");
    let guest = with_a_disk(&path);
    let error = change(&guest, json!({"drive_id": "data", "path_on_host": "/nowhere/b.img"}));
    expect![[r#"
        error: the disk `data` cannot be changed so
          because: disk `data`: there is no file /nowhere/b.img
          fix: correct the path, or make a disk: truncate -s 1G /nowhere/b.img"#]]
    .assert_eq(&error.unwrap_err());
    let error = change(&guest, json!({"drive_id": "root"})).unwrap_err();
    expect![[r#"
        error: the machine has no disk `root`
          fix: name one of: data"#]]
    .assert_eq(&error);
    says_more(&guest);
    save(guest, &place);
    assert_eq!(saved_path(&place), json!(path));
}
