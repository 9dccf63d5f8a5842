//! Snapshots opened, and chains of them merged.

use expect_test::expect;
use kedge_diag::report;

use super::*;
use crate::testing::{Files, LampV1, PAGES, names, pages};

fn difference(to: &Snapshot) -> Contents {
    Contents::Difference { of: to.id() }
}

fn text(error: &dyn Fix, folder: &Path) -> String {
    report(error).replace(&*folder.to_string_lossy(), "")
}

#[test]
fn a_snapshot_is_opened_with_its_state() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = Files::new(folder.path(), "a").save(Contents::Full, &[(0..9, 1)]);
    assert_eq!(snapshot.state().read_part::<LampV1>().unwrap(), LampV1 { brightness: 7 });
    assert_eq!(snapshot.contents(), Contents::Full);
    assert_eq!(names(folder.path()), ["a.mem", "a.state"]);
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path(), "a");
    files.save(Contents::Full, &[(0..9, 1)]);
    std::fs::remove_file(&files.memory).unwrap();
    expect![[r#"
        error: /a.mem cannot be opened
          because: No such file or directory (os error 2)
          fix: name the two files of a snapshot"#]]
    .assert_eq(&text(&files.open().unwrap_err(), folder.path()));
}

#[test]
fn a_memory_file_in_place_of_a_state_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path(), "a");
    files.save(Contents::Full, &[(0..9, 1)]);
    expect![[r#"
        error: the state file /a.mem cannot be loaded
          because: it is no state file of kedge: it begins otherwise
          fix: name the state file of a snapshot, not its memory file"#]]
    .assert_eq(&text(&Snapshot::open(&files.memory, &files.state).unwrap_err(), folder.path()));
}

#[test]
fn a_memory_file_of_another_snapshot_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Files::new(folder.path(), "a"), Files::new(folder.path(), "b"));
    a.save(Contents::Full, &[(0..9, 1)]);
    b.save(Contents::Full, &[(0..9, 2)]);
    let refused = Snapshot::open(&a.state, &b.memory).unwrap_err();
    assert!(matches!(refused, OpenError::Memory { source: ImageError::Changed { .. }, .. }));
}

#[test]
fn a_memory_file_kept_under_its_id_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path(), "a");
    let id = files.save(Contents::Full, &[(0..9, 1)]).id();
    std::fs::rename(&files.memory, kept_memory(&files.memory, id)).unwrap();
    // One that the samples do not tell from it.
    std::fs::copy(kept_memory(&files.memory, id), &files.memory).unwrap();
    std::os::unix::fs::FileExt::write_all_at(
        &File::options().write(true).open(&files.memory).unwrap(),
        &[1],
        100 << 12,
    )
    .unwrap();
    files.open().unwrap().image().verify().unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&files.memory, &link).unwrap();
    Snapshot::open(&files.state, &link).unwrap().image().verify().unwrap();
}

#[test]
fn a_kept_file_that_is_wrong_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path(), "a");
    let id = files.save(Contents::Full, &[(0..9, 1)]).id();
    std::fs::write(kept_memory(&files.memory, id), "words").unwrap();
    files.open().unwrap().image().verify().unwrap();
}

#[test]
fn a_chain_is_merged_to_what_memory_was_last() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a", "b", "c", "merged"].map(|name| Files::new(folder.path(), name));
    let a = files[0].save(Contents::Full, &[(0..100, 1)]);
    let b = files[1].save(difference(&a), &[(50..60, 2), (100..300, 2)]);
    let c = files[2].save(difference(&b), &[(0..10, 0), (55..120, 3)]);
    let chain = [b, c];

    let contents = rebased_contents(&a, &chain).unwrap();
    rebase(&a, &chain, files[3].create(contents).unwrap(), Durability::Synced).unwrap();

    let merged = files[3].open().unwrap();
    merged.image().verify().unwrap();
    assert_eq!(merged.contents(), Contents::Full);
    assert_eq!(merged.state().sections().len(), chain[1].state().sections().len());
    let mut expected = vec![0; PAGES];
    for (run, byte) in [(10..50, 1), (50..55, 2), (55..120, 3), (120..300, 2)] {
        expected[run].fill(byte);
    }
    assert_eq!(pages(&files[3].memory), expected);
}

#[test]
fn differences_are_merged_to_one() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["b", "c", "merged"].map(|name| Files::new(folder.path(), name));
    let of = SnapshotId::new(7);
    let b = files[0].save(Contents::Difference { of }, &[(0..10, 1)]);
    let chain = [files[1].save(difference(&b), &[(5..20, 0)])];

    let contents = rebased_contents(&b, &chain).unwrap();
    assert_eq!(contents, Contents::Difference { of });
    rebase(&b, &chain, files[2].create(contents).unwrap(), Durability::Cached).unwrap();

    let merged = files[2].open().unwrap();
    assert_eq!(merged.image().map().unwrap().bytes(), 20 << 12);
    assert_eq!(merged.contents(), contents);
}

#[test]
fn a_broken_chain_is_refused_with_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Files::new(folder.path(), "a"), Files::new(folder.path(), "b"));
    let a = a.save(Contents::Full, &[(0..9, 1)]);
    let of = SnapshotId::new(7);
    let b = b.save(Contents::Difference { of }, &[(0..10, 1)]);
    let id = a.id().to_string();
    expect![[r#"
        error: snapshot 1 is a difference to snapshot 00000000000000000000000000000007, and the one before it is snapshot ID
          fix: name all snapshots of the chain, the oldest first"#]]
    .assert_eq(&report(&rebased_contents(&a, &[b]).unwrap_err()).replace(&id, "ID"));
}

#[test]
fn a_damaged_link_of_a_chain_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a", "b", "merged"].map(|name| Files::new(folder.path(), name));
    let a = files[0].save(Contents::Full, &[(0..100, 1)]);
    let chain = [files[1].save(difference(&a), &[(50..60, 2)])];
    std::fs::OpenOptions::new().write(true).open(&files[1].memory).unwrap().set_len(0).unwrap();

    let pair = files[2].create(Contents::Full).unwrap();
    let refused = rebase(&a, &chain, pair, Durability::Cached).unwrap_err();

    assert!(matches!(refused, RebaseError::Memory { index: 1, .. }));
    assert_eq!(names(folder.path()), ["a.mem", "a.state", "b.mem", "b.state"]);
}
