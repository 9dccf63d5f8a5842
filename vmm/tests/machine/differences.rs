//! Differential snapshots: what was written since the last one.

use expect_test::expect;
use kedge_diag::report;
use kedge_hv_model::{Program, Step, Width};
use kedge_saved_state::{Contents, Durability, PendingPair, Snapshot, rebase};
use kedge_vmm::{Checksums, Clock, Ended, Restoration, SaveKind, SaveOrder};
use tempfile::TempDir;

use crate::cancel::cancel_at_the_end;
use crate::guest::{ENTRY, Guest, await_input, off, print, print_reg, program, want_input};

/// Memory that nothing else is in: a page each.
const FIRST: u64 = 0x8010_0000;
const SECOND: u64 = 0x8011_0000;

/// Writes to memory, waits, writes to other memory, waits, and shows both.
fn writer() -> Program {
    let write = |address, value| Step::store(address, Width::Byte, value).to_vec();
    let show = |address| {
        let load = Step::Load { reg: 9, address, width: Width::Byte };
        [vec![load], print_reg(9)].concat()
    };
    let take = || vec![Step::Load { reg: 9, address: crate::guest::SERIAL, width: Width::Byte }];
    program(&[
        want_input(),
        write(FIRST, b'f'.into()),
        write(SECOND, b'-'.into()),
        print("1"),
        await_input(),
        take(),
        write(SECOND, b's'.into()),
        print("2"),
        await_input(),
        take(),
        show(FIRST),
        show(SECOND),
        off(),
    ])
}

fn order(folder: &TempDir, name: &str, kind: SaveKind) -> SaveOrder {
    let path = |what: &str| folder.path().join(format!("{name}.{what}"));
    SaveOrder { kind, ..SaveOrder::new(path("state"), path("memory")) }
}

fn open(order: &SaveOrder) -> Snapshot {
    Snapshot::open(&order.state, &order.memory).unwrap()
}

fn guest() -> Guest {
    Guest::new(&[writer().at(ENTRY)])
}

/// Merges a difference with what it is one of.
fn merged(full: &Snapshot, difference: Snapshot, to: &SaveOrder) -> Snapshot {
    let pair = PendingPair::create(&to.state, &to.memory, Contents::Full).unwrap();
    rebase(full, &[difference], pair, Durability::Cached).unwrap();
    open(to)
}

#[test]
fn a_difference_has_what_was_written_since_and_goes_on_with_its_base() {
    for checksums in [Checksums::Whole, Checksums::Samples] {
        let folder = TempDir::new().unwrap();
        let full = order(&folder, "full", SaveKind::Full);
        let changed = SaveOrder { checksums, ..order(&folder, "changed", SaveKind::Difference) };
        let mut built = guest().build().unwrap();
        built.machine.note_changes().unwrap();
        let guest_runs = built.start();
        guest_runs.says("1");
        guest_runs.handle.pause().unwrap();
        let all = guest_runs.handle.save(full.clone()).unwrap();
        guest_runs.handle.resume(Clock::default()).unwrap();
        guest_runs.types(b"x");
        guest_runs.says("12");
        guest_runs.handle.pause().unwrap();
        // What one that is cancelled had is in the next.
        cancel_at_the_end(&guest_runs, changed.clone());
        assert!(!changed.state.exists() && !changed.memory.exists());
        let some = guest_runs.handle.save(changed.clone()).unwrap();
        guest_runs.stop();
        assert!(some.data < all.data && some.data >= 4096, "{some:?} of {all:?}");

        let refused = Restoration::of(&open(&changed)).err().unwrap();
        assert!(report(&refused).contains(&all.id.to_string()));
        let merged = merged(&open(&full), open(&changed), &order(&folder, "both", SaveKind::Full));
        let restoration = Restoration::of(&merged).unwrap();
        let guest_runs = guest().restore(restoration).unwrap().start();
        guest_runs.handle.resume(Clock::default()).unwrap();
        guest_runs.types(b"y");
        assert_eq!(guest_runs.end().outcome(), ("fs", Ended::Off));
    }
}

#[test]
fn a_restored_machine_is_saved_as_a_difference_to_where_it_comes_from() {
    let folder = TempDir::new().unwrap();
    let full = order(&folder, "full", SaveKind::Full);
    let changed = order(&folder, "changed", SaveKind::Difference);
    let guest_runs = guest().start();
    guest_runs.says("1");
    guest_runs.handle.pause().unwrap();
    let all = guest_runs.handle.save(full.clone()).unwrap();
    guest_runs.stop();
    let snapshot = open(&full);
    let mut built = guest().restore(Restoration::of(&snapshot).unwrap()).unwrap();
    built.machine.note_changes().unwrap();
    let guest_runs = built.start();
    guest_runs.handle.resume(Clock::default()).unwrap();
    guest_runs.types(b"x");
    guest_runs.says("2");
    guest_runs.handle.pause().unwrap();
    guest_runs.handle.save(changed.clone()).unwrap();
    guest_runs.stop();
    assert_eq!(open(&changed).contents(), Contents::Difference { of: all.id });
    let merged = merged(&snapshot, open(&changed), &order(&folder, "both", SaveKind::Full));
    let guest_runs = guest().restore(Restoration::of(&merged).unwrap()).unwrap().start();
    guest_runs.handle.resume(Clock::default()).unwrap();
    guest_runs.types(b"y");
    assert_eq!(guest_runs.end().outcome(), ("fs", Ended::Off));
}

#[test]
fn what_could_not_be_saved_is_in_the_next_difference() {
    let folder = TempDir::new().unwrap();
    let full = order(&folder, "full", SaveKind::Full);
    let changed = order(&folder, "changed", SaveKind::Difference);
    let mut built = guest().build().unwrap();
    built.machine.note_changes().unwrap();
    let guest_runs = built.start();
    guest_runs.says("1");
    guest_runs.handle.pause().unwrap();
    guest_runs.handle.save(full.clone()).unwrap();
    guest_runs.handle.resume(Clock::default()).unwrap();
    guest_runs.types(b"x");
    guest_runs.says("12");
    guest_runs.handle.pause().unwrap();
    let nowhere = SaveOrder { state: "/nowhere/state".into(), ..changed.clone() };
    guest_runs.handle.save(nowhere).unwrap_err();
    guest_runs.handle.save(changed.clone()).unwrap();
    guest_runs.stop();
    let merged = merged(&open(&full), open(&changed), &order(&folder, "both", SaveKind::Full));
    let guest_runs = guest().restore(Restoration::of(&merged).unwrap()).unwrap().start();
    guest_runs.handle.resume(Clock::default()).unwrap();
    guest_runs.types(b"y");
    assert_eq!(guest_runs.end().outcome(), ("fs", Ended::Off));
}

#[test]
fn a_copy_for_others_is_none_that_differences_are_to() {
    let folder = TempDir::new().unwrap();
    let full = order(&folder, "full", SaveKind::Full);
    let copy = order(&folder, "copy", SaveKind::Copy);
    let changed = order(&folder, "changed", SaveKind::Difference);
    let mut built = guest().build().unwrap();
    built.machine.note_changes().unwrap();
    let guest_runs = built.start();
    guest_runs.says("1");
    guest_runs.handle.pause().unwrap();
    let all = guest_runs.handle.save(full.clone()).unwrap();
    guest_runs.handle.resume(Clock::default()).unwrap();
    guest_runs.types(b"x");
    guest_runs.says("12");
    guest_runs.handle.pause().unwrap();
    guest_runs.handle.save(copy.clone()).unwrap();
    guest_runs.handle.save(changed.clone()).unwrap();
    guest_runs.stop();
    assert_eq!(open(&changed).contents(), Contents::Difference { of: all.id });
    let merged = merged(&open(&full), open(&changed), &order(&folder, "both", SaveKind::Full));
    for snapshot in [merged, open(&copy)] {
        let restoration = Restoration::of(&snapshot).unwrap();
        let guest_runs = guest().restore(restoration).unwrap().start();
        guest_runs.handle.resume(Clock::default()).unwrap();
        guest_runs.types(b"y");
        assert_eq!(guest_runs.end().outcome(), ("fs", Ended::Off));
    }
}

#[test]
fn a_difference_needs_a_snapshot_that_it_is_one_of() {
    let folder = TempDir::new().unwrap();
    let guest_runs = guest().start();
    guest_runs.says("1");
    guest_runs.handle.pause().unwrap();
    let refused = guest_runs.handle.save(order(&folder, "changed", SaveKind::Difference));
    expect![[r#"
        error: the machine cannot be saved
          because: there is no snapshot of this machine since which its changes are noted
          fix: save all of it first, in a machine whose changes are noted: `--track-changes`, or "track_dirty_pages": true"#]]
    .assert_eq(&report(&refused.unwrap_err()));
    guest_runs.stop();
}
