//! The state file, whole, damaged and of other releases.

use std::io::Cursor;

use expect_test::expect;
use kedge_diag::report;
use proptest::prelude::*;
use serde::Serialize;

use super::*;
use crate::{Region, Sample, SnapshotId};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LampV1 {
    lit: bool,
}

impl Versioned for LampV1 {
    const KIND: &'static str = "lamp";
    const VERSION: u16 = 1;
}

fn about() -> About {
    About {
        release: "0.1.0".to_owned(),
        architecture: "aarch64".to_owned(),
        page_size: 4096,
        kernel: "6.12.38".to_owned(),
        cpu: 0x413f_d0c1,
        saved_at: 1_780_000_000,
        machine: r#"{"cpus":2}"#.to_owned(),
    }
}

fn memory() -> MemoryIdentity {
    MemoryIdentity {
        id: SnapshotId::new(7),
        base: None,
        length: 0x3000,
        regions: vec![
            Region { start: 0x4000_0000, size: 0x1000 },
            Region { start: 0x8000_0000, size: 0x2000 },
        ],
        samples: vec![Sample { offset: 0x2000, crc: 0xfeed }],
    }
}

fn sections() -> Vec<Section> {
    vec![
        Section::required(Part::of(&LampV1 { lit: true })),
        Section::optional(Part::of(&LampV1 { lit: false })).of("attic"),
    ]
}

fn written(sections: &[Section]) -> Vec<u8> {
    let mut bytes = Vec::new();
    StateFile::write(&mut bytes, &about(), &memory(), sections).unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Result<StateFile, FileError> {
    StateFile::read(&mut Cursor::new(bytes))
}

/// A state file with this header, whatever it says.
fn with_header(header: &impl Serialize, format: u32, behind: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    ciborium::into_writer(header, &mut encoded).unwrap();
    let mut bytes = preamble(&encoded).unwrap().to_vec();
    bytes[8..12].copy_from_slice(&format.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..20]);
    bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
    [&bytes, &encoded[..], behind].concat()
}

fn header() -> Header {
    read(&written(&sections())).unwrap().header
}

fn problem(change: impl Fn(&mut Header)) -> String {
    let mut header = header();
    change(&mut header);
    let whole = written(&sections());
    let lengths: u64 = sections().iter().map(|s| u64_from(s.part.body.len())).sum();
    let behind = &whole[whole.len() - usize_from(lengths)..];
    read(&with_header(&header, FORMAT, behind)).unwrap_err().to_string()
}

#[test]
fn what_is_written_is_read() {
    let file = read(&written(&sections())).unwrap();
    assert_eq!(file.sections(), sections());
    assert_eq!((&file.header().about, &file.header().memory), (&about(), &memory()));
    assert_eq!(file.read_part::<LampV1>().unwrap(), LampV1 { lit: true });
    assert!(file.find("lamp", "attic").is_some());
}

#[test]
fn a_file_without_sections_is_one() {
    assert_eq!(read(&written(&[])).unwrap().sections(), []);
}

#[test]
fn the_header_is_read_without_the_rest() {
    let whole = written(&sections());
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(Header::read(&mut Cursor::new(damaged)).unwrap(), header());
}

#[test]
fn no_byte_can_be_flipped() {
    let whole = written(&sections());
    for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << bit;
        let error = read(&damaged).unwrap_err();
        assert!(matches!(error, FileError::Foreign | FileError::Damaged { .. }), "{at}: {error}");
    }
}

#[test]
fn no_end_can_be_missing() {
    let whole = written(&sections());
    for length in 0..whole.len() {
        let error = read(&whole[..length]).unwrap_err();
        assert!(
            matches!(error, FileError::Truncated { .. } | FileError::Header { .. }),
            "{length}: {error}"
        );
    }
}

#[test]
fn nothing_can_follow_the_end() {
    let mut bytes = written(&sections());
    bytes.push(0);
    expect!["its header is not plausible: 1 bytes follow the last section"]
        .assert_eq(&read(&bytes).unwrap_err().to_string());
}

#[test]
fn a_missing_end_is_said() {
    let whole = written(&sections());
    let texts = [10, 40, whole.len() - 1].map(|length| read(&whole[..length]).unwrap_err());
    expect![[r#"
        it ends after 10 bytes, before the end of its preamble
        it ends after 40 bytes, before the end of its header
        its header is not plausible: `sections[1]` of 6 bytes ends past the file's end"#]]
    .assert_eq(&texts.map(|error| error.to_string()).join("\n"));
}

#[test]
fn damage_is_placed() {
    let whole = written(&sections());
    let texts = [0, 12, 24, whole.len() - 8, whole.len() - 1].map(|at| {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        read(&damaged).unwrap_err().to_string()
    });
    expect![[r#"
        it is no state file of kedge: it begins otherwise
        its preamble is damaged: the checksum does not match
        its header is damaged: the checksum does not match
        its section `lamp` is damaged: the checksum does not match
        its section `lamp` (attic) is damaged: the checksum does not match"#]]
    .assert_eq(&texts.join("\n"));
}

#[test]
fn a_newer_format_is_refused_with_its_release() {
    #[derive(Serialize)]
    struct Later {
        about: LaterAbout,
        colour: &'static str,
    }
    #[derive(Serialize)]
    struct LaterAbout {
        colour: &'static str,
        release: &'static str,
    }
    let about = LaterAbout { colour: "red", release: "2.0.0" };
    let bytes = with_header(&Later { about, colour: "red" }, 2, b"sections");
    expect![[r#"
        error: it has format 2, written by kedge 2.0.0; this release reads format 1
          fix: load it with the release that wrote it, or a later one"#]]
    .assert_eq(&report(&read(&bytes).unwrap_err()));
}

#[test]
fn a_newer_format_that_hides_its_release_is_refused() {
    let bytes = with_header(&"words", 2, b"");
    expect![
        "it has format 2, written by a release that it does not name; this release reads format 1"
    ]
    .assert_eq(&read(&bytes).unwrap_err().to_string());
}

#[test]
fn an_unknown_required_section_is_refused_with_the_release() {
    let file = read(&written(&sections())).unwrap();
    let error = file.header().check_sections(|_| false).unwrap_err();
    expect![[r#"
        error: it needs `lamp` version 1, which this release does not know; kedge 0.1.0 wrote it
          fix: load it with the release that wrote it, or a later one"#]]
    .assert_eq(&report(&error));
}

#[test]
fn an_unknown_optional_section_is_skipped() {
    let file = read(&written(&sections())).unwrap();
    file.header().check_sections(|entry| entry.instance.is_empty()).unwrap();
}

#[test]
fn a_section_that_is_missing_is_named() {
    let file = read(&written(&sections()[1..])).unwrap();
    expect!["it has no section `lamp`"]
        .assert_eq(&file.read_part::<LampV1>().unwrap_err().to_string());
}

#[test]
fn a_header_that_contradicts_itself_is_refused() {
    let problems = [
        problem(|header| header.about.page_size = 0),
        problem(|header| header.about.page_size = 0x1800),
        problem(|header| header.memory.length = 0x2000),
        problem(|header| header.memory.regions[0].size = u64::MAX),
        problem(|header| header.memory.regions[1].start = 0x4000_0000),
        problem(|header| header.memory.regions[1].start = u64::MAX - 0xfff),
        problem(|header| header.memory.regions[1].size = 0x10),
        problem(|header| header.memory.samples[0].offset = 0x3000),
        problem(|header| header.memory.samples[0].offset = 0x10),
        problem(|header| header.sections[1].offset = 0),
        problem(|header| header.sections[1].length = u64::MAX),
        problem(|header| header.sections[1].instance.clear()),
    ];
    expect![[r#"
        its header is not plausible: `about.page_size` is 0, which no host has
        its header is not plausible: `about.page_size` is 6144, which no host has
        its header is not plausible: `memory.length` is 8192, and its regions have 12288 bytes
        its header is not plausible: `memory.regions[0]` cannot be 0xffffffffffffffff bytes at 0x40000000
        its header is not plausible: `memory.regions[1]` cannot be 0x2000 bytes at 0x40000000
        its header is not plausible: `memory.regions[1]` cannot be 0x2000 bytes at 0xfffffffffffff000
        its header is not plausible: `memory.regions[1]` cannot be 0x10 bytes at 0x80000000
        its header is not plausible: `memory.samples[0]` at 0x3000 is no page of it
        its header is not plausible: `memory.samples[0]` at 0x10 is no page of it
        its header is not plausible: `sections[1]` begins at 0, not at 6
        its header is not plausible: `sections[1]` of 18446744073709551615 bytes ends past the file's end
        its header is not plausible: `sections[1]` is a second `lamp`"#]]
    .assert_eq(&problems.join("\n"));
}

#[test]
fn a_header_longer_than_the_file_takes_no_room() {
    let mut bytes = written(&sections());
    bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..20]);
    bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
    assert!(matches!(read(&bytes), Err(FileError::Truncated { what: "header", .. })));
}

proptest! {
    #[test]
    fn no_damage_goes_unnoticed(
        cut in 0_usize..2000,
        flips in prop::collection::vec((0_usize..2000, 1_u8..), 0..8),
        more in prop::collection::vec(any::<u8>(), 0..32),
    ) {
        let whole = written(&sections());
        let mut damaged = whole.clone();
        for (at, mask) in flips {
            let at = at % damaged.len();
            damaged[at] ^= mask;
        }
        damaged.truncate(cut.max(1));
        damaged.extend(more);
        prop_assume!(damaged != whole);
        prop_assert!(read(&damaged).is_err());
    }

    #[test]
    fn any_header_is_read_or_refused(encoded in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = preamble(&encoded).unwrap().to_vec();
        bytes.extend(encoded);
        prop_assert!(read(&bytes).is_err());
    }
}
