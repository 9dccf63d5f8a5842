//! Where a restored guest's memory comes from, and what becomes of the machine where it
//! does not come.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use expect_test::{Expect, expect};
use kedge_diag::report;
use kedge_guest_memory::{GuestRange, PageServerError, ServedPages, map_served};
use kedge_saved_state::open_state;
use kedge_vmm::{Clock, Pages, Restoration};

use crate::guest::{Guest, Running};
use crate::pause::{goes_round, letters, says_more};
use crate::save::{Place, host, save};

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

/// A guest that says letters, saved; and what it has said.
fn saved() -> (Place, Vec<u8>) {
    let place = Place::new();
    let guest = host("6.12", &[letters()]).start();
    says_more(&guest);
    let said = save(guest, &place);
    (place, said)
}

fn guest() -> Guest {
    host("6.12", &[letters()])
}

fn go_on(guest: Guest, restoration: Restoration<'_>) -> Running {
    let guest = guest.restore(restoration).map_err(|error| report(&error)).unwrap().start();
    guest.handle.resume(Clock::default()).unwrap();
    says_more(&guest);
    guest
}

fn refused(restoration: Restoration<'_>, place: &Place, expected: &Expect) {
    let refused = guest().restore(restoration).map(|_| "it is restored").unwrap_err();
    let text = report(&refused).replace(place.path("").to_str().unwrap(), "");
    expected.assert_eq(&text);
}

#[test]
fn a_machine_whose_memory_file_is_cut_short_ends() {
    let (place, _) = saved();
    let (told, lost) = mpsc::channel();
    let snapshot = place.open();
    let guest = guest()
        .around(move |surroundings| surroundings.guarding(move |lost| told.send(lost).unwrap()));
    let guest = guest.restore(Restoration::of(&snapshot).unwrap()).unwrap();
    let lost = lost.recv().unwrap();
    let guest = guest.start();
    guest.handle.resume(Clock::default()).unwrap();
    says_more(&guest);
    // As a handler would of the address that the kernel tells it.
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let memory = place.path("memory");
    let line = maps.lines().find(|line| line.ends_with(memory.to_str().unwrap())).unwrap();
    let (start, _) = line.split_once('-').unwrap();
    let start = usize::from_str_radix(start, 16).unwrap();
    assert!(lost.replace(start + 0x1234));
    expect![[r#"
        error: the guest's memory at 0x80001234 is gone: its memory file was changed or is lost
          fix: leave the memory files of snapshots alone while guests run from them"#]]
    .assert_eq(&report(&guest.end().ended.unwrap_err()));
}

#[test]
fn a_memory_file_that_is_cut_short_meanwhile_is_looked_at() {
    let (place, _) = saved();
    let snapshot = place.open();
    let restoration = Restoration::of(&snapshot).unwrap();
    OpenOptions::new().write(true).open(place.path("memory")).unwrap().set_len(4096).unwrap();
    refused(
        restoration,
        &place,
        &expect![[r#"
        error: the memory file has 4096 bytes, and the guest's memory has 2097152
          fix: name the memory file that was saved with the state file"#]],
    );
}

#[test]
fn a_working_set_is_written_at_the_first_pause_and_used_from_then_on() {
    let (place, mut said) = saved();
    let file = place.path("set");
    for round in 0..3 {
        let snapshot = place.open();
        let mut restoration = Restoration::of(&snapshot).unwrap();
        restoration.working_set = Some(file.clone());
        let guest = go_on(guest(), restoration);
        assert_eq!(file.exists(), round > 0);
        guest.handle.pause().unwrap();
        let before = fs::read(&file).unwrap();
        guest.handle.resume(Clock::default()).unwrap();
        says_more(&guest);
        let finished = guest.stop();
        assert_eq!(fs::read(&file).unwrap(), before);
        if round == 2 {
            said.extend(finished.said);
        }
    }
    assert!(goes_round(&said, LETTERS));
}

#[test]
fn a_machine_that_ends_writes_its_working_set_and_one_that_never_went_on_does_not() {
    let (place, _) = saved();
    let (file, other) = (place.path("set"), place.path("other"));
    let snapshot = place.open();
    let mut restoration = Restoration::of(&snapshot).unwrap();
    restoration.working_set = Some(file.clone());
    go_on(guest(), restoration).stop();
    assert!(file.exists());
    let mut restoration = Restoration::of(&snapshot).unwrap();
    restoration.working_set = Some(other.clone());
    guest().restore(restoration).unwrap().start().stop();
    assert!(!other.exists());
}

#[test]
fn a_working_set_of_another_snapshot_is_refused() {
    let (place, _) = saved();
    let (other, _) = saved();
    let file = place.path("set");
    let snapshot = place.open();
    let mut restoration = Restoration::of(&snapshot).unwrap();
    restoration.working_set = Some(file.clone());
    go_on(guest(), restoration).stop();
    let another = other.open();
    let mut restoration = Restoration::of(&another).unwrap();
    restoration.working_set = Some(file.clone());
    let text = report(&guest().restore(restoration).map(drop).unwrap_err());
    assert!(text.contains(&format!("is of the snapshot {}", snapshot.id())), "{text}");
    assert!(text.contains("fix: name another file, or remove this one"), "{text}");
    fs::write(&file, b"nothing").unwrap();
    let mut restoration = Restoration::of(&snapshot).unwrap();
    restoration.working_set = Some(file);
    refused(
        restoration,
        &place,
        &expect![[r#"
        error: set is no working set, or is damaged: it begins with something else
          fix: name another file, or remove this one: it is written anew"#]],
    );
}

#[test]
fn huge_pages_of_the_hosts_pool_are_a_page_servers() {
    let (place, _) = saved();
    let snapshot = place.open();
    let mut restoration = Restoration::of(&snapshot).unwrap();
    restoration.pages = Pages::Huge2M;
    refused(
        restoration,
        &place,
        &expect![[r#"
        error: a memory file cannot be mapped on huge pages of 2 MiB
          fix: have a page server fill them, or ask for transparent ones"#]],
    );
}

#[test]
fn transparent_huge_pages_and_none_are_both_taken() {
    let (place, _) = saved();
    for pages in [Pages::Small, Pages::Transparent] {
        let snapshot = place.open();
        let mut restoration = Restoration::of(&snapshot).unwrap();
        restoration.pages = pages;
        go_on(guest(), restoration).stop();
    }
}

#[test]
fn a_socket_without_a_page_server_is_refused() {
    let (place, _) = saved();
    let state = open_state(&place.path("state")).unwrap();
    let restoration = Restoration::served(&state, place.path("socket")).unwrap();
    let text = report(&guest().restore(restoration).map(drop).unwrap_err());
    // A sandbox may not let this process have its faults served.
    assert!(text.contains("no page server answers on") || text.contains("does not let"), "{text}");
}

/// The example, which is built with these tests, serving the memory of `place`; none where
/// this process may not have its faults served.
fn page_server(place: &Place) -> Option<Child> {
    let may = map_served(&[GuestRange::new(0, 1 << 16)], ServedPages::Small, &place.path("none"));
    if matches!(may, Err(PageServerError::Refused(_))) {
        eprintln!("skipped: this process may not have its faults served");
        return None;
    }
    let example = std::env::current_exe().unwrap();
    let example = example.parent().unwrap().with_file_name("examples").join("page_server");
    let mut server = Command::new(&example)
        .args([place.path("socket"), place.path("memory")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", example.display()));
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "page server ready\n");
    Some(server)
}

fn served(place: &Place) -> Running {
    let state = open_state(&place.path("state")).unwrap();
    go_on(guest(), Restoration::served(&state, place.path("socket")).unwrap())
}

#[test]
fn a_guest_goes_on_from_a_page_server_and_is_saved_whole() {
    let (place, mut said) = saved();
    let Some(mut server) = page_server(&place) else { return };
    let again = Place::new();
    said.extend(save(served(&place), &again));
    server.wait().unwrap();
    let snapshot = again.open();
    said.extend(go_on(guest(), Restoration::of(&snapshot).unwrap()).stop().said);
    assert!(goes_round(&said, LETTERS));
}

#[test]
fn a_machine_ends_with_its_page_server() {
    let (place, _) = saved();
    let Some(mut server) = page_server(&place) else { return };
    let guest = served(&place);
    server.kill().unwrap();
    server.wait().unwrap();
    expect![[r#"
        error: the page server has ended, which had the guest's memory
          fix: keep it running while guests do, and load the snapshot once more"#]]
    .assert_eq(&report(&guest.end().ended.unwrap_err()));
}
