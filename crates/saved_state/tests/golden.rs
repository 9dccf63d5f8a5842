//! Snapshots that releases wrote: every later one reads them. They are never changed;
//! a release that writes another format adds one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use expect_test::expect;
use kedge_saved_state::{Bytes, Entry, Header, Snapshot, Versioned};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleV1 {
    number: u64,
    list: Vec<i16>,
    name: String,
    bytes: Bytes,
    nothing: Option<bool>,
    map: BTreeMap<String, u32>,
}

impl Versioned for SampleV1 {
    const KIND: &'static str = "sample";
    const VERSION: u16 = 1;
}

fn sample() -> SampleV1 {
    SampleV1 {
        number: u64::MAX,
        list: vec![-300, 0, 300],
        name: "kedge".to_owned(),
        bytes: Bytes(vec![0xff; 30]),
        nothing: None,
        map: [("one".to_owned(), 1), ("two".to_owned(), 2)].into(),
    }
}

fn resource(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../resources/snapshots").join(name)
}

#[test]
fn format_1_is_read() {
    let snapshot =
        Snapshot::open(&resource("format-1.state"), &resource("format-1.memory")).unwrap();
    assert_eq!(snapshot.state().read_part::<SampleV1>().unwrap(), sample());
    snapshot.image().verify().unwrap();
    assert_eq!(snapshot.image().map().unwrap().extents(), [0x1000..0x2000, 0x4000..0x6000]);
}

fn header() -> Header {
    Header::read(&mut File::open(resource("format-1.state")).unwrap()).unwrap()
}

#[test]
fn the_header_of_format_1_says_where_it_is_from_and_what_its_memory_is() {
    let Header { about, memory, .. } = header();
    expect![[r#"
        (
            About {
                release: "0.1.0",
                architecture: "aarch64",
                page_size: 4096,
                kernel: "6.12.38",
                cpu: 1094701249,
                saved_at: 1795219200,
                machine: "{\"cpus\":2,\"memory_mib\":1}",
            },
            MemoryIdentity {
                id: SnapshotId(be31e9261f6e86ed7edfe366d2731a78),
                base: None,
                length: 32768,
                regions: [
                    Region {
                        start: 1073741824,
                        size: 8192,
                    },
                    Region {
                        start: 2147483648,
                        size: 24576,
                    },
                ],
                samples: [
                    Sample {
                        offset: 4096,
                        crc: 3867054879,
                    },
                    Sample {
                        offset: 16384,
                        crc: 2245600781,
                    },
                    Sample {
                        offset: 20480,
                        crc: 2245600781,
                    },
                ],
            },
        )
    "#]]
    .assert_debug_eq(&(about, memory));
}

#[test]
fn the_header_of_format_1_lists_its_sections() {
    let section = |entry: Entry| {
        let Entry { kind, instance, version, need, offset, length, checksum } = entry;
        format!("{kind} [{instance}] {version} {need:?} {offset} {length} {checksum:#x}\n")
    };
    expect![[r#"
        sample [] 1 Required 0 103 0xa3f37bc6
        hint [of nobody] 9 Optional 103 103 0xa3f37bc6
        memory-map [] 1 Required 206 24 0x42e2111e
        memory-checksums [] 1 Optional 230 27 0x3bc4a336
    "#]]
    .assert_eq(&header().sections.into_iter().map(section).collect::<String>());
}
