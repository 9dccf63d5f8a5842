//! Memory files, whole, damaged and changed.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use expect_test::expect;
use kedge_diag::report;
use kedge_ids::u64_from;
use proptest::prelude::*;

use super::*;
use crate::testing::{Files, PAGE, PAGES, about, pages, regions};
use crate::{Durability, Snapshot, SnapshotId};

fn saved(folder: &Path) -> (Files, Snapshot) {
    let files = Files::new(folder, "a");
    let snapshot = files
        .save(Contents::Full, &[(1..3, 1), (3..5, 0), (5..6, 2), (100..500, 3), (599..600, 4)]);
    (files, snapshot)
}

fn at(page: usize) -> u64 {
    u64_from(page * PAGE)
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

#[test]
fn a_full_image_has_holes_where_memory_is_zero() {
    let folder = tempfile::tempdir().unwrap();
    let (files, snapshot) = saved(folder.path());
    let extents = [at(1)..at(3), at(5)..at(6), at(100)..at(500), at(599)..at(600)];
    assert_eq!(snapshot.image().map().unwrap().extents(), extents);
    let metadata = fs::metadata(&files.memory).unwrap();
    assert_eq!(metadata.len(), at(PAGES));
    assert!(metadata.blocks() * 512 < at(450));
}

#[test]
fn a_difference_has_pages_of_zeroes() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path(), "d");
    let of = SnapshotId::new(7);
    let snapshot = files.save(Contents::Difference { of }, &[(1..3, 0), (5..6, 1)]);
    assert_eq!(snapshot.image().map().unwrap().extents(), [at(1)..at(3), at(5)..at(6)]);
    assert_eq!(snapshot.contents(), Contents::Difference { of });
    snapshot.image().verify().unwrap();
}

#[test]
fn untouched_memory_is_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = Files::new(folder.path(), "z").save(Contents::Full, &[(0..PAGES, 0)]);
    assert_eq!(snapshot.image().map().unwrap().extents(), []);
    snapshot.image().verify().unwrap();
}

#[test]
fn an_image_that_is_whole_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    saved(folder.path()).1.image().verify().unwrap();
}

#[test]
fn samples_are_data_and_spread() {
    let folder = tempfile::tempdir().unwrap();
    let (_, snapshot) = saved(folder.path());
    let samples = &snapshot.image().identity().samples;
    assert_eq!(samples.len(), 8);
    assert!(samples.is_sorted_by(|a, b| a.offset < b.offset));
    assert!(samples[0].offset < at(160) && samples[7].offset > at(430));
}

#[test]
fn pages_out_of_order_or_outside_are_refused() {
    let file = tempfile::tempfile().unwrap();
    let mut writer = ImageWriter::new(&file, Contents::Full, &regions(), 4096).unwrap();
    let page = [1; PAGE];
    assert!(writer.write(at(2), &page).is_ok());
    assert!(writer.write(at(2), &page).is_err());
    assert!(writer.write(at(PAGES), &page).is_err());
    assert!(writer.write(u64::MAX - 4095, &page).is_err());
    assert!(writer.write(at(3) + 1, &page).is_err());
    assert!(writer.write(at(3), &page[1..]).is_err());
}

#[test]
fn an_image_written_by_others_is_one_without_checksums() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path(), "a");
    let pair = files.create(Contents::Full).unwrap();
    let mut writer = pair.begin_memory(&regions(), 4096).unwrap();
    writer.file().write_all_at(&[7; 2 * PAGE], at(3)).unwrap();
    writer.add(at(3)..at(5)).unwrap();
    assert!(writer.add(at(4)..at(6)).is_err());
    let written = writer.finish().unwrap();
    assert_eq!(written.data_bytes(), at(2));
    pair.commit(&about(), &written, &[], Durability::Cached).unwrap();

    let snapshot = files.open().unwrap();
    assert_eq!(snapshot.image().map().unwrap().extents(), std::slice::from_ref(&(at(3)..at(5))));
    assert_eq!(snapshot.image().identity().samples.len(), 2);
    expect![[r#"
        error: it was saved without checksums
          fix: save snapshots that are to be verified with checksums"#]]
    .assert_eq(&report(&snapshot.image().verify().unwrap_err()));
}

#[test]
fn no_page_of_data_can_change_unnoticed() {
    let folder = tempfile::tempdir().unwrap();
    let (files, snapshot) = saved(folder.path());
    for page in [1, 2, 5, 100, 300, 499, 599] {
        let mut byte = [0];
        snapshot.image().file().read_exact_at(&mut byte, at(page) + 77).unwrap();
        overwrite(&files.memory, at(page) + 77, &[byte[0] ^ 0x40]);
        let error = snapshot.image().verify().unwrap_err();
        assert!(
            matches!(error, ImageError::Damaged { start, end } if (start..end).contains(&at(page)))
        );
        overwrite(&files.memory, at(page) + 77, &byte);
    }
    snapshot.image().verify().unwrap();
}

#[test]
fn damage_is_placed() {
    let folder = tempfile::tempdir().unwrap();
    let (files, snapshot) = saved(folder.path());
    overwrite(&files.memory, at(300), &[9]);
    expect![[r#"
        error: it is damaged between 0x100000 and 0x200000: the checksum does not match
          fix: copy the snapshot anew, or take another: it is damaged"#]]
    .assert_eq(&report(&snapshot.image().verify().unwrap_err()));
}

#[test]
fn data_where_none_was_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (files, snapshot) = saved(folder.path());
    overwrite(&files.memory, at(50), &[0; PAGE]);
    snapshot.image().verify().unwrap();
    overwrite(&files.memory, at(51), &[1]);
    expect!["it has data at 0x33000, where the snapshot has none"]
        .assert_eq(&snapshot.image().verify().unwrap_err().to_string());
}

#[test]
fn a_file_of_another_length_is_refused_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = saved(folder.path());
    File::options().write(true).open(&files.memory).unwrap().set_len(at(PAGES - 1)).unwrap();
    let text = report(&files.open().unwrap_err()).replace(&*folder.path().to_string_lossy(), "");
    expect![[r#"
        error: the memory file /a.mem cannot be loaded
          because: it has 2453504 bytes, and the snapshot's memory has 2457600
          fix: name the memory file that was saved with the state file; a machine that runs from a snapshot never changes it, but whatever else does spoils it"#]]
    .assert_eq(&text);
}

#[test]
fn a_file_that_was_written_to_is_refused_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (files, snapshot) = saved(folder.path());
    let offset = snapshot.image().identity().samples[4].offset;
    overwrite(&files.memory, offset, &[0xff; PAGE]);
    let refused = files.open().unwrap_err();
    assert!(matches!(
        refused,
        crate::OpenError::Memory { source: ImageError::Changed { offset: there }, .. }
            if there == offset
    ));
}

#[test]
fn a_newer_map_is_refused_when_the_snapshot_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::new(folder.path(), "a");
    let pair = files.create(Contents::Full).unwrap();
    let mut written = crate::testing::write_memory(&pair, &[(0..9, 1)]);
    written.sections[0].part.version = 2;
    pair.commit(&about(), &written, &[], Durability::Cached).unwrap();

    let state = crate::StateFile::read(&mut File::open(&files.state).unwrap()).unwrap();
    expect![
        "it needs `memory-map` version 2, which this release does not know; kedge 0.1.0 wrote it"
    ]
    .assert_eq(&state.header().check_sections(|_| false).unwrap_err().to_string());
    let refused = report(&files.open().unwrap_err());
    assert!(refused.contains("the saved `memory-map` has version 2"), "{refused}");
}

#[test]
fn words_of_zeroes_are_told_from_others() {
    assert!(is_zero(&[0; PAGE]) && is_zero(&[0; 70]) && is_zero(&[]));
    for at in [0, 63, 64, 69] {
        let mut bytes = [0; 70];
        bytes[at] = 1;
        assert!(!is_zero(&bytes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn memory_comes_back_as_it_was_written(
        fills in prop::collection::vec((1_usize..40, 0_u8..3), 1..30),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path(), "p");
        let (mut runs, mut expected) = (Vec::new(), vec![0; PAGES]);
        for (length, byte) in fills {
            let start = runs.last().map_or(0, |(run, _): &(std::ops::Range<usize>, u8)| run.end);
            let end = (start + length).min(PAGES);
            expected[start..end].fill(byte);
            runs.push((start..end, byte));
        }
        files.save(Contents::Full, &runs).image().verify().unwrap();
        prop_assert_eq!(pages(&files.memory), expected);
    }
}
