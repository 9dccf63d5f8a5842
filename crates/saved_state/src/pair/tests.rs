//! Snapshots put in place, and saves that end at each step of it.

use expect_test::expect;
use kedge_diag::report;

use super::*;
use crate::testing::{Files, LampV1, about, names, pages, sections, write_memory};

type Step = fn(&mut Placing<'_>) -> Result<(), PlaceError>;

const STEPS: [Step; 4] = [
    |placing| placing.keep_old(),
    |placing| placing.place_memory(),
    |placing| placing.place_state(),
    |placing| {
        placing.remove_old();
        Ok(())
    },
];

/// A save that is killed after so many steps.
fn killed_after(files: &Files, byte: u8, steps: usize) {
    let mut pair = files.create(Contents::Full).unwrap();
    let written = write_memory(&pair, &[(0..9, byte)]);
    pair.write_state(&about(), &written, &sections(byte.into())).unwrap();
    let mut placing = Placing { pair: &mut pair, durability: Durability::Synced, kept: None };
    STEPS.iter().take(steps).for_each(|step| step(&mut placing).unwrap());
    // The host takes a dead process's locks, but does not tidy up for it.
    flock(&pair.state.file, FlockOperation::Unlock).unwrap();
    flock(&pair.memory.file, FlockOperation::Unlock).unwrap();
    std::mem::forget(pair);
}

/// The byte that the snapshot's state and all of its memory were saved with.
fn saved_byte(files: &Files) -> u32 {
    let snapshot = files.open().unwrap();
    snapshot.image().verify().unwrap();
    let lamp = snapshot.state().read_part::<LampV1>().unwrap();
    let mut first = [0];
    std::os::unix::fs::FileExt::read_exact_at(snapshot.image().file(), &mut first, 0x3000).unwrap();
    assert_eq!(u32::from(first[0]), lamp.brightness);
    lamp.brightness
}

fn text(error: &PlaceError, folder: &Path) -> String {
    report(error).replace(&*folder.to_string_lossy(), "")
}

#[test]
fn a_snapshot_replaces_another_and_leaves_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path(), "a");
    files.save(Contents::Full, &[(0..9, 1)]);
    files.save(Contents::Full, &[(0..9, 2)]);
    assert_eq!(names(folder.path()), ["a.mem", "a.state"]);
    assert_eq!(pages(&files.memory)[..10], [2, 2, 2, 2, 2, 2, 2, 2, 2, 0]);
}

#[test]
fn after_each_step_a_whole_snapshot_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let found = [0, 1, 2, 3, 4].map(|steps| {
        let files = Files::new(folder.path(), &steps.to_string());
        killed_after(&files, 1, STEPS.len());
        killed_after(&files, 2, steps);
        saved_byte(&files)
    });
    assert_eq!(found, [1, 1, 1, 2, 2]);
}

#[test]
fn a_save_after_a_killed_one_succeeds_and_can_be_killed_too() {
    for (first, second) in (0..5).flat_map(|first| (0..5).map(move |second| (first, second))) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path(), "a");
        killed_after(&files, 1, STEPS.len());
        killed_after(&files, 2, first);
        let before = saved_byte(&files);
        killed_after(&files, 3, second);
        assert_eq!(saved_byte(&files), [before, before, before, 3, 3][second]);
        killed_after(&files, 4, STEPS.len());
        assert_eq!(saved_byte(&files), 4);
    }
}

#[test]
fn a_pair_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path(), "a");
    files.save(Contents::Full, &[(0..9, 1)]);
    let pair = files.create(Contents::Full).unwrap();
    write_memory(&pair, &[(0..9, 2)]);
    drop(pair);
    assert_eq!(names(folder.path()), ["a.mem", "a.state"]);
    files.open().unwrap().image().verify().unwrap();
}

#[test]
fn a_failure_between_the_renames_gives_the_old_snapshot_back() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path(), "a");
    killed_after(&files, 1, STEPS.len());
    let pair = files.create(Contents::Full).unwrap();
    let written = write_memory(&pair, &[(0..9, 2)]);
    // The state file cannot be renamed when it is gone.
    fs::remove_file(&pair.state.temporary).unwrap();
    pair.commit(&about(), &written, &sections(2), Durability::Cached).unwrap_err();
    assert_eq!(names(folder.path()), ["a.mem", "a.state"]);
    assert_eq!(saved_byte(&files), 1);
}

#[test]
fn a_failure_before_the_renames_leaves_the_old_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path(), "a");
    killed_after(&files, 1, STEPS.len());
    let pair = files.create(Contents::Full).unwrap();
    let written = write_memory(&pair, &[(0..9, 2)]);
    fs::remove_file(&pair.memory.temporary).unwrap();
    pair.commit(&about(), &written, &sections(2), Durability::Cached).unwrap_err();
    assert_eq!(names(folder.path()), ["a.mem", "a.state"]);
    assert_eq!(saved_byte(&files), 1);
}

#[test]
fn one_save_at_a_time_goes_to_one_place() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path(), "a");
    let pair = files.create(Contents::Full).unwrap();
    expect![[r#"
        error: another snapshot is being saved as /a.state
          fix: wait for it to end, or name another file"#]]
    .assert_eq(&text(&files.create(Contents::Full).unwrap_err(), folder.path()));
    drop(pair);
    files.create(Contents::Full).unwrap();
}

#[test]
fn a_difference_cannot_replace_what_it_is_one_to() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path(), "a");
    let of = files.save(Contents::Full, &[(0..9, 1)]).id();
    expect![[r#"
        error: a difference to the snapshot in /a.mem cannot replace it
          fix: name other files, or save a full snapshot"#]]
    .assert_eq(&text(&files.create(Contents::Difference { of }).unwrap_err(), folder.path()));
    files.open().unwrap();
}

#[test]
fn names_that_are_no_two_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    let refused = |state: &str, memory: &str| {
        let (state, memory) = (folder.path().join(state), folder.path().join(memory));
        let error = PendingPair::create(&state, &memory, Contents::Full).unwrap_err();
        text(&error, folder.path())
    };
    let texts = [
        refused("a", "a"),
        refused("a", "d/../a"),
        refused("a", "a.saving"),
        refused("a", "d"),
        refused("a", "/dev/null"),
        refused("nowhere/a", "b"),
    ];
    expect![[r#"
        error: state and memory would both be written to /a
          fix: name two files
        error: state and memory would both be written to /a
          fix: name two files
        error: state and memory would both be written to /a.saving
          fix: name two files
        error: /d is no name for a file of a snapshot
          fix: name a file in a folder that exists
        error: /dev/null is no name for a file of a snapshot
          fix: name a file in a folder that exists
        error: /nowhere/a cannot be created
          because: No such file or directory (os error 2)
          fix: create the folder first"#]]
    .assert_eq(&texts.join("\n"));
    assert_eq!(names(folder.path()), ["d"]);
}

#[test]
fn a_link_stays_one_to_the_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let (files, link) = (Files::new(folder.path(), "a"), folder.path().join("link"));
    files.save(Contents::Full, &[(0..9, 1)]);
    std::os::unix::fs::symlink(&files.memory, &link).unwrap();
    let through = Files { state: files.state.clone(), memory: link.clone() };
    through.save(Contents::Full, &[(0..9, 2)]);
    assert!(link.is_symlink());
    assert_eq!(pages(&files.memory)[0], 2);
    assert_eq!(names(folder.path()), ["a.mem", "a.state", "link"]);
}

#[test]
fn a_full_disk_is_an_error_with_a_cure() {
    let source = io::Error::from(io::ErrorKind::StorageFull);
    let error = file_error(Path::new("/snapshots/a.mem.saving"), "written")(source);
    expect![[r#"
        error: /snapshots/a.mem.saving cannot be written
          because: no storage space
          fix: make room, or save to another disk; what was there before is unchanged"#]]
    .assert_eq(&report(&error));
}

#[test]
fn memory_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path(), "a");
    files.save(Contents::Full, &[(0..9, 1)]);
    assert_eq!(fs::metadata(&files.memory).unwrap().mode() & 0o777, 0o600);
}
