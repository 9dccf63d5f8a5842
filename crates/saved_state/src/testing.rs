//! Small snapshots for tests.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    About, Contents, Durability, ImageWriter, OpenError, Part, PendingPair, PlaceError, Region,
    Section, Snapshot, Versioned, WrittenImage,
};

pub(crate) const PAGE: usize = 4096;
/// Over more than one checksum's chunk.
pub(crate) const PAGES: usize = 600;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LampV1 {
    pub(crate) brightness: u32,
}

impl Versioned for LampV1 {
    const KIND: &'static str = "lamp";
    const VERSION: u16 = 1;
}

pub(crate) fn about() -> About {
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

pub(crate) fn regions() -> [Region; 2] {
    [Region { start: 0x4000_0000, size: 88 << 12 }, Region { start: 0x8000_0000, size: 512 << 12 }]
}

/// The two files of a snapshot in a folder.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) state: PathBuf,
    pub(crate) memory: PathBuf,
}

impl Files {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let path = |suffix| folder.join(format!("{name}.{suffix}"));
        Self { state: path("state"), memory: path("mem") }
    }

    pub(crate) fn open(&self) -> Result<Snapshot, OpenError> {
        Snapshot::open(&self.state, &self.memory)
    }

    pub(crate) fn create(&self, contents: Contents) -> Result<PendingPair, PlaceError> {
        PendingPair::create(&self.state, &self.memory, contents)
    }

    /// Saves a snapshot with these pages, each filled with its byte.
    pub(crate) fn save(&self, contents: Contents, pages: &[(Range<usize>, u8)]) -> Snapshot {
        let pair = self.create(contents).unwrap();
        let written = write_memory(&pair, pages);
        pair.commit(&about(), &written, &sections(7), Durability::Cached).unwrap();
        self.open().unwrap()
    }
}

pub(crate) fn sections(brightness: u32) -> [Section; 1] {
    [Section::required(Part::of(&LampV1 { brightness }))]
}

pub(crate) fn write_memory(pair: &PendingPair, pages: &[(Range<usize>, u8)]) -> WrittenImage {
    let mut writer = pair.begin_memory(&regions(), 4096).unwrap();
    fill(&mut writer, pages);
    writer.finish().unwrap()
}

pub(crate) fn fill(writer: &mut ImageWriter<'_>, pages: &[(Range<usize>, u8)]) {
    for (range, byte) in pages {
        let bytes = vec![*byte; range.len() * PAGE];
        writer.write(kedge_ids::u64_from(range.start * PAGE), &bytes).unwrap();
    }
}

/// A byte of each page of the memory file, or where pages are not of one byte, panics.
pub(crate) fn pages(memory: &Path) -> Vec<u8> {
    let bytes = std::fs::read(memory).unwrap();
    let page = |page: &[u8]| {
        assert!(page.iter().all(|byte| *byte == page[0]));
        page[0]
    };
    bytes.chunks(PAGE).map(page).collect()
}

/// The names in a folder, in order.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = names.map(|entry| name(entry).into_string().unwrap()).collect();
    names.sort();
    names
}
